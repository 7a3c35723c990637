"""An upload becomes searchable here: parse, chunk, index, embed, publish.

The stages run in different workers. Each claims the job, works without a transaction, and writes
its result in one transaction that holds the job's fence, so a late or repeated run writes nothing.
"""

from __future__ import annotations

import logging
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import asdict
from datetime import timedelta
from functools import cache
from pathlib import Path
from uuid import UUID

from django.conf import settings
from django.db import transaction
from django.db.models import Exists, OuterRef, Q
from django.db.models.functions import Now
from django.utils import timezone

from assistant import engines
from assistant.documents import actions as documents
from assistant.documents import storage
from assistant.documents.models import DocumentVersion
from assistant.retrieval import index
from inference.types import EngineError
from ingestion import embedding, leases, outbox
from ingestion.actions import EMBED_TASK, PARSE_TASK, limits
from ingestion.chunking import chunk_document
from ingestion.elements import ChunkDraft, ElementKind, ParsedDocument
from ingestion.errors import FailureCode, IngestionError
from ingestion.leases import Claim, LeaseLost
from ingestion.models import OPEN_STATUSES, IngestionJob, JobStatus, OutboxEntry
from ingestion.sandbox import Sandbox

log = logging.getLogger(__name__)

# Jobs that one worker embeds together.
JOBS_TOGETHER = 32


@cache
def sandbox() -> Sandbox:
    """One for the process: its parser processes stay warm between documents."""
    return Sandbox()


def parse_and_chunk(job_id: UUID) -> None:
    """First half: from the original to text and chunks of a version nobody sees yet."""
    claimed = leases.claim(job_id, waiting=JobStatus.QUEUED, working=JobStatus.PARSING)
    if claimed is None or _out_of_attempts(claimed):
        return
    version = DocumentVersion.objects.select_related("document").get(pk=claimed.version_id)
    with leases.heartbeat([claimed]) as is_lost:
        try:
            parsed = _parse(version, claimed, should_cancel=lambda: is_lost(claimed))
            title = _title(parsed, version)
            _store(version, claimed, parsed, _chunk(parsed, title), title)
        except LeaseLost:
            return
        except Exception as error:  # noqa: BLE001  whatever it is, the file must not look stuck
            _end_badly(claimed, error, stage=PARSE_TASK)


def embed_and_publish(job_id: UUID) -> None:
    """Second half: the missing vectors, then one UPDATE makes the version the current one.

    Takes along other jobs that wait for the same, so that batches fill across documents. Their
    own messages then find nothing left to do.
    """
    first = leases.claim(job_id, waiting=JobStatus.EMBEDDING, working=JobStatus.EMBEDDING)
    if first is None:
        return
    claims = [first, *leases.claim_more(JobStatus.EMBEDDING, limit=JOBS_TOGETHER - 1)]
    claims = [claimed for claimed in claims if not _out_of_attempts(claimed)]
    with leases.heartbeat(claims) as is_lost:
        _embed(claims, is_lost)


def _embed(claims: list[Claim], is_lost: Callable[[Claim], bool]) -> None:
    try:
        embedding.embed_missing(claims, is_lost=is_lost, when_complete=_publish)
    except Exception as error:  # noqa: BLE001  whatever it is, no file must look stuck
        if len(claims) > 1 and isinstance(error, EngineError) and not error.retryable:
            for claimed in claims:  # one of them is at fault: the others shall not pay
                _embed([claimed], is_lost)
            return
        for claimed in claims:
            _end_badly(claimed, error, stage=EMBED_TASK)


def _parse(
    version: DocumentVersion, claimed: Claim, *, should_cancel: Callable[[], bool]
) -> ParsedDocument:
    """The bytes go to the sandbox through a private copy: it never sees the storage."""
    with tempfile.TemporaryDirectory(prefix="parse-", dir=settings.FILE_UPLOAD_TEMP_DIR) as folder:
        path = Path(folder) / "original"
        with storage.open_original(version.storage_key) as source, path.open("wb") as target:
            shutil.copyfileobj(source, target, 1 << 20)
        return sandbox().parse(
            path,
            media_type=version.media_type,
            filename=version.filename,
            limits=limits(),
            on_progress=claimed.report,
            should_cancel=should_cancel,
        )


def _title(parsed: ParsedDocument, version: DocumentVersion) -> str:
    """What the uploader called it, else its own title or first heading, else the file's name."""
    if version.document.title != version.filename:
        return version.document.title
    headings = (e for e in parsed.elements if e.kind is ElementKind.HEADING and e.level == 1)
    first = next((parsed.text[e.char_start : e.char_end] for e in headings), "")
    return " ".join((parsed.title or first).split())[:500] or version.filename


