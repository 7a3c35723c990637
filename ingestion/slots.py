"""The threads of one worker: the last one is kept for files that somebody waits for.

Without it an attached file, though first in the line, would wait until one of the long documents
that every thread may be on is done.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from uuid import UUID

from celery.exceptions import Reject

from assistant.database import release_connection
from ingestion import leases
from ingestion.leases import Claim
from ingestion.models import JobStatus

_LOOK_SECONDS = 1.0

_for_all: threading.Semaphore | None = None
_is_ending = False


def share_out(threads: int) -> None:
    """This process works with so many threads; with a single one there is none to keep."""
    global _for_all, _is_ending
    _for_all, _is_ending = threading.Semaphore(max(1, threads - 1)), False


def end() -> None:
    """Nothing new is begun; messages that come still go back to the broker."""
    global _is_ending
    _is_ending = True


@contextmanager
def claimed(job_id: UUID, *, waiting: JobStatus, working: JobStatus) -> Iterator[Claim | None]:
    """What a message for this job brings, as soon as a thread may take it; None: nothing waits.

    Raises Reject when the worker ends first.
    """
    slot = _for_all
    while slot is not None and not slot.acquire(timeout=_LOOK_SECONDS):
        _refuse_at_the_end()
        hurried = leases.claim_hurried(waiting=waiting, working=working)
        if hurried is not None:
            yield hurried
            return
        release_connection()
    try:
        _refuse_at_the_end()
        yield leases.claim_next(job_id, waiting=waiting, working=working)
    finally:
        if slot is not None:
            slot.release()


def _refuse_at_the_end() -> None:
    if _is_ending:
        raise Reject("the worker ends", requeue=True)
