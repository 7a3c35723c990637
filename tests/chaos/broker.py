"""C-05 and C-06: the broker is restarted, stays away for a minute, and forgets everything."""

from __future__ import annotations

import signal
import time

import redis

from tests.chaos.harness import Run, main
from tests.chaos.site import patient, wait_until

OUTAGE_SECONDS = 60.0


def restart(run: Run) -> None:
    """Kill it, as a crash would; ``up`` starts it again on its append-only file."""
    server = run.site.valkey()
    assert server is not None
    server.kill()
    wait_until(lambda: run.site.valkey() not in (None, server), seconds=60)


def flush(run: Run) -> None:
    patient(lambda: run.site.broker().flushall(), redis.RedisError, seconds=30)


def outage(run: Run, seconds: float) -> None:
    """It hangs: connections stay open and nothing is answered. Uploads must be taken meanwhile."""
    server = run.site.valkey()
    assert server is not None
    before = run.site.up.output
    workers = [run.site.worker(name) for name in ("parse", "embed")]
    server.send_signal(signal.SIGSTOP)
    began = time.monotonic()
    run.feed(run.share)
    run.figures["uploads during the outage took"] = time.monotonic() - began
    time.sleep(max(0.0, seconds - (time.monotonic() - began)))
    server.send_signal(signal.SIGCONT)
    ready = "SELECT count(*) FROM ingestion_ingestionjob WHERE status = 'ready'"
    done = run.site.one(ready)
    run.feed(run.share)
    run.figures["work went on after"] = wait_until(lambda: run.site.one(ready) > done, seconds=120)
    run.check(run.figures["work went on after"] <= 60, "C-05 workers needed more than 60 s")
    same = [run.site.worker(name) for name in ("parse", "embed")] == workers
    run.check(same, "C-05 a worker was restarted: " + run.site.up.output[len(before) :])


def fault(run: Run) -> None:
    share = max(1, len(run.corpus) // (2 * run.times + 2))
    for _ in range(run.times):
        run.feed(share)
        run.wait_for_work()
        restart(run)
        run.feed(share)
        run.wait_for_work()
        flush(run)
    outage(run, OUTAGE_SECONDS)


if __name__ == "__main__":
    main("C-05/C-06 broker restarts, forgets, hangs", fault, times=5)
