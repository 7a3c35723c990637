"""What every chaos script does around its fault: a clean run as oracle, the hurt run, a table.

python -m tests.chaos.NAME [--documents 500] [--times 50] [--seed 1]
"""

from __future__ import annotations

import argparse
import random
import signal
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from assistant.embedded.console import say
from tests.chaos import invariants
from tests.chaos.corpus import Item, make_corpus
from tests.chaos.site import Site, running_site, wait_until


@dataclass
class Run:
    """One hurt run: the fault calls ``feed`` for documents and notes figures and complaints."""

    site: Site
    collection: str
    corpus: Sequence[Item]
    oracle: Mapping[str, int]
    clean_seconds: float
    clean_p95: float
    times: int
    random: random.Random
    statuses: dict[str, int] = field(default_factory=dict)
    figures: dict[str, Any] = field(default_factory=dict)
    complaints: list[str] = field(default_factory=list)
    _fed: int = 0

    def feed(self, count: int | None = None) -> None:
        """Upload the next ``count`` documents, by default all that are left."""
        part = self.corpus[self._fed : None if count is None else self._fed + count]
        self._fed += len(part)
        self.statuses |= self.site.upload(self.collection, part)

    def feed_beside(self) -> threading.Thread:
        """Upload all that are left while the fault goes on."""
        thread = threading.Thread(target=self.feed)
        thread.start()
        return thread

    @property
    def share(self) -> int:
        """How many documents to feed per hit, so that there is work at every one."""
        return max(1, len(self.corpus) // self.times)

    def wait_for_work(self) -> None:
        """Return in the middle of work, or after ten seconds without any."""
        try:
            wait_until(lambda: self.site.open_jobs() > 0, seconds=10, pause=0.1)
        except TimeoutError:
            self.figures["hits without work"] = self.figures.get("hits without work", 0) + 1

    def check(self, is_so: bool, complaint: str) -> None:
        if not is_so:
            self.complaints.append(complaint)


# A fault hurts the site; a judge looks at what no general invariant sees, after the run.
Fault = Callable[[Run], None]
Judge = Callable[[Run], None]
UNTIL_READY = """
    SELECT coalesce(percentile_cont(0.95) WITHIN GROUP (
        ORDER BY extract(epoch FROM j.finished_at - j.created_at)), 0)
    FROM ingestion_ingestionjob j
    JOIN documents_documentversion v ON v.id = j.version_id
    JOIN documents_document d ON d.id = v.document_id
    WHERE d.collection_id = %s AND j.status = 'ready'
"""
# What happens to the data directory before the site starts and after it ended.
Prepare = Callable[[Path], None]


def _nothing(data_dir: Path) -> None:
    """For faults that need no preparation."""


def _no_more(run: Run) -> None:
    """For faults that the invariants judge completely."""


def hurt(
    site: Site,
    fault: Fault,
    *,
    documents: int,
    times: int,
    judge: Judge = _no_more,
    seed: int = 1,
    settle: float = 300.0,
) -> Run:
    """A clean run, then the same documents with the fault; complaints say what did not hold."""
    corpus = make_corpus(documents, seed=seed)
    clean = site.new_collection("Clean")
    began = time.monotonic()
    site.upload(clean, [item for item in corpus if not item.is_poison])
    wait_until(lambda: site.open_jobs() == 0, seconds=900)
    clean_seconds = time.monotonic() - began
    oracle = invariants.chunk_counts(site, clean)
    if not all(oracle.values()):
        raise SystemExit("The clean run was not clean: nothing can be said about faults.")
    clean_p95 = float(site.one(UNTIL_READY, clean))
    site.delete_collection(clean)  # with its vectors, which the hurt run could take over

    run = Run(
        site,
        site.new_collection("Hurt"),
        corpus,
        oracle,
        clean_seconds,
        clean_p95,
        times,
        random.Random(seed),
    )
    began = time.monotonic()
    fault(run)
    run.feed()
    ended = time.monotonic()
    try:
        wait_until(lambda: site.open_jobs() == 0, seconds=2 * clean_seconds + settle, pause=0.5)
    except TimeoutError:
        run.complaints.append(f"I5 {site.open_jobs()} documents were still open at the end")
    run.figures["settled after the last hit"] = time.monotonic() - ended
    run.figures["hurt run"] = time.monotonic() - began
    wait_until(lambda: _quiet(site), seconds=120)
    run.complaints += invariants.violations(site, run.collection, run.corpus, run.statuses, oracle)
    judge(run)
    statuses = site.rows(
        "SELECT j.status, count(*) FROM ingestion_ingestionjob j"
        " JOIN documents_documentversion v ON v.id = j.version_id"
        " JOIN documents_document d ON d.id = v.document_id"
        " WHERE d.collection_id = %s GROUP BY 1",
        run.collection,
    )
    run.figures |= {str(name): count for name, count in statuses}
    run.figures["refused at the door"] = sum(
        1 for status in run.statuses.values() if 400 <= status < 500
    )
    run.figures["uploads cut off, to be swept"] = invariants.strays(site)
    run.figures["chunks"] = sum(oracle.values())
    run.figures["clean run"] = clean_seconds
    run.figures["slowest upload"] = site.slowest_upload
    return run


def _quiet(site: Site) -> bool:
    """Whether nothing is on its way any more that the invariants count as stuck."""
    return not site.one("SELECT count(*) FROM ingestion_outboxentry WHERE sent_at IS NULL")


def main(
    name: str,
    fault: Fault,
    *,
    times: int,
    judge: Judge = _no_more,
    before: Prepare = _nothing,
    after: Prepare = _nothing,
    **env: str,
) -> None:
    """The command line of one script; exits with 1 when an invariant fails."""
    parser = argparse.ArgumentParser(description=f"Chaos test {name}.")
    parser.add_argument("--documents", type=int, default=500)
    parser.add_argument("--times", type=int, default=times)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    # A time limit from outside must not leave the site running.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(124))
    with running_site(before=before, after=after, **env) as site:
        run = hurt(
            site,
            fault,
            documents=options.documents,
            times=options.times,
            judge=judge,
            seed=options.seed,
        )
    show(name, run)
    sys.exit(1 if run.complaints else 0)


def show(name: str, run: Run) -> None:
    say(f"\n{name}: {len(run.corpus)} documents, {run.times} hits")
    for key, value in run.figures.items():
        text = f"{value:.1f} s" if isinstance(value, float) else str(value)
        say(f"  {key:<34}{text:>12}")
    for complaint in run.complaints[:40]:
        say(f"  FAILED  {complaint}")
    say(f"  {'all invariants hold' if not run.complaints else f'{len(run.complaints)} FAILED'}")
