"""The short form of ``tests.chaos.streams``; ``docs/operations.md`` has the long."""

from __future__ import annotations

from tests.chaos.streams import FAULTS, run


def test_streams_survive() -> None:
    trials = run(sorted(FAULTS), share=0.03, idle=12.0)
    assert [complaint for trial in trials.values() for complaint in trial.complaints] == []
