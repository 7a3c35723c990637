"""Task messages that cannot be lost: committed with the job, sent after, relayed until sent.

A message says that a job waits for a stage. The worker that gets it takes the job whose turn it is
(``ingestion.line``): there is a message for each, and it does not matter which is whose.
"""

from __future__ import annotations

import logging
import time
from datetime import timedelta

from celery import current_app
from django.db import transaction
from django.db.models.functions import Now
from django.utils import timezone
from kombu.exceptions import OperationalError as BrokerError

from ingestion.models import IngestionJob, JobStatus, OutboxEntry

log = logging.getLogger(__name__)

PARSE_TASK = "ingestion.tasks.parse_version"
EMBED_TASK = "ingestion.tasks.embed_version"
# After the broker refused a message, the rest is left to the relay for this long: a batch of
# uploads must not wait for a silent broker once for each file.
_PAUSE_SECONDS = 5.0
_paused_until = 0.0


def task_for(job: IngestionJob) -> str:
    """The stage that an open job waits for."""
    return EMBED_TASK if job.status == JobStatus.EMBEDDING else PARSE_TASK


def add(job: IngestionJob, task: str, *, delay: timedelta = timedelta(0)) -> None:
    """Add a message for ``job`` to the open transaction and try to send it right after commit.

    Until ``delay`` has passed, by the database's clock, nobody takes the job.
    """
    entry = OutboxEntry.objects.create(job=job, task=task, not_before=Now() + delay)
    if not delay:
        # No partial: a robust callback that fails is logged by its name, which that has not.
        transaction.on_commit(lambda: _send_now(entry), robust=True)


def _send_now(entry: OutboxEntry) -> None:
    """The fast path; anything that goes wrong here is repaired by the next ``relay``."""
    if time.monotonic() > _paused_until and _send(entry):
        OutboxEntry.objects.filter(pk=entry.pk).update(sent_at=timezone.now())


def relay(*, limit: int = 1000) -> int:
    """Send messages that are due; returns how many. Two relays share the work by SKIP LOCKED.

    A message is marked after it was handed over: dying in between sends it twice, which the claim
    makes harmless.
    """
    with transaction.atomic():
        due = OutboxEntry.objects.filter(sent_at=None, not_before__lte=Now())
        sent: list[int] = []
        for entry in due.order_by("pk").select_for_update(skip_locked=True)[:limit]:
            if not _send(entry):
                break
            sent.append(entry.pk)
        OutboxEntry.objects.filter(pk__in=sent).update(sent_at=timezone.now())
    return len(sent)


def _send(entry: OutboxEntry) -> bool:
    global _paused_until
    try:
        current_app.send_task(entry.task, args=[str(entry.job_id)], retry=False)
    except (BrokerError, OSError) as error:
        log.warning("broker does not take messages, the relay will try again: %s", error)
        _paused_until = time.monotonic() + _PAUSE_SECONDS
        return False
    return True


def forget_sent(*, older_than: timedelta = timedelta(hours=1)) -> None:
    OutboxEntry.objects.filter(sent_at__lt=timezone.now() - older_than).delete()
