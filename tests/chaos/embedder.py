"""C-21: the embedding server dies, hangs, and is replaced by one with another model."""

from __future__ import annotations

import json
import signal
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from tests.chaos.corpus import Item
from tests.chaos.harness import Run, main
from tests.chaos.site import patient, wait_until


def fault(run: Run) -> None:
    share = max(1, len(run.corpus) // (run.times + 4))
    for _ in range(run.times):
        run.feed(share)
        run.wait_for_work()
        server = run.site.embeddings()
        if server is not None:
            server.kill()
        time.sleep(run.random.uniform(2, 8))
    run.feed(share)
    hang(run, 30)
    run.feed(share)
    other_model(run)


def hang(run: Run, seconds: float) -> None:
    wait_until(lambda: run.site.embeddings() is not None, seconds=60)
    server = run.site.embeddings()
    assert server is not None
    server.send_signal(signal.SIGSTOP)
    time.sleep(seconds)
    server.send_signal(signal.SIGCONT)


def other_model(run: Run) -> None:
    """Vectors of other length behind the same address: refused with words, nothing stored."""
    wait_until(lambda: run.site.open_jobs() == 0, seconds=300)
    vectors = run.site.one("SELECT count(*) FROM retrieval_embedding")
    server = run.site.embeddings()
    assert server is not None
    port = int(server.cmdline()[server.cmdline().index("--port") + 1])
    server.kill()
    # Before `up` starts it again, which then finds its port taken until the impostor is gone.
    impostor = patient(
        lambda: ThreadingHTTPServer(("127.0.0.1", port), _Impostor), OSError, seconds=10, pause=0.02
    )
    threading.Thread(target=impostor.serve_forever, daemon=True).start()
    item = Item("impostor", "impostor.md", b"# Impostor\n\nMust not be embedded by a stranger.")
    run.site.upload(run.collection, [item])
    status = "SELECT j.status, j.error_code FROM ingestion_ingestionjob j ORDER BY created_at DESC"
    wait_until(lambda: run.site.rows(status)[0][0] == "failed", seconds=60)
    run.figures["another model: refused as"] = run.site.rows(status)[0][1]
    run.check(
        run.site.rows(status)[0][1] == "embedder_misconfigured",
        f"C-21 another model: {run.site.rows(status)[0]}",
    )
    stored = run.site.one("SELECT count(*) FROM retrieval_embedding") - vectors
    run.check(stored == 0, f"C-21 {stored} vectors of a stranger were stored")
    impostor.shutdown()
    impostor.server_close()
    with run.site.client() as api:
        found = api.get("/documents/", params={"q": "Impostor"}).json()["results"]
        for document in found:
            api.delete(f"/documents/{document['id']}/").raise_for_status()


class _Impostor(BaseHTTPRequestHandler):
    """Speaks the same protocol with vectors of another length."""

    def do_GET(self) -> None:
        self._answer({"status": "ok"})

    def do_POST(self) -> None:
        sent = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        texts = sent["input"] if isinstance(sent["input"], list) else [sent["input"]]
        data = [{"index": i, "embedding": [0.1] * 7} for i in range(len(texts))]
        self._answer({"data": data, "model": "stranger"})

    def _answer(self, body: object) -> None:
        payload = json.dumps(body).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(payload)))
        self.end_headers()
        self.wfile.write(payload)

    def log_message(self, format: str, *args: object) -> None:
        """Says nothing."""


if __name__ == "__main__":
    main("C-21 embedding server", fault, times=4)
