"""What the broker lost and what died with its worker is found here and sent again.

Repeating a message is harmless: whoever comes second finds the job claimed.
"""

from __future__ import annotations

import logging
import shutil
import tempfile
import time
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

from celery import current_app
from django.conf import settings
from django.db import transaction
from django.db.models import Exists, OuterRef, Q
from django.db.models.functions import Now
from kombu.exceptions import ChannelError
from kombu.exceptions import OperationalError as BrokerError

from ingestion import leases, line, outbox
from ingestion.models import OPEN_STATUSES, IngestionJob, JobStatus, OutboxEntry
from ingestion.sandbox import WORKPLACE

log = logging.getLogger(__name__)

_AT_ONCE = 1000
# A message is on its way for this long before anybody asks where it is.
_ON_ITS_WAY = timedelta(seconds=10)


def sweep() -> int:
    """Send a message again for open jobs that nobody holds and nobody was told about.

    Returns how many. Two sweeps at once share the work.
    """
    return _free_lapsed() + sum(
        _send_lost(status, task)
        for status, task in (
            (JobStatus.QUEUED, outbox.PARSE_TASK),
            (JobStatus.EMBEDDING, outbox.EMBED_TASK),
        )
    )


def take_back_strays() -> int:
    """End leases in this worker's name that none of its threads holds, and send for their jobs.

    They are of a process that died under this name, or could not be given back while the database
    was away. Returns how many.
    """
    strays = leases.expire_strays()
    if strays:
        log.warning("%d jobs of a worker that died are taken up again", strays)
        _free_lapsed()
    return strays


def _free_lapsed() -> int:
    """Jobs whose lease ran out become waiting ones, so that they are sent for once, not again
    and again while their message waits behind others."""
    with transaction.atomic():
        jobs = list(
            IngestionJob.objects.select_for_update(skip_locked=True, of=("self",))
            .filter(status__in=OPEN_STATUSES, lease_until__lt=Now())
            .exclude(lease_owner="")[:_AT_ONCE]
        )
        for job in jobs:
            leases.free(job)
    return len(jobs)


def _send_lost(status: JobStatus, task: str) -> int:
    """Jobs that wait although their message was sent, and it is not in the queue any more.

    An empty queue proves that; behind a long one only the age of the message does.
    """
    sent = OutboxEntry.objects.filter(job=OuterRef("pk"), task=task)
    moment = Now() - _ON_ITS_WAY
    patience = Now() - timedelta(seconds=settings.CELERY_VISIBILITY_TIMEOUT)
    recent = sent.filter(Q(sent_at=None) | Q(sent_at__gt=moment if _is_empty(task) else patience))
    with transaction.atomic():
        jobs = list(
            IngestionJob.objects.select_for_update(skip_locked=True, of=("self",))
            .filter(~Exists(recent), status=status, lease_owner="")
            .order_by(*line.ORDER)[:_AT_ONCE]
        )
        for job in jobs:
            outbox.add(job, task)
    return len(jobs)


def _is_empty(task: str) -> bool:
    """Whether the broker holds no message for ``task``; False when it cannot be asked."""
    queue = settings.CELERY_TASK_ROUTES[task]["queue"]
    try:
        with current_app.connection_for_read() as connection:
            channel: Any = connection.default_channel
            return bool(channel.queue_declare(queue=queue, passive=True).message_count == 0)
    except ChannelError:  # Redis knows no empty queues: it is not there
        return True
    except (BrokerError, OSError):
        return False


def remove_workplaces() -> int:
    """Remove folders with copies of documents that killed workers left; returns how many.

    An hour is longer than any document may take, so those of living workers stay.
    """
    removed = 0
    oldest = time.time() - max(3600, 2 * settings.PARSE_TIMEOUT_SECONDS)
    for base in {Path(tempfile.gettempdir()), Path(settings.TEMP_DIR)}:
        for folder in base.glob(f"{WORKPLACE}*"):
            with suppress(OSError):
                if folder.lstat().st_mtime < oldest and not folder.is_symlink():
                    shutil.rmtree(folder)
                    removed += 1
    return removed
