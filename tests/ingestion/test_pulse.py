"""A worker that only runs is told from one that works."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings
from django.utils import timezone

from ingestion import leases, pulse, workers
from ingestion.models import WorkerSign
from ingestion.pulse import Pulse

pytestmark = pytest.mark.django_db


class Clock:
    """Time that passes when told to."""

    def __init__(self) -> None:
        self.now = 1000.0


class Worker:
    """A pulse whose probes are counted and whose end is noted."""

    def __init__(self, clock: Clock) -> None:
        self.probes = 0
        self.ended: list[int] = []
        self.pulse = Pulse(
            "parse@here",
            queues=["parse"],
            send_probe=self._probed,
            end=self.ended.append,
            clock=lambda: clock.now,
        )
        self.file = Path(settings.DATA_DIR) / "run" / "workers" / "parse@here"
        self.file.parent.mkdir(parents=True, exist_ok=True)

    def _probed(self) -> None:
        self.probes += 1


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    monkeypatch.setattr(leases, "_extended_at", 0.0)
    return Clock()


@pytest.fixture
def broker_is(monkeypatch: pytest.MonkeyPatch) -> Callable[[bool], None]:
    def be(answering: bool) -> None:
        monkeypatch.setattr(workers, "broker_answers", lambda: answering)

    be(True)
    return be


def live(worker: Worker, clock: Clock, seconds: float, *, answering: bool) -> None:
    """Pass time in steps of five seconds; probes arrive, or do not."""
    for _ in range(int(seconds / 5)):
        clock.now += 5
        sent = worker.probes
        worker.pulse.look()
        if answering and worker.probes > sent:
            worker.pulse.beat()


def test_a_worker_that_gets_its_messages_lives_and_is_seen(clock: Clock, broker_is: Any) -> None:
    worker = Worker(clock)
    live(worker, clock, 600, answering=True)
    assert worker.ended == []
    assert 30 <= worker.probes <= 41
    alive = workers.workers_alive()
    assert alive["parse"] is not None
    assert alive["parse"] < 60
    assert alive["embed"] is None
    assert workers.queues_without_worker() == ["default", "embed"]


def test_a_worker_without_messages_ends_itself_in_time(clock: Clock, broker_is: Any) -> None:
    worker = Worker(clock)
    live(worker, clock, 70, answering=False)
    assert worker.ended == []
    live(worker, clock, 30, answering=False)
    assert worker.ended
    assert set(worker.ended) == {pulse.EXIT_STUCK}


def test_a_busy_worker_lives_by_its_leases(
    clock: Clock, broker_is: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker = Worker(clock)
    for _ in range(40):
        monkeypatch.setattr(leases, "_extended_at", clock.now)
        live(worker, clock, 15, answering=False)
    assert worker.ended == []


def test_without_a_broker_nobody_is_to_blame(clock: Clock, broker_is: Any) -> None:
    worker = Worker(clock)
    live(worker, clock, 30, answering=True)
    broker_is(False)
    sent = worker.probes
    live(worker, clock, 600, answering=False)
    assert worker.ended == []
    assert worker.probes == sent
    broker_is(True)
    live(worker, clock, 60, answering=False)
    assert worker.ended == [], "the consumer gets its time to come back"
    live(worker, clock, 40, answering=False)
    assert worker.ended


def test_silence_is_measured_and_an_orderly_end_is_not_waited_for(
    clock: Clock, broker_is: Any
) -> None:
    worker = Worker(clock)
    worker.pulse.beat()
    worker.pulse.look()
    assert worker.file.exists()
    WorkerSign.objects.update(seen_at=timezone.now() - timedelta(seconds=100))
    seconds = workers.workers_alive()["parse"]
    assert seconds is not None
    assert 99 < seconds < 160
    assert "parse" in workers.queues_without_worker()
    worker.pulse.stop()
    assert workers.workers_alive()["parse"] is None
    assert not worker.file.exists()
