"""Accepting, retrying, cancelling and removing: what people do to the pipeline."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from io import SEEK_END
from typing import IO, BinaryIO, cast
from uuid import UUID

from django.conf import settings
from django.db import transaction
from django.utils import timezone

from assistant.audit.models import record
from assistant.documents import actions as documents
from assistant.documents import storage
from assistant.documents.actions import Upload
from assistant.documents.models import Document, DocumentVersion
from assistant.users.models import User
from ingestion import admission, line, outbox
from ingestion.errors import IngestionError
from ingestion.models import OPEN_STATUSES, IngestionJob, JobStatus
from ingestion.parsing_limits import Limits


def limits() -> Limits:
    """What one document may cost on this site."""
    return Limits(
        max_bytes=settings.MAX_UPLOAD_MB << 20,
        max_pages=settings.MAX_PAGES,
        max_characters=settings.MAX_TEXT_CHARACTERS,
        wall_seconds=settings.PARSE_TIMEOUT_SECONDS,
        cpu_seconds=settings.PARSE_TIMEOUT_SECONDS,
        memory=settings.PARSE_MEMORY_MB << 20,
        ocr_languages=settings.OCR_LANGUAGES,
        max_ocr_pages=settings.OCR_MAX_PAGES,
        ocr_seconds=settings.OCR_TIMEOUT_SECONDS,
    )


def accept_upload(
    collection_id: UUID, upload: Upload, *, actor: User, batch: UUID | None = None
) -> DocumentVersion:
    """Take one file: look at it, then bytes, rows and outbox entry in one commit.

    The caller checked CONTRIBUTOR on the collection. The same bytes again return the version that
    is there; when that one had failed, it is tried again. Files of one ``batch`` are counted
    together.

    Raises IngestionError when the file cannot be taken, and OSError when the storage is full.
    """
    upload = _inspected(upload)
    with transaction.atomic():
        version, is_new = documents.store_version(collection_id, upload, actor=actor)
        _want(version, is_new=is_new, batch=batch)
    return version


def restore_version(version: DocumentVersion, *, actor: User) -> DocumentVersion:
    """Make the bytes of an older version the document's newest version, through the pipeline.

    Until it is ready the present one answers; unchanged chunks keep their vectors. The same bytes
    as the newest version: that version. Raises FileNotFoundError when the original is lost, OSError
    when the storage is full.
    """
    document = version.document
    with storage.open_original(version.storage_key) as content, transaction.atomic():
        upload = Upload(
            content=content,
            filename=version.filename,
            media_type=version.media_type,
            document_id=document.pk,
        )
        restored, is_new = documents.store_version(
            document.collection_id, upload, actor=actor, restored_from=version.number
        )
        _want(restored, is_new=is_new, batch=None)
    return restored


def accept_part(parent: DocumentVersion, path: str, content: IO[bytes]) -> DocumentVersion:
    """Take an attachment or archive member as a part of ``parent``'s document.

    What admission refuses becomes a failed document, so that the reason can be seen. The caller
    holds the parent's job in the open transaction. Raises Document.DoesNotExist when the parent was
    deleted, OSError when the storage is full.
    """
    owner = Document.objects.select_for_update().get(pk=parent.document_id)
    upload = Upload(
        content=content,
        filename=path.rpartition("/")[2],
        media_type="application/octet-stream",
        path=path,
        parent_id=owner.pk,
        metadata=owner.metadata,
    )
    refusal = None
    try:
        upload = _inspected(upload)
    except IngestionError as error:
        refusal = error
    version, is_new = documents.store_version(owner.collection_id, upload, actor=parent.created_by)
    _want(version, is_new=is_new, batch=parent.job.batch, refusal=refusal)
    return version


def _inspected(upload: Upload) -> Upload:
    """With the media type that admission found; raises IngestionError."""
    size = upload.content.seek(0, SEEK_END)
    upload.content.seek(0)
    media_type = admission.inspect(
        cast("BinaryIO", upload.content), filename=upload.filename, size=size, limits=limits()
    )
    return replace(upload, media_type=media_type)


def _want(
    version: DocumentVersion,
    *,
    is_new: bool,
    batch: UUID | None,
    refusal: IngestionError | None = None,
) -> None:
    """See to it that ``version`` becomes searchable, or is seen to have failed."""
    if not is_new:
        job = IngestionJob.objects.get(version=version)
        if batch is not None:
            IngestionJob.objects.filter(pk=job.pk).update(batch=batch)
        if refusal is None and job.status in (JobStatus.FAILED, JobStatus.CANCELLED):
            _requeue([job.pk])
        return
    if version.number > 1:
        _supersede_open_jobs(version)
    job = IngestionJob(version=version, batch=batch)
    line.enter(job, version)
    if refusal is not None:
        job.status, job.finished_at = JobStatus.FAILED, timezone.now()
        job.error_code, job.error_detail = refusal.code, refusal.detail
    job.save(force_insert=True)
    if refusal is None:
        outbox.add(job, outbox.PARSE_TASK)


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
        IngestionJob.objects.select_for_update(of=("self",))
        .select_related("version__document__collection")
        .filter(pk__in=job_ids, status__in=[JobStatus.FAILED, JobStatus.CANCELLED])
        .order_by(*line.ORDER)
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
        line.enter(job, job.version)
        job.save()
        outbox.add(job, outbox.PARSE_TASK)
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
