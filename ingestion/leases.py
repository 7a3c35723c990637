"""Claims on jobs: one worker at a time, by compare-and-set, with a fence against late writers.

All times are the database's own, so workers with wrong clocks cannot steal or keep a lease.
"""

from __future__ import annotations

import logging
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final
from uuid import UUID

from django.conf import settings
from django.db import DatabaseError, connection, transaction
from django.db.models.functions import Now

from assistant.database import release_connection
from ingestion import outbox
from ingestion.models import IngestionJob, JobStatus, Lane

log = logging.getLogger(__name__)

# A thread that did not ask for this long whether its claim still holds is stuck, and its claim
# lapses. Between two such questions lie at most chunking and storing one document.
_STUCK_SECONDS = 900.0
# Between a claim and the first beat of its heart.
_JUST_CLAIMED = timedelta(seconds=5)


class LeaseLost(Exception):
    """The job was cancelled, deleted, finished or taken over: stop, and write nothing."""


@dataclass(frozen=True, slots=True)
class Claim:
    """The right to work on one job until it is released, as long as the heart beats."""

    job_id: UUID
    version_id: UUID
    fence: int
    attempt: int
    lane: int
    error_code: str
    """Why an earlier attempt failed; empty: it did not."""

    def held(self) -> IngestionJob:
        """The job's row, locked in the caller's transaction. Raises LeaseLost."""
        jobs = held([self])
        if not jobs:
            raise LeaseLost
        return jobs[0]

    def report(self, done: int, total: int) -> None:
        """Progress that people see. Raises LeaseLost."""
        self._update(stage_done=done, stage_total=total)

    def extend(self) -> None:
        """Raises LeaseLost."""
        self._update()

    def give_back(self) -> None:
        """Leave the job to the next worker, as if it had not been claimed. Raises LeaseLost."""
        with transaction.atomic():
            job = self.held()
            job.attempts -= 1
            free(job)

    def _update(self, **values: int) -> None:
        updated = (
            IngestionJob.objects.filter(pk=self.job_id, fence=self.fence)
            .exclude(lease_owner="")
            .update(lease_until=Now() + timedelta(seconds=settings.JOB_LEASE_SECONDS), **values)
        )
        if not updated:
            raise LeaseLost


def held(claims: Sequence[Claim]) -> list[IngestionJob]:
    """The jobs that are still claimed, with version and document, locked until the commit.

    The document is locked before its job: whoever deletes or replaces it does so too, and the other
    order would be a deadlock. Two workers lock several in the same order.
    """
    fences = {claimed.job_id: claimed.fence for claimed in claims}
    jobs = (
        IngestionJob.objects.select_for_update(of=("version__document", "self"))
        .select_related("version__document")
        .filter(pk__in=fences)
        .exclude(lease_owner="")
        .order_by("version__document")
    )
    return [job for job in jobs if job.fence == fences[job.pk]]


def claim(job_id: UUID, *, waiting: JobStatus, working: JobStatus) -> Claim | None:
    """Take this job, which waits in ``waiting`` (or whose worker died in ``working``).

    None when there is nothing to do: someone else holds it, it moved on, or it is gone.
    """
    due = """
        SELECT * FROM ingestion_ingestionjob
        WHERE id = %(job)s AND status IN (%(waiting)s, %(working)s)
        AND (lease_owner = '' OR lease_until < statement_timestamp())
        FOR UPDATE SKIP LOCKED
    """
    return _first(_take(due, working, job=job_id, waiting=str(waiting)))


def claim_next(job_id: UUID, *, waiting: JobStatus, working: JobStatus) -> Claim | None:
    """What a message for this job brings: the job whose turn it is among those tried never before.

    Or the job itself when it failed before and the pause before its next attempt is over: no other
    message stands for it.
    """
    due = f"""
        WITH again AS MATERIALIZED (
            SELECT * FROM ingestion_ingestionjob
            WHERE id = %(job)s AND status = %(waiting)s AND lease_owner = ''
            AND (attempts > 0 OR error_code <> '')
            AND NOT EXISTS (
                SELECT FROM ingestion_outboxentry WHERE job_id = %(job)s
                AND sent_at IS NULL AND not_before > statement_timestamp()
            )
            FOR UPDATE SKIP LOCKED
        ), fresh AS MATERIALIZED ({_FRESH})
        SELECT * FROM again
        UNION ALL
        SELECT * FROM fresh WHERE NOT EXISTS (SELECT FROM again)
    """
    lanes = [int(lane) for lane in Lane]
    return _first(_take(due, working, job=job_id, waiting=str(waiting), code="", lanes=lanes))


def claim_hurried(*, waiting: JobStatus, working: JobStatus) -> Claim | None:
    """Take the next of the files that somebody waits for, without a message."""
    lanes = [int(Lane.ATTACHED)]
    return _first(_take(_FRESH, working, waiting=str(waiting), code="", lanes=lanes))


def claim_more(first: Claim, status: JobStatus, *, limit: int, work: int) -> list[Claim]:
    """Take up to ``limit`` further jobs of the lane of ``first``, waiting in a stage they are in.

    In their turn, as long as those before them have less than ``work`` to do in the stage. Only
    such as are tried for the first time: one that failed or lost its worker before must not take
    others with it. Those that an outage sent back are taken with such as it sent back too.
    """
    if not limit:
        return []
    return _take(
        _FRESH,
        status,
        waiting=str(status),
        code=first.error_code,
        lanes=[first.lane],
        limit=limit,
        work=work,
    )


