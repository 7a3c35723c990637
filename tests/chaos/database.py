"""C-07: PostgreSQL is killed and recovers from its log; nothing acknowledged may be lost."""

from __future__ import annotations

import os
import subprocess
import threading
import time
from urllib.parse import urlsplit

import httpx
import psutil
import psycopg

from assistant.embedded.accounts import database_account
from assistant.embedded.postgres import binaries_for
from tests.chaos.harness import Run, main
from tests.chaos.site import Site, wait_until


def kill(run: Run) -> None:
    """Every process of the server at once, as the machine's end would; until it answers again."""
    server = run.site.postgres()
    assert server is not None
    processes = [server, *server.children(recursive=True)]
    for process in processes:
        try:
            process.kill()
        except psutil.NoSuchProcess:
            continue
    began = time.monotonic()
    wait_until(lambda: _answers(run.site), seconds=120)
    wait_until(lambda: _web_works(run.site), seconds=120)
    slowest = max(run.figures.get("slowest recovery", 0.0), time.monotonic() - began)
    run.figures["slowest recovery"] = slowest


def visit(run: Run, stop: threading.Event) -> None:
    """A reader all along: pages and API say 503 with words while the database is away."""
    site = f"http://127.0.0.1:{run.site.up.port}"
    seen: dict[int, int] = {}
    with httpx.Client(timeout=60) as browser, run.site.client() as api:
        while not stop.wait(0.1):
            try:
                page = browser.get(f"{site}/", headers={"Cookie": "session=" + "a" * 32})
                answer = api.get("/documents/?limit=1")
            except httpx.HTTPError as error:
                run.site.strange.append(f"no answer: {error!r}")
                continue
            run.site.look_at(answer)
            for status in (page.status_code, answer.status_code):
                seen[status] = seen.get(status, 0) + 1
            if page.status_code == 503 and "retry-after" not in page.headers:
                run.site.strange.append("page 503 without Retry-After")
            if page.status_code not in (200, 302, 503):
                run.site.strange.append(f"page {page.status_code}")
    run.figures["answers seen"] = ", ".join(f"{count}x {s}" for s, count in sorted(seen.items()))


def fault(run: Run) -> None:
    stop = threading.Event()
    reader = threading.Thread(target=visit, args=(run, stop))
    reader.start()
    feeding = run.feed_beside()
    for _ in range(run.times):
        time.sleep(run.random.uniform(1, 6))
        run.wait_for_work()
        kill(run)
    feeding.join()
    stop.set()
    reader.join()
    run.check(run.figures["slowest recovery"] <= 30, "C-07 recovery took more than 30 s")


def judge(run: Run) -> None:
    """Heap and indexes, byte for byte; checksums are verified on the way."""
    url = urlsplit(run.site.up.services()["database_url"])
    password = (run.site.data_dir / "secrets" / "postgres-superuser").read_text().strip()
    account = database_account()
    checked = subprocess.run(
        [
            *(str(binaries_for(account) / "pg_amcheck"), "--install-missing", "--heapallindexed"),
            *("-h", "127.0.0.1", "-p", str(url.port), "-U", "postgres", "-d", "assistant"),
        ],
        env={**os.environ, "PGPASSWORD": password},
        capture_output=True,
        text=True,
        check=False,
    )
    clean = checked.returncode == 0 and not checked.stdout.strip()
    run.figures["pg_amcheck"] = "clean" if clean else "DAMAGE"
    run.check(clean, f"C-07 pg_amcheck: {(checked.stdout + checked.stderr)[:500]}")


def _answers(site: Site) -> bool:
    try:
        psycopg.connect(site.up.services()["database_url"], connect_timeout=2).close()
    except psycopg.OperationalError:
        return False
    return True


def _web_works(site: Site) -> bool:
    try:
        with site.client() as api:
            return api.get("/documents/?limit=1").status_code == 200
    except httpx.HTTPError:
        return False


if __name__ == "__main__":
    main("C-07 SIGKILL of PostgreSQL", fault, times=10, judge=judge)
