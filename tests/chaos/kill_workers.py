"""C-01: ``kill -9`` of a worker's main process at random moments while documents come in."""

from __future__ import annotations

import time

import psutil

from tests.chaos.harness import Run, main
from tests.chaos.site import wait_until


def fault(run: Run) -> None:
    for _ in range(run.times):
        run.feed(run.share)
        name = run.random.choice(("parse", "embed"))
        wait_until(lambda name=name: run.site.worker(name) is not None, seconds=60)  # type: ignore[misc]
        time.sleep(run.random.uniform(0, 4))
        run.wait_for_work()
        worker = run.site.worker(name)
        if worker is not None:
            try:
                worker.kill()
            except psutil.NoSuchProcess:
                continue
            run.figures[f"kills of {name}"] = run.figures.get(f"kills of {name}", 0) + 1


if __name__ == "__main__":
    main("C-01 kill -9 of workers", fault, times=50)
