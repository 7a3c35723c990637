"""Many requests, one model: batches across requests, queries before bulk.

One or several threads run the model. Between two batches each looks at the query lane first, so a
query waits for at most one bulk batch. While people are asking, bulk batches are therefore kept
small by padded tokens; when nobody has asked for a while they grow, because small batches cost
processor time. Bulk texts are drawn in arrival order into a run, and the run is batched by length
so that padding costs little.
"""

from __future__ import annotations

import contextlib
import math
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, Final, Literal, Protocol

import numpy as np

from inference.types import Vectors

Lane = Literal["query", "bulk"]
LANES: Final[tuple[Lane, Lane]] = ("query", "bulk")
_RUN_TEXTS: Final = 512
_QUIET_SECONDS: Final = 10.0
_BATCHES_A_RELEASE: Final = 32
# A batch grows beyond the fewest texts only by such as are not much shorter than its longest.
_FEWEST_TEXTS: Final = 8
_ALIKE: Final = 0.85


class BatchEncoder(Protocol):
    """What the model threads call, at the same time. ``release_memory`` comes now and then.

    Texts are what ``submit`` was given: strings, or pairs of them for a cross-encoder.
    """

    def encode(self, texts: Sequence[Any]) -> Vectors: ...
    def release_memory(self) -> None: ...


class QueueFullError(Exception):
    """More texts are waiting than the lane may hold; ``retry_after`` in seconds."""

    def __init__(self, retry_after: int) -> None:
        super().__init__(f"queue full, retry after {retry_after} s")
        self.retry_after = retry_after


class ClosedError(Exception):
    """The server is stopping."""


@dataclass(slots=True)
class Job:
    """The texts of one request. ``tokens`` are lengths for packing, one per text."""

    texts: Sequence[Any]
    tokens: Sequence[int]
    lane: Lane
    future: Future[Vectors] = field(default_factory=Future)
    arrived: float = field(default_factory=time.monotonic)
    vectors: list[Vectors | None] = field(default_factory=list)
    missing: int = 0


@dataclass(slots=True)
class BatchStats:
    """Counters since start; seconds are of the model thread."""

    batches: int = 0
    texts: dict[Lane, int] = field(default_factory=lambda: dict.fromkeys(LANES, 0))
    tokens: int = 0
    padded_tokens: int = 0
    dropped: int = 0
    busy_seconds: float = 0.0
    wait_seconds: dict[Lane, float] = field(default_factory=lambda: dict.fromkeys(LANES, 0.0))


_Item = tuple[Job, int]


