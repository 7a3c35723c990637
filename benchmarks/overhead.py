"""What search and answers add to the engines under them.

    python -m benchmarks.overhead [--searches 60] [--answers 10]

Starts a site with 60 Markdown pages and a scripted model server that streams 200 tokens as fast as
it can, and measures in turns

- a search over REST against its bare parts in one process: one embedding request and the two
  SQL statements of the arms, without HTTP, rights, fusion and loading,
- a streamed one-shot answer over REST against reading the same tokens from the model server
  directly.

Prints medians in milliseconds, the difference, and the ratio.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import httpx
import psycopg

from benchmarks._site import ROOT, Site, documents, free_port, running_site, upload
from benchmarks.ingestion import wait

QUESTION = "How do I request annual leave?"
MODEL_SERVER = """
import json, sys, uvicorn
from starlette.applications import Starlette
from starlette.responses import JSONResponse, StreamingResponse
from starlette.routing import Route

async def stream():
    def chunk(delta, finish=None):
        choice = {"index": 0, "delta": delta, "finish_reason": finish}
        return "data: " + json.dumps({"choices": [choice]}) + "\\n\\n"
    yield chunk({"role": "assistant", "content": ""})
    for i in range(200):
        yield chunk({"content": "word%d " % i if i % 50 else "word%d [1]. " % i})
    yield chunk({}, "stop")
    yield "data: " + json.dumps({"choices": [], "usage": {"prompt_tokens": 1, "completion_tokens": 200}})
    yield "\\n\\ndata: [DONE]\\n\\n"

async def chat(request):
    await request.body()
    return StreamingResponse(stream(), media_type="text/event-stream")

async def models(request):
    return JSONResponse({"data": [{"id": "scripted", "max_model_len": 8192}]})

app = Starlette(routes=[Route("/v1/models", models), Route("/v1/chat/completions", chat, methods=["POST"])])
uvicorn.run(app, host="127.0.0.1", port=int(sys.argv[1]), log_level="error")
"""  # noqa: E501  a program of its own


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--searches", type=int, default=60)
    parser.add_argument("--answers", type=int, default=10)
    options = parser.parse_args()
    port = free_port()
    model = subprocess.Popen([sys.executable, "-c", MODEL_SERVER, str(port)], cwd=ROOT)
    url = f"http://127.0.0.1:{port}/v1"
    try:
        with running_site(LLM_BASE_URL=url, LLM_MODEL="scripted") as site:
            collection = upload(site, documents(60))
            wait(site, collection, 60)
            bare, ours = in_turns(
                options.searches, bare_search(site, collection), lambda: search(site)
            )
            report("search", bare, ours)
            bare, ours = in_turns(options.answers, lambda: bare_stream(url), lambda: answer(site))
            report("answer", bare, ours)
    finally:
        model.terminate()
        model.wait()


def in_turns(
    rounds: int, bare: Callable[[], object], ours: Callable[[], object]
) -> tuple[list[float], list[float]]:
    """Milliseconds of each, alternating, after two rounds to warm up."""
    times: tuple[list[float], list[float]] = ([], [])
    for number in range(rounds + 2):
        for measured, call in zip(times, (bare, ours), strict=True):
            started = time.perf_counter()
            call()
            if number >= 2:
                measured.append((time.perf_counter() - started) * 1000)
    return times


def report(name: str, bare: list[float], ours: list[float]) -> None:
    low, high = statistics.median(bare), statistics.median(ours)
    print(
        f"{name}: bare {low:.1f} ms, over REST {high:.1f} ms,"
        f" adds {high - low:.1f} ms, ratio {high / low:.2f}"
    )


def search(site: Site) -> None:
    site.api.post("/search/", json={"query": QUESTION}).raise_for_status()


def bare_search(site: Site, collection: str) -> Callable[[], None]:
    """One embedding request and the two statements, on connections that stay open."""
    client = httpx.Client(headers=_bearer(site.services.get("embedding_api_key")))
    url = f"{site.services['embedding_url']}/embeddings"
    connection = psycopg.connect(site.services["database_url"], autocommit=True)

    def run() -> None:
        body = {"model": "all-MiniLM-L6-v2", "input": [QUESTION]}
        answer = client.post(url, json=body, headers={"X-Priority": "query"}).raise_for_status()
        vector = json.dumps(answer.json()["data"][0]["embedding"])
        connection.execute(
            "SELECT chunk_id FROM retrieval_embedding WHERE collection_id = %s"
            " ORDER BY vector::halfvec(384) <=> %s::halfvec(384) LIMIT 200",
            [collection, vector],
        ).fetchall()
        connection.execute(
            "SELECT id FROM retrieval_chunk, to_tsquery('english', 'request | annual | leave') q"
            " WHERE collection_id = %s AND terms @@ q ORDER BY ts_rank(terms, q) DESC LIMIT 200",
            [collection],
        ).fetchall()

    return run


def _bearer(key: Any) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"} if key else {}


def bare_stream(url: str) -> None:
    body = {"model": "scripted", "stream": True, "messages": []}
    with httpx.stream("POST", f"{url}/chat/completions", json=body) as response:
        for _ in response.iter_lines():
            pass


def answer(site: Site) -> None:
    body = {"question": QUESTION, "stream": True}
    with site.api.stream("POST", "/answers/", json=body) as response:
        last = [line for line in response.iter_lines() if line.startswith("event:")][-1]
    if last != "event: done":
        raise SystemExit(f"The answer ended with {last}.")


if __name__ == "__main__":
    main()
