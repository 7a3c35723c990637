"""How far uploads are, for pages and programs: place in the queue, time left, what holds them up.

Time left comes from what workers finished lately, never from a guess: without a measurement there
is none. Places are counted over the whole site, so a number is all that is said about others.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final
from uuid import UUID

from django.db import connection
from django.db.models import Max, Min, Q, Sum
from django.utils import timezone

from ingestion import workers
from ingestion.failing import patience
from ingestion.models import OPEN_STATUSES, IngestionJob, JobStatus, OutboxEntry

_SAMPLE_MINUTES: Final = 15
_SAMPLE_FILES: Final = 300
# With fewer finished files a rate says more about these files than about the site.
_FEWEST_FILES: Final = 3
_WORKS_ON: Final = {JobStatus.QUEUED: "parse", JobStatus.PARSING: "parse"}
_STAGES: Final = {
    JobStatus.QUEUED: "Waiting",
    JobStatus.PARSING: "Reading",
    JobStatus.EMBEDDING: "Indexing",
    JobStatus.READY: "Ready",
    JobStatus.FAILED: "Failed",
    JobStatus.CANCELLED: "Cancelled",
}


@dataclass(frozen=True, slots=True)
class Throughput:
    """What workers did lately while there was work: chunks in a second, chunks to expect."""

    chunks_per_second: float
    chunks_per_file: float
    chunks_per_byte: dict[str, float]
    """By media type, for files whose text is not known yet."""


@dataclass(frozen=True, slots=True)
class Place:
    """``ahead`` unfinished files come before; ``eta_seconds`` until this one is ready, or None."""

    ahead: int
    eta_seconds: int | None


@dataclass(frozen=True, slots=True)
class Again:
    """A stage that failed for a reason that may pass, and is tried again in ``seconds``."""

    seconds: int
    attempt: int
    attempts: int
    code: str
    detail: str


@dataclass(frozen=True, slots=True)
class Blocked:
    """Nothing moves until an administrator acts: ``no_worker`` or ``broker_unreachable``."""

    code: str
    detail: str


_COMFORT: Final = (
    "Nothing is lost: files go on by themselves when {that}. Tell an administrator if this lasts."
)
_NO_BROKER: Final = Blocked(
    "broker_unreachable",
    f"The message queue cannot be reached. {_COMFORT.format(that='it is back')}",
)
_NO_WORKER: Final = {
    queue: Blocked("no_worker", f"No worker is running{what}. {_COMFORT.format(that='one runs')}")
    for queue, what in (
        ("parse", " that reads files"),
        ("embed", " that indexes files"),
        ("all", ""),
    )
}
_QUEUES: Final = ("parse", "embed")


@dataclass(frozen=True, slots=True)
class Progress:
    """One file on its way. ``queue``, ``again`` and ``blocked`` are None where they say nothing."""

    status: JobStatus
    done: int
    total: int
    queue: Place | None = None
    again: Again | None = None
    blocked: Blocked | None = None
    is_held: bool = False

    @property
    def is_waiting(self) -> bool:
        """Whether its turn has not come yet in the stage it is in."""
        return not self.is_held and (
            self.status == JobStatus.QUEUED
            or (self.status == JobStatus.EMBEDDING and not self.done)
        )

    @property
    def words(self) -> str:
        """The stage: ``Waiting``, ``Reading page 3 of 20``, ``Indexing 120 of 400``."""
        if self.status == JobStatus.PARSING and self.total:
            return f"Reading page {self.done} of {self.total}"
        if self.status == JobStatus.EMBEDDING and self.is_waiting:
            return "Waiting to be indexed"
        if self.status == JobStatus.EMBEDDING and self.total:
            return f"Indexing {self.done} of {self.total}"
        return _STAGES[self.status]

    @property
    def note(self) -> str:
        """What people want to know beside it; empty when there is nothing to add."""
        if self.blocked is not None:
            return self.blocked.detail
        if self.again is not None:
            again = self.again
            when = f"in {again.seconds} s" if again.seconds else "now"
            reason = again.detail.split(". ")[0].rstrip(".")
            # While a part of the site is away, waiting costs no attempt: then this is the first.
            count = f" (attempt {again.attempt} of {again.attempts})" if again.attempt > 1 else ""
            return f"Will be tried again {when}{count}: {reason}."
        if self.queue is None:
            return ""
        soon = about(self.queue.eta_seconds)
        left = f"ready in {soon}" if soon else ""
        place = _behind(self.queue.ahead) if self.is_waiting else ""
        return ", ".join(filter(None, (place, left))).capitalize()

    @property
    def sentence(self) -> str:
        """Stage and note in one line, for programs that show text."""
        if self.is_waiting and self.queue and not (self.again or self.blocked):
            return f"{self.words} {self.note[:1].lower()}{self.note[1:]}".strip()
        return f"{self.words}. {self.note}" if self.note else self.words


def about(seconds: int | None) -> str:
    """``200`` as ``about 3 minutes``; empty for None."""
    if seconds is None:
        return ""
    if seconds < 10:
        return "a few seconds"
    if seconds < 55:
        return f"about {round(seconds, -1)} seconds"
    for unit, limit, name in ((60, 3600, "minute"), (3600, 86400, "hour")):
        if seconds < limit * 0.97:
            return _counted(max(1, round(seconds / unit)), name)
    return _counted(round(seconds / 86400), "day")


def _counted(number: int, noun: str) -> str:
    return f"about {number} {noun}{'' if number == 1 else 's'}"


def _behind(ahead: int) -> str:
    if ahead == 0:
        return "next in line"
    return f"behind {ahead:,} {'other' if ahead == 1 else 'others'}"


def progress_of(
    jobs: Iterable[IngestionJob], *, stopped: Mapping[str, Blocked] | None = None
) -> dict[UUID, Progress]:
    """The progress of each job by its id. Costs no query while none of them is open.

    ``stopped`` is what ``blocked_queues()`` said, for callers that asked already.
    """
    jobs = list(jobs)
    unfinished = [job for job in jobs if job.status in OPEN_STATUSES]
    if not unfinished:
        return {job.pk: _of(job) for job in jobs}
    if stopped is None:
        stopped = blocked_queues()
    places = _places([job.pk for job in unfinished], with_eta=not stopped)
    again = _retries(unfinished)
    return {
        job.pk: _of(
            job,
            queue=places.get(job.pk),
            again=again.get(job.pk),
            blocked=None if job.lease_owner else stopped.get(_queue_of(job)),
        )
        for job in jobs
    }


def _of(
    job: IngestionJob,
    *,
    queue: Place | None = None,
    again: Again | None = None,
    blocked: Blocked | None = None,
) -> Progress:
    return Progress(
        status=JobStatus(job.status),
        done=job.stage_done,
        total=job.stage_total,
        queue=queue,
        again=again,
        blocked=blocked,
        is_held=bool(job.lease_owner),
    )


def _queue_of(job: IngestionJob) -> str:
    return _WORKS_ON.get(JobStatus(job.status), "embed")


def blocked_queues() -> dict[str, Blocked]:
    """The queues on which nobody works, with the words for it; empty when all is well.

    Asks the broker, which may take seconds, only when a queue is silent.
    """
    without = workers.queues_without_worker()
    silent = [queue for queue in _QUEUES if queue in without]
    if not silent:
        return {}
    if not workers.broker_answers():
        return dict.fromkeys(silent, _NO_BROKER)
    return dict.fromkeys(silent, _NO_WORKER["all" if len(silent) > 1 else silent[0]])


def eta_of(job_id: UUID) -> int | None:
    """Seconds until this open job is ready; None when nothing was measured."""
    place = _places([job_id], with_eta=True).get(job_id)
    return place.eta_seconds if place else None


def _retries(jobs: Sequence[IngestionJob]) -> dict[UUID, Again]:
    """Those whose last attempt failed and that wait for the next."""
    waiting = {job.pk: job for job in jobs if job.error_code and not job.lease_owner}
    if not waiting:
        return {}
    now = timezone.now()
    due = dict(
        OutboxEntry.objects.filter(job__in=waiting)
        .order_by()
        .values_list("job")
        .annotate(at=Max("not_before"))
    )
    return {
        key: Again(
            seconds=max(0, round((due.get(key, now) - now).total_seconds())),
            attempt=job.attempts + 1,
            attempts=patience(job.error_code),
            code=job.error_code,
            detail=job.error_detail,
        )
        for key, job in waiting.items()
    }


_LINE: Final = """
    WITH expected (media_type, per_byte) AS (
        SELECT * FROM unnest(%(media_types)s::text[], %(per_byte)s::float8[])
    ), line AS (
        SELECT j.id, row_number() OVER w - 1 AS ahead, sum(
            CASE WHEN j.status = 'embedding' THEN greatest(j.stage_total - j.stage_done, 0)
            ELSE coalesce(greatest(v.size * e.per_byte, 1), %(per_file)s) END
        ) OVER w AS chunks
        FROM ingestion_ingestionjob j
        JOIN documents_documentversion v ON v.id = j.version_id
        LEFT JOIN expected e ON e.media_type = v.media_type
        WHERE j.status IN ('queued', 'parsing', 'embedding')
        WINDOW w AS (
            ORDER BY j.lease_owner = '', j.round, j.lane, j.created_at, j.id
            ROWS UNBOUNDED PRECEDING
        )
    )
    SELECT id, ahead, chunks FROM line WHERE id = ANY(%(ids)s)
