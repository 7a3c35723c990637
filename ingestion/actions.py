"""Accepting, retrying, cancelling and removing: what people do to the pipeline."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from io import SEEK_END
from typing import BinaryIO, cast
from uuid import UUID

from django.conf import settings
from django.db import transaction
from django.utils import timezone

from assistant.audit.models import record
from assistant.documents import actions as documents
from assistant.documents.actions import Upload
from assistant.documents.models import DocumentVersion
from assistant.users.models import User
from ingestion import admission, outbox
from ingestion.models import OPEN_STATUSES, IngestionJob, JobStatus
from ingestion.parsing_limits import Limits

PARSE_TASK = "ingestion.tasks.parse_version"
EMBED_TASK = "ingestion.tasks.embed_version"


def limits() -> Limits:
    """What one document may cost on this site."""
    return Limits(
        max_bytes=settings.MAX_UPLOAD_MB << 20,
        max_pages=settings.MAX_PAGES,
        max_characters=settings.MAX_TEXT_CHARACTERS,
        wall_seconds=settings.PARSE_TIMEOUT_SECONDS,
        cpu_seconds=settings.PARSE_TIMEOUT_SECONDS,
        memory=settings.PARSE_MEMORY_MB << 20,
    )


def accept_upload(collection_id: UUID, upload: Upload, *, actor: User) -> DocumentVersion:
    """Take one file: look at it, then bytes, rows and outbox entry in one commit.

    The caller checked CONTRIBUTOR on the collection. The same bytes again return the version that
    is there; when that one had failed, it is tried again.

    Raises IngestionError when the file cannot be taken, and OSError when the storage is full.
    """
    size = upload.content.seek(0, SEEK_END)
    upload.content.seek(0)
    media_type = admission.inspect(
        cast("BinaryIO", upload.content), filename=upload.filename, size=size, limits=limits()
    )
    upload = replace(upload, media_type=media_type)
    with transaction.atomic():
        version, is_new = documents.store_version(collection_id, upload, actor=actor)
        if is_new:
            _supersede_open_jobs(version)
            job = IngestionJob.objects.create(version=version)
            outbox.add(job, PARSE_TASK)
        elif version.job.status in (JobStatus.FAILED, JobStatus.CANCELLED):
            _requeue([version.job.pk])
    return version


def _supersede_open_jobs(version: DocumentVersion) -> None:
    """A newer upload of the same document makes unfinished older ones pointless."""
    IngestionJob.objects.filter(
        version__document_id=version.document_id, status__in=OPEN_STATUSES
    ).exclude(version=version).update(
        status=JobStatus.CANCELLED,
        error_code="superseded",
        error_detail="A newer version of this document was uploaded.",
        finished_at=timezone.now(),
        lease_owner="",
        lease_until=None,
    )


def retry_jobs(jobs: Iterable[IngestionJob], *, actor: User) -> int:
    """Put failed and cancelled jobs back in the queue with fresh attempts; returns how many.

    The caller scoped ``jobs`` to collections on which ``actor`` is CONTRIBUTOR.
    """
    ids = [job.pk for job in jobs]
    with transaction.atomic():
        count = _requeue(ids)
        if count:
            record(actor, "ingestion.retry", jobs=ids)
    return count


def _requeue(job_ids: list[UUID]) -> int:
    rows = list(
        IngestionJob.objects.select_for_update().filter(
            pk__in=job_ids, status__in=[JobStatus.FAILED, JobStatus.CANCELLED]
        )
    )
    for job in rows:
        job.status = JobStatus.QUEUED
        job.attempts = 0
        job.fence += 1
        job.lease_owner, job.lease_until = "", None
        job.stage_done = job.stage_total = 0
        job.error_code = job.error_detail = ""
        job.created_at = timezone.now()
        job.started_at = job.finished_at = None
        job.save()
        outbox.add(job, PARSE_TASK)
    return len(rows)


def cancel_jobs(jobs: Iterable[IngestionJob], *, actor: User) -> int:
    """Stop unfinished jobs; a worker that is on one notices at its next heartbeat."""
    ids = [job.pk for job in jobs]
    with transaction.atomic():
        count = IngestionJob.objects.filter(pk__in=ids, status__in=OPEN_STATUSES).update(
            status=JobStatus.CANCELLED,
            error_code="cancelled",
            error_detail="Cancelled. Retry to process it.",
            finished_at=timezone.now(),
            lease_owner="",
            lease_until=None,
        )
        if count:
            record(actor, "ingestion.cancel", jobs=ids)
    return count
