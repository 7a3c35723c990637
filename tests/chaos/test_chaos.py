"""The short form of the chaos scripts, against a real site; ``docs/operations.md`` has the long."""

from __future__ import annotations

import time

import psutil

from tests.chaos import broker, database
from tests.chaos.harness import Run, hurt
from tests.chaos.site import running_site, wait_until

DOCUMENTS = 30
KILLS = 5


def fault(run: Run) -> None:
    """Workers killed five times, a parser, the broker's memory, and the database once."""
    for number in range(run.times):
        run.feed(run.share)
        name = ("parse", "embed")[number % 2]
        wait_until(lambda name=name: run.site.worker(name) is not None, seconds=60)  # type: ignore[misc]
        time.sleep(run.random.uniform(0, 2))
        worker = run.site.worker(name)
        if worker is not None:
            worker.kill()
        if number == 1:
            broker.flush(run)
        if number == 3:
            database.kill(run)
    _kill_a_zygote(run)


def _kill_a_zygote(run: Run) -> None:
    wait_until(lambda: run.site.worker("parse") is not None, seconds=60)
    worker = run.site.worker("parse")
    for zygote in worker.children() if worker is not None else []:
        try:
            zygote.kill()
        except psutil.NoSuchProcess:
            continue


def test_nothing_is_lost_doubled_or_stuck() -> None:
    # More than the ten seconds of the scripts: this runs beside whatever a machine does.
    with running_site(PARSE_TIMEOUT_SECONDS="20") as site:
        run = hurt(site, fault, documents=DOCUMENTS, times=KILLS, settle=120)
    assert run.complaints == []
    assert run.figures["ready"] == DOCUMENTS - 5