"""


def _places(ids: Sequence[UUID], *, with_eta: bool) -> dict[UUID, Place]:
    """In the order of the line, behind what is worked on; the work up to its end, in chunks."""
    if not ids:
        return {}
    rate = throughput() if with_eta else None
    expected = rate.chunks_per_byte if rate else {}
    with connection.cursor() as cursor:
        cursor.execute(
            _LINE,
            {
                "media_types": list(expected),
                "per_byte": list(expected.values()),
                "per_file": rate.chunks_per_file if rate else 0.0,
                "ids": list(ids),
            },
        )
        return {
            key: Place(ahead, round(float(chunks) / rate.chunks_per_second) if rate else None)
            for key, ahead, chunks in cursor.fetchall()
        }


def throughput() -> Throughput | None:
    """Measured over the files that became ready in the last minutes, idle times left out.

    What workers hold now counts too, so that a rate of good times sinks when they get stuck. None
    when too little was finished to tell.
    """
    now = timezone.now()
    since = now - timedelta(minutes=_SAMPLE_MINUTES)
    finished: list[Any] = list(
        IngestionJob.objects.filter(
            status=JobStatus.READY, finished_at__gte=since, started_at__isnull=False
        )
        .order_by("-finished_at")
        .values_list(
            "started_at",
            "finished_at",
            "version__chunk_count",
            "version__size",
            "version__media_type",
        )[:_SAMPLE_FILES]
    )
    if len(finished) < _FEWEST_FILES:
        return None
    if len(finished) == _SAMPLE_FILES:
        since = finished[-1][1]
    held = IngestionJob.objects.filter(status__in=OPEN_STATUSES).exclude(lease_owner="")
    work = held.aggregate(
        since=Min("started_at"), chunks=Sum("stage_done", filter=Q(status=JobStatus.EMBEDDING))
    )
    spans = [(max(row[0], since), row[1]) for row in finished]
    if work["since"]:
        spans.append((max(work["since"], since), now))
    busy = _busy_seconds(spans)
    chunks = sum(row[2] or 0 for row in finished)
    if busy <= 0 or chunks <= 0:
        return None
    return Throughput(
        chunks_per_second=(chunks + (work["chunks"] or 0)) / busy,
        chunks_per_file=chunks / len(finished),
        chunks_per_byte=_chunks_per_byte([(row[4], row[2] or 0, row[3]) for row in finished]),
    )


def _busy_seconds(spans: Iterable[tuple[datetime, datetime]]) -> float:
    """How long at least one of the spans lasted."""
    total, until = 0.0, None
    for start, end in sorted(spans):
        begin = start if until is None else max(start, until)
        if end > begin:
            total += (end - begin).total_seconds()
            until = end
    return total


def _chunks_per_byte(files: Iterable[tuple[str, int, int]]) -> dict[str, float]:
    sums: dict[str, tuple[int, int]] = {}
    for media_type, chunks, size in files:
        known = sums.get(media_type, (0, 0))
        sums[media_type] = known[0] + chunks, known[1] + size
    return {name: chunks / size for name, (chunks, size) in sums.items() if size}
