"""C-02: ``kill -9`` of parser children and of the zygotes they are forked from."""

from __future__ import annotations

import time
from collections.abc import Callable

import psutil

from tests.chaos.harness import Run, main


def fault(run: Run) -> None:
    feeding = run.feed_beside()
    for number in range(run.times):
        time.sleep(run.random.uniform(0, 0.6))
        run.wait_for_work()
        zygote = number % 5 == 4
        kind = "zygotes killed" if zygote else "children killed"
        hit(run, psutil.Process.kill, kind=kind, zygote=zygote)
    feeding.join()


def hit(run: Run, act: Callable[[psutil.Process], object], *, kind: str, zygote: bool) -> None:
    """Wait up to five seconds for a child to be parsing; a zygote is there all the time."""
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline:
        worker = run.site.worker("parse")
        try:
            zygotes = worker.children() if worker is not None else []
            targets = zygotes if zygote else [c for z in zygotes for c in z.children()]
            if targets:
                act(run.random.choice(targets))
                run.figures[kind] = run.figures.get(kind, 0) + 1
                return
        except (psutil.Error, ProcessLookupError):
            continue
        time.sleep(0.002)


if __name__ == "__main__":
    main("C-02 kill -9 of parsers", fault, times=50)