_FRESH: Final = """
    SELECT * FROM ingestion_ingestionjob
    WHERE status = %(waiting)s AND error_code = %(code)s AND lease_owner = '' AND attempts = 0
    AND lane = ANY(%(lanes)s)
    ORDER BY round, lane, created_at, id LIMIT %(limit)s FOR UPDATE SKIP LOCKED
"""


def _first(claims: Sequence[Claim]) -> Claim | None:
    return claims[0] if claims else None


def _take(due: str, working: JobStatus, **parameters: Any) -> list[Claim]:
    """One statement, because every document costs several of these."""
    parameters = {
        "limit": 1,
        "work": 1,
        "working": str(working),
        "owner": f"{_node}:{os.getpid()}:{threading.get_native_id()}",
        "lease": timedelta(seconds=settings.JOB_LEASE_SECONDS),
        **parameters,
    }
    with connection.cursor() as cursor:
        cursor.execute(
            f"""
            WITH due AS MATERIALIZED ({due}), chosen AS (
                SELECT id, sum(stage_total) OVER (ORDER BY round, lane, created_at, id)
                    - stage_total AS before FROM due
            )
            UPDATE ingestion_ingestionjob job SET
                status = %(working)s,
                lease_owner = %(owner)s,
                lease_until = statement_timestamp() + %(lease)s,
                fence = fence + 1,
                attempts = attempts + 1,
                started_at = coalesce(started_at, statement_timestamp())
            FROM chosen WHERE job.id = chosen.id AND chosen.before < %(work)s
            RETURNING job.id, version_id, fence, attempts, lane, error_code
            """,
            parameters,
        )
        return [Claim(*row) for row in cursor.fetchall()]


def free(job: IngestionJob) -> None:
    """Let a locked job wait for a worker again, and send for one; saves it."""
    if job.status == JobStatus.PARSING:
        job.status = JobStatus.QUEUED
    job.lease_owner, job.lease_until = "", None
    job.save()
    outbox.add(job, outbox.task_for(job))


class _Heart:
    """Keeps the leases of one thread's claims alive until it stops or is stopped."""

    def __init__(self, claims: Sequence[Claim]) -> None:
        self.claims = claims
        self.lost: set[UUID] = set()
        self._asked_at = time.monotonic()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="lease-heartbeat", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        self._thread.join(timeout=5)

    def is_lost(self, claimed: Claim) -> bool:
        self._asked_at = time.monotonic()
        return claimed.job_id in self.lost

    def beat(self) -> None:
        """Raises DatabaseError."""
        for claimed in self.claims:
            if claimed.job_id not in self.lost:
                try:
                    claimed.extend()
                except LeaseLost:
                    self.lost.add(claimed.job_id)

    def give_back(self) -> None:
        """Raises DatabaseError."""
        for claimed in self.claims:
            if claimed.job_id not in self.lost:
                with suppress(LeaseLost):
                    claimed.give_back()
                self.lost.add(claimed.job_id)

    def _run(self) -> None:
        global _extended_at
        while not self._stop.wait(settings.JOB_LEASE_SECONDS / 4):
            if time.monotonic() - self._asked_at > _STUCK_SECONDS:
                log.error("a thread is stuck; its %d leases lapse", len(self.claims))
                self.lost.update(claimed.job_id for claimed in self.claims)
                return
            try:
                self.beat()
                _extended_at = time.monotonic()
            except DatabaseError as error:
                log.warning("heartbeat failed: %s", error)
            finally:
                release_connection()


_node = socket.gethostname()
_extended_at = 0.0
_hearts: set[_Heart] = set()
_lock = threading.Lock()


@contextmanager
def heartbeat(claims: Sequence[Claim]) -> Iterator[Callable[[Claim], bool]]:
    """Extend the leases in the background; yields a function that tells whether one was lost.

    Ask it often: a thread that does not ask for a quarter of an hour counts as stuck.
    """
    heart = _Heart(claims)
    with _lock:
        _hearts.add(heart)
    heart.start()
    try:
        yield heart.is_lost
    finally:
        heart.stop()
        with _lock:
            _hearts.discard(heart)


def extended_at() -> float:
    """When a lease of this process was last extended, by the monotonic clock; 0: never."""
    return _extended_at


def work_as(node: str) -> None:
    """Name this process in its leases. The name is that of one process at a time."""
    global _node
    _node = node


def expire_strays() -> int:
    """End leases in this process's name that none of its threads holds; returns how many."""
    with _lock:
        held = [claimed.job_id for heart in _hearts for claimed in heart.claims]
    lease = timedelta(seconds=settings.JOB_LEASE_SECONDS)
    strays = (
        IngestionJob.objects.exclude(lease_owner="")
        .filter(lease_owner__startswith=f"{_node}:")
        .filter(lease_until__gte=Now(), lease_until__lt=Now() + lease - _JUST_CLAIMED)
        .exclude(pk__in=held)
    )
    return strays.update(lease_until=Now() - timedelta(seconds=1))


def give_all_back() -> None:
    """Before an orderly end: what is not finished waits for the next worker at once."""
    with _lock:
        hearts = list(_hearts)
    for heart in hearts:
        try:
            heart.give_back()
        except DatabaseError as error:
            log.warning("leases could not be given back, they will lapse: %s", error)
        finally:
            release_connection()
