"""What follows when work on a document fails: wait, try again, or fail with words."""

from __future__ import annotations

import errno
import logging
from collections.abc import Iterable
from datetime import timedelta

from django.conf import settings
from django.db import InterfaceError, OperationalError, transaction
from django.utils import timezone

from assistant import engines
from inference.types import EngineError
from ingestion import outbox
from ingestion.errors import FailureCode, IngestionError
from ingestion.leases import Claim, LeaseLost
from ingestion.models import JobStatus

log = logging.getLogger(__name__)

# The death of a worker or a parser process says little about the document it had in hand: such
# attempts may be this many times as many as those that failed by themselves.
_INNOCENT = 3
_OUTAGE_PAUSE = timedelta(seconds=15)
_LONGEST_PAUSE = timedelta(seconds=60)
_DISK = {errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS, errno.EMFILE, errno.ENFILE}


def is_exhausted(claimed: Claim) -> bool:
    """Put a document aside that took worker after worker down, instead of trying it for ever."""
    if claimed.attempt <= _INNOCENT * settings.JOB_MAX_ATTEMPTS:
        return False
    end_badly([claimed], IngestionError(FailureCode.PARSE_CRASHED, cause="its workers died"))
    return True


def end_badly(claims: Iterable[Claim], error: Exception) -> None:
    """End the claims that ``error`` ended: what can heal waits for its next try.

    While a part that every document needs is away, jobs wait without losing an attempt. Raises
    DatabaseError when that part is the database: the leases are taken back later.
    """
    words = _in_words(error)
    is_outage = _is_outage(error)
    log.info("work ended badly: %s (%s)", words.code, words.cause)
    for claimed in claims:
        try:
            _end(claimed, words, is_outage=is_outage)
        except LeaseLost:
            continue


def _end(claimed: Claim, error: IngestionError, *, is_outage: bool) -> None:
    with transaction.atomic():
        job = claimed.held()
        job.lease_owner, job.lease_until = "", None
        if is_outage or (error.retryable and claimed.attempt < patience(error.code)):
            pause = _pause(claimed.attempt)
            if is_outage:
                job.attempts -= 1
                pause = _OUTAGE_PAUSE
            outbox.add(job, outbox.task_for(job), delay=pause)
            if job.status == JobStatus.PARSING:
                job.status = JobStatus.QUEUED
        else:
            if error.code == FailureCode.SANDBOX_LOST:
                error = IngestionError(FailureCode.PARSE_CRASHED, cause=error.cause)
            job.status = JobStatus.FAILED
            job.finished_at = timezone.now()
        job.error_code, job.error_detail = error.code, error.detail[:2000]
        job.save()


def patience(code: str) -> int:
    """After how many attempts a failure that could heal is one."""
    limit: int = settings.JOB_MAX_ATTEMPTS
    return limit * _INNOCENT if code == FailureCode.SANDBOX_LOST else limit


def _pause(attempt: int) -> timedelta:
    return min(_LONGEST_PAUSE, timedelta(seconds=5 * 4 ** min(attempt - 1, 5)))


def _is_outage(error: Exception) -> bool:
    """Whether a part is away that no document can do without."""
    if isinstance(error, OperationalError | InterfaceError):
        return True
    if isinstance(error, OSError):
        return error.errno in _DISK
    if isinstance(error, EngineError) and error.retryable:
        return not engines.embedder().check().ok
    return False


def _in_words(error: Exception) -> IngestionError:
    if isinstance(error, IngestionError):
        return error
    if isinstance(error, EngineError):
        log.warning("embedding failed: %s", error)
        code = (
            FailureCode.EMBEDDER_UNAVAILABLE
            if error.retryable
            else FailureCode.EMBEDDER_MISCONFIGURED
        )
        return IngestionError(code, cause=error.detail)
    if isinstance(error, OSError) and error.errno in _DISK:
        log.error("storage failed: %s", error)
        return IngestionError(FailureCode.STORAGE, cause=repr(error))
    log.error("ingestion failed", exc_info=error)
    return IngestionError(FailureCode.INTERNAL, cause=repr(error))
