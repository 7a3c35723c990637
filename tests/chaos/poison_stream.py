"""C-03 and C-04: poison three times over in the stream; what it costs the documents beside it."""

from __future__ import annotations

from dataclasses import replace

from tests.chaos.corpus import poisons
from tests.chaos.harness import UNTIL_READY, Run, main


def fault(run: Run) -> None:
    """The corpus holds each poison once; here come two more of each, in front of everything."""
    more = [
        replace(item, external_id=f"{item.external_id}-{time}")
        for time in range(run.times - 1)
        for item in poisons()
    ]
    run.corpus = [*more, *run.corpus]
    run.feed()


def judge(run: Run) -> None:
    delay = float(run.site.one(UNTIL_READY, run.collection))
    run.figures["p95 until ready"] = delay
    run.figures["p95 until ready, clean run"] = run.clean_p95
    # Loops hold a thread each until their limit of ten seconds, and there are two threads.
    limit = 2 * run.clean_p95 + run.times * 10 / 2
    attempts = run.site.one("SELECT max(attempts) FROM ingestion_ingestionjob")
    run.check(attempts <= 3, f"C-04 poison was tried {attempts} times")
    run.figures["most attempts"] = attempts
    run.check(delay < limit, f"C-04 p95 delay {delay:.1f} s, limit {limit:.1f} s")


if __name__ == "__main__":
    main("C-03/C-04 poison in the stream", fault, times=3, judge=judge)