class Batcher:
    """Owns the model threads. ``submit`` from any thread; cancel the future to drop queued work.

    ``threads`` batches are computed at once: on processors one a core is up to half again as fast
    as one batch on all cores, whose threads wait for each other after every step. A batch holds at
    most ``batch_texts`` texts and ``batch_tokens`` padded tokens, or
    ``quiet_batch_tokens`` when no query came for ten seconds.
    """

    def __init__(
        self,
        load: Callable[[], BatchEncoder],
        *,
        batch_tokens: int = 2048,
        quiet_batch_tokens: int = 4096,
        batch_texts: int = 32,
        threads: int = 1,
        max_queued: dict[Lane, int] | None = None,
    ) -> None:
        self._load = load
        self._batch_tokens = batch_tokens
        self._quiet_batch_tokens = max(batch_tokens, quiet_batch_tokens)
        self._asked_at = -math.inf
        self._batch_texts = batch_texts
        self._max_queued: dict[Lane, int] = max_queued or {"query": 512, "bulk": 4096}
        self._lanes: dict[Lane, deque[_Item]] = {lane: deque() for lane in LANES}
        self._run: list[_Item] = []
        self._wake = threading.Condition()
        self._closed = False
        self.stats = BatchStats()
        self.ready: Future[BatchEncoder] = Future()
        self._threads = [
            threading.Thread(target=self._load_and_work, name="model-0", daemon=True),
            *(
                threading.Thread(target=self._wait_and_work, name=f"model-{number}", daemon=True)
                for number in range(1, threads)
            ),
        ]

    def start(self) -> None:
        """Load the model in its thread; ``ready`` resolves, or holds why it could not."""
        for thread in self._threads:
            thread.start()

    def queued(self, lane: Lane) -> int:
        """Texts waiting in the lane, cancelled ones included until they are met."""
        with self._wake:
            return self._waiting(lane)

    def _waiting(self, lane: Lane) -> int:
        return len(self._lanes[lane]) + (len(self._run) if lane == "bulk" else 0)

    def submit(self, texts: Sequence[Any], tokens: Sequence[int], *, lane: Lane) -> Future[Vectors]:
        """Queue the texts of one request; the future holds shape (len(texts), dimension).

        Raises ``QueueFullError`` or ``ClosedError``.
        """
        job = Job(texts, tokens, lane, vectors=[None] * len(texts), missing=len(texts))
        with self._wake:
            if self._closed:
                raise ClosedError
            waiting = self._waiting(lane)
            # An empty lane takes any request, or one larger than the lane could never be served.
            if waiting and waiting + len(texts) > self._max_queued[lane]:
                raise QueueFullError(self._seconds_for(waiting))
            if lane == "query":
                self._asked_at = job.arrived
            self._lanes[lane].extend((job, index) for index in range(len(texts)))
            self._wake.notify()
        return job.future

    def _seconds_for(self, waiting: int) -> int:
        done = sum(self.stats.texts.values())
        per_text = self.stats.busy_seconds / done if done else 0.05
        return max(1, min(60, round(waiting * per_text / 2 / len(self._threads))))

    def close(self) -> None:
        """Finish the running batches, fail what waits, end the threads."""
        with self._wake:
            self._closed = True
            self._wake.notify_all()
        for thread in self._threads:
            if thread.is_alive():
                thread.join()

    def _wait_and_work(self) -> None:
        with contextlib.suppress(Exception):  # the first thread says why there is no model
            self._work(self.ready.result())

    def _load_and_work(self) -> None:
        try:
            encoder = self._load()
        except BaseException as error:  # noqa: BLE001 - handed to whoever waits on ready
            self.ready.set_exception(error)
            self._refuse_rest()
            return
        self.ready.set_result(encoder)
        self._work(encoder)

    def _work(self, encoder: BatchEncoder) -> None:
        while True:
            with self._wake:
                batch = self._take()
                while not batch and not self._closed:
                    self._wake.wait()
                    batch = self._take()
                if self._closed:
                    self._run.extend(batch)
                    break
                self._wake.notify()  # there may be more for another thread
            self._encode(encoder, batch)
            if self.stats.batches % _BATCHES_A_RELEASE == 0:
                encoder.release_memory()
        self._refuse_rest()

    def _refuse_rest(self) -> None:
        with self._wake:
            self._closed = True
            rest = [*self._run, *self._lanes["query"], *self._lanes["bulk"]]
            self._run.clear()
            for lane in self._lanes.values():
                lane.clear()
        for job, _ in rest:
            _fail(job, ClosedError())

    def _live(self, items: Sequence[_Item]) -> list[_Item]:
        live = [item for item in items if not item[0].future.done()]
        self.stats.dropped += len(items) - len(live)
        return live

    def _take(self) -> list[_Item]:
        """The next batch: queries if there are any, else the longest of the bulk run."""
        queries = self._lanes["query"]
        while queries:
            drawn = [queries.popleft() for _ in range(min(len(queries), self._batch_texts))]
            if live := self._live(drawn):
                fitting, rest = self._fitting(sorted(live, key=_length, reverse=True))
                queries.extendleft(reversed(rest))
                return fitting
        while True:
            self._run = self._live(self._run)
            if self._run:
                fitting, self._run = self._fitting(self._run)
                return fitting
            bulk = self._lanes["bulk"]
            if not bulk:
                return []
            drawn = [bulk.popleft() for _ in range(min(len(bulk), _RUN_TEXTS))]
            self._run = sorted(drawn, key=_length, reverse=True)

    def _fitting(self, items: list[_Item]) -> tuple[list[_Item], list[_Item]]:
        """Split longest-first items where padding to the longest would pass the budget."""
        longest = max(1, _length(items[0]))
        quiet = time.monotonic() - self._asked_at > _QUIET_SECONDS
        tokens = self._quiet_batch_tokens if quiet else self._batch_tokens
        most = max(1, min(self._batch_texts, tokens // longest))
        count = min(_FEWEST_TEXTS, most)
        while count < min(most, len(items)) and _length(items[count]) >= _ALIKE * longest:
            count += 1
        return items[:count], items[count:]

    def _encode(self, encoder: BatchEncoder, batch: list[_Item]) -> None:
        started = time.monotonic()
        try:
            vectors = encoder.encode([job.texts[index] for job, index in batch])
        except Exception as error:  # noqa: BLE001 - one bad batch must not end the model thread
            with self._wake:  # another thread may fail the same job
                for job, _ in batch:
                    _fail(job, error)
            return
        with self._wake:
            self._record(batch, started)
            whole = []
            for (job, index), vector in zip(batch, vectors, strict=True):
                job.vectors[index] = vector
                job.missing -= 1
                if not job.missing:
                    whole.append(job)
        for job in whole:
            if job.future.set_running_or_notify_cancel():
                job.future.set_result(np.stack([row for row in job.vectors if row is not None]))

    def _record(self, batch: list[_Item], started: float) -> None:
        stats = self.stats
        stats.batches += 1
        stats.busy_seconds += time.monotonic() - started
        stats.padded_tokens += len(batch) * max(_length(item) for item in batch)
        for job, index in batch:
            stats.texts[job.lane] += 1
            stats.tokens += job.tokens[index]
            stats.wait_seconds[job.lane] += started - job.arrived


def _length(item: _Item) -> int:
    job, index = item
    return job.tokens[index]


def _fail(job: Job, error: Exception) -> None:
    if not job.future.done() and job.future.set_running_or_notify_cancel():
        job.future.set_exception(error)