def _chunk(parsed: ParsedDocument, title: str) -> list[ChunkDraft]:
    spec, tokens = engines.embedder().spec, engines.token_counter()
    return chunk_document(
        parsed,
        title=title,
        tokens=tokens,
        window=spec.window - tokens.count(spec.passage_prefix),
    )


def _store(
    version: DocumentVersion,
    claimed: Claim,
    parsed: ParsedDocument,
    drafts: list[ChunkDraft],
    title: str,
) -> None:
    with transaction.atomic():
        job = claimed.held()
        documents.store_text(
            version.pk,
            text=parsed.text,
            elements=[asdict(element) for element in parsed.elements],
            boxes=[asdict(box) for box in parsed.boxes],
        )
        index.replace_chunks(version, drafts)
        documents.rename(version.document_id, title=title)
        DocumentVersion.objects.filter(pk=version.pk).update(
            parser=parsed.parser,
            page_count=parsed.page_count,
            chunk_count=len(drafts),
            warnings=list(parsed.warnings),
        )
        job.status = JobStatus.EMBEDDING
        job.attempts = 0
        job.lease_owner, job.lease_until = "", None
        job.stage_done, job.stage_total = 0, len(drafts)
        job.save()
        outbox.add(job, EMBED_TASK)


def _publish(claimed: Claim) -> None:
    """Raises LeaseLost."""
    version = DocumentVersion.objects.get(pk=claimed.version_id)
    with transaction.atomic():
        job = claimed.held()
        documents.publish_version(version)
        index.remove_superseded_chunks(version.document_id)
        job.status = JobStatus.READY
        job.stage_done = job.stage_total = version.chunk_count or 0
        job.lease_owner, job.lease_until = "", None
        job.finished_at = timezone.now()
        job.save()


def _out_of_attempts(claimed: Claim) -> bool:
    """A document that took its workers down is put aside instead of being tried for ever."""
    if claimed.attempt <= settings.JOB_MAX_ATTEMPTS:
        return False
    _end_badly(claimed, IngestionError(FailureCode.PARSE_CRASHED), stage=PARSE_TASK)
    return True


def _end_badly(claimed: Claim, error: Exception, *, stage: str) -> None:
    """Try again later what can heal, fail the rest with words."""
    error = _in_words(error)
    again = error.retryable and claimed.attempt < settings.JOB_MAX_ATTEMPTS
    try:
        with transaction.atomic():
            job = claimed.held()
            job.lease_owner, job.lease_until = "", None
            if again:
                delay = timedelta(seconds=5 * 4 ** (claimed.attempt - 1))
                if stage == PARSE_TASK:
                    job.status = JobStatus.QUEUED
                outbox.add(job, stage, delay=delay)
            else:
                job.status = JobStatus.FAILED
                job.error_code = error.code
                job.error_detail = error.detail[:2000]
                job.finished_at = timezone.now()
            job.save()
    except LeaseLost:
        return


def _in_words(error: Exception) -> IngestionError:
    if isinstance(error, IngestionError):
        return error
    if isinstance(error, EngineError):
        log.warning("embedding failed: %s", error)
        return IngestionError(FailureCode.EMBEDDER_UNAVAILABLE, cause=error.detail)
    log.error("ingestion failed", exc_info=error)
    return IngestionError(FailureCode.INTERNAL, cause=repr(error))


def sweep() -> int:
    """Send a message again for every open job that nobody holds and nobody was told about.

    Repairs what the broker lost and what died with its worker; returns how many.
    """
    repaired = 0
    with transaction.atomic():
        for job in _forgotten_jobs():
            task = EMBED_TASK if job.status == JobStatus.EMBEDDING else PARSE_TASK
            outbox.add(job, task)
            repaired += 1
    return repaired


def _forgotten_jobs() -> list[IngestionJob]:
    """Open jobs whose lease ran out, or that waited long after their last message was sent."""
    recent = OutboxEntry.objects.filter(job=OuterRef("pk")).filter(
        Q(sent_at=None) | Q(sent_at__gt=Now() - timedelta(minutes=10))
    )
    dead = Q(lease_until__lt=Now() - timedelta(seconds=1))
    waiting = Q(lease_owner="") & ~Exists(recent)
    return list(
        IngestionJob.objects.select_for_update(skip_locked=True, of=("self",))
        .filter(status__in=OPEN_STATUSES)
        .filter(dead | waiting)[:500]
    )
