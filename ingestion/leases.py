"""Claims on jobs: one worker at a time, by compare-and-set, with a fence against late writers.

All times are the database's own, so workers with wrong clocks cannot steal or keep a lease.
"""

from __future__ import annotations

import logging
import os
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from uuid import UUID

from django.conf import settings
from django.db import DatabaseError, transaction
from django.db.models import F, Q
from django.db.models.functions import Coalesce, Now

from assistant.database import release_connection
from ingestion.models import IngestionJob, JobStatus

log = logging.getLogger(__name__)


class LeaseLost(Exception):
    """The job was cancelled, deleted, finished or taken over: stop, and write nothing."""


def owner() -> str:
    return f"{socket.gethostname()}:{os.getpid()}:{threading.get_native_id()}"


@dataclass(frozen=True, slots=True)
class Claim:
    """The right to work on one job until it is released, as long as the heart beats."""

    job_id: UUID
    version_id: UUID
    fence: int
    attempt: int

    def held(self) -> IngestionJob:
        """The job's row, locked in the caller's transaction. Raises LeaseLost."""
        job = (
            IngestionJob.objects.select_for_update()
            .filter(pk=self.job_id, fence=self.fence)
            .exclude(lease_owner="")
            .first()
        )
        if job is None:
            raise LeaseLost
        return job

    def report(self, done: int, total: int) -> None:
        """Progress that people see. Raises LeaseLost."""
        self._update(stage_done=done, stage_total=total)

    def extend(self) -> None:
        """Raises LeaseLost."""
        self._update()

    def _update(self, **values: int) -> None:
        updated = (
            IngestionJob.objects.filter(pk=self.job_id, fence=self.fence)
            .exclude(lease_owner="")
            .update(lease_until=Now() + timedelta(seconds=settings.JOB_LEASE_SECONDS), **values)
        )
        if not updated:
            raise LeaseLost


def claim(job_id: UUID, *, waiting: JobStatus, working: JobStatus) -> Claim | None:
    """Take a job that waits in ``waiting`` (or whose worker died in ``working``).

    None when there is nothing to do: someone else holds it, it moved on, or it is gone.
    """
    taken = _take(Q(pk=job_id, status__in=[waiting, working]), working=working, limit=1)
    return taken[0] if taken else None


def claim_more(status: JobStatus, *, limit: int) -> list[Claim]:
    """Take up to ``limit`` further jobs that wait in a stage they are already in, oldest first."""
    return _take(Q(status=status), working=status, limit=limit)


def _take(which: Q, *, working: JobStatus, limit: int) -> list[Claim]:
    with transaction.atomic():
        jobs = list(
            IngestionJob.objects.select_for_update(skip_locked=True)
            .filter(which)
            .filter(Q(lease_owner="") | Q(lease_until__lt=Now()))
            .order_by("created_at")[:limit]
        )
        IngestionJob.objects.filter(pk__in=[job.pk for job in jobs]).update(
            status=working,
            lease_owner=owner(),
            lease_until=Now() + timedelta(seconds=settings.JOB_LEASE_SECONDS),
            fence=F("fence") + 1,
            attempts=F("attempts") + 1,
            started_at=Coalesce(F("started_at"), Now()),
        )
    return [
        Claim(job.pk, job.version_id, fence=job.fence + 1, attempt=job.attempts + 1) for job in jobs
    ]


@contextmanager
def heartbeat(claims: Sequence[Claim]) -> Iterator[Callable[[Claim], bool]]:
    """Extend the leases in the background; yields a function that tells whether one was lost."""
    stop = threading.Event()
    lost: set[UUID] = set()

    def beat() -> None:
        while not stop.wait(settings.JOB_LEASE_SECONDS / 4):
            try:
                for claimed in claims:
                    _extend(claimed, lost)
            except DatabaseError as error:
                log.warning("heartbeat failed: %s", error)
            finally:
                release_connection()

    thread = threading.Thread(target=beat, name="lease-heartbeat", daemon=True)
    thread.start()
    try:
        yield lambda claimed: claimed.job_id in lost
    finally:
        stop.set()
        thread.join(timeout=5)


def _extend(claimed: Claim, lost: set[UUID]) -> None:
    if claimed.job_id not in lost:
        try:
            claimed.extend()
        except LeaseLost:
            lost.add(claimed.job_id)
