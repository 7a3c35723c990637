"""Task messages that cannot be lost: committed with the job, sent after, relayed until sent."""

from __future__ import annotations

import logging
from datetime import timedelta
from functools import partial

from celery import current_app
from django.db import transaction
from django.utils import timezone
from kombu.exceptions import OperationalError as BrokerError

from ingestion.models import IngestionJob, OutboxEntry

log = logging.getLogger(__name__)


def add(job: IngestionJob, task: str, *, delay: timedelta = timedelta(0)) -> None:
    """Add a message for ``job`` to the open transaction and try to send it right after commit."""
    entry = OutboxEntry.objects.create(job=job, task=task, not_before=timezone.now() + delay)
    if not delay:
        transaction.on_commit(partial(_send_now, entry.pk), robust=True)


def _send_now(entry_id: int) -> None:
    """The fast path; anything that goes wrong here is repaired by ``relay``."""
    relay(only=entry_id)


def relay(*, limit: int = 1000, only: int | None = None) -> int:
    """Send messages that are due; returns how many. Two relays share the work by SKIP LOCKED.

    A message is marked in the transaction that holds its lock, after it was handed over: dying in
    between sends it twice, which the claim makes harmless.
    """
    with transaction.atomic():
        due = OutboxEntry.objects.filter(sent_at=None, not_before__lte=timezone.now())
        if only is not None:
            due = due.filter(pk=only)
        entries = list(due.order_by("pk").select_for_update(skip_locked=True)[:limit])
        sent: list[int] = []
        for entry in entries:
            try:
                current_app.send_task(entry.task, args=[str(entry.job_id)], retry=False)
            except (BrokerError, OSError) as error:
                log.warning("broker does not take messages, the relay will try again: %s", error)
                break
            sent.append(entry.pk)
        OutboxEntry.objects.filter(pk__in=sent).update(sent_at=timezone.now())
    return len(sent)


def forget_sent(*, older_than: timedelta = timedelta(hours=1)) -> None:
    OutboxEntry.objects.filter(sent_at__lt=timezone.now() - older_than).delete()
