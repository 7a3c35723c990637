"""An upload becomes searchable here: parse, chunk, index, embed, publish.

The stages run in different workers. Each claims the job, works without a transaction, and writes
its result in one transaction that holds the job's fence, so a late or repeated run writes nothing.
"""

from __future__ import annotations

import logging
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from uuid import UUID

from django.conf import settings
from django.db import transaction
from django.db.models import F
from django.db.models.functions import Now

from assistant import engines
from assistant.documents import actions as documents
from assistant.documents import storage
from assistant.documents.models import DocumentVersion
from assistant.retrieval import index, spaces
from inference.types import EngineError
from ingestion import embedding, leases, outbox, slots
from ingestion.actions import limits
from ingestion.chunking import chunk_document
from ingestion.elements import ChunkDraft, ElementKind, ParsedDocument, as_rows
from ingestion.failing import end_badly, is_exhausted
from ingestion.leases import Claim, LeaseLost
from ingestion.models import IngestionJob, JobStatus
from ingestion.parts import Parts, may_have_parts
from ingestion.sandbox import WORKPLACE, Sandbox

log = logging.getLogger(__name__)

# Jobs that one thread embeds together. Those behind them wait for all their chunks.
JOBS_TOGETHER = 32
CHUNKS_TOGETHER = 2 * embedding.BATCH


@cache
def sandbox() -> Sandbox:
    """One for the process: its parser processes stay warm between documents."""
    return Sandbox()


def parse_next(job_id: UUID) -> None:
    """What a message that ``job_id`` waits to be parsed brings: the job whose turn it is."""
    with slots.claimed(job_id, waiting=JobStatus.QUEUED, working=JobStatus.PARSING) as claimed:
        _parse_and_chunk(claimed)


def embed_next(job_id: UUID) -> None:
    """Likewise for embedding."""
    with slots.claimed(job_id, waiting=JobStatus.EMBEDDING, working=JobStatus.EMBEDDING) as claimed:
        _embed_and_publish(claimed)


def parse_and_chunk(job_id: UUID) -> None:
    """First half: from the original to text and chunks of a version nobody sees yet."""
    _parse_and_chunk(leases.claim(job_id, waiting=JobStatus.QUEUED, working=JobStatus.PARSING))


def embed_and_publish(job_id: UUID) -> None:
    """Second half: the missing vectors, then one UPDATE makes the version the current one.

    Takes along other jobs that wait for the same, so that batches fill across documents. Their
    messages then find nothing left to do.
    """
    _embed_and_publish(
        leases.claim(job_id, waiting=JobStatus.EMBEDDING, working=JobStatus.EMBEDDING)
    )


def _parse_and_chunk(claimed: Claim | None) -> None:
    if claimed is None or is_exhausted(claimed):
        return
    version = DocumentVersion.objects.select_related("document", "job").get(pk=claimed.version_id)
    with leases.heartbeat([claimed]) as is_lost, _workplace() as folder:
        try:
            parts = Parts(folder) if may_have_parts(version.document) else None
            parsed = _parse(version, claimed, folder, parts, lambda: is_lost(claimed))
            title = _title(parsed, version)
            drafts = _chunk(parsed, title)
            part_ids = parts.accept(version, claimed) if parts else set()
            _store(version, claimed, parsed, drafts, title, part_ids)
        except LeaseLost:
            return
        except Exception as error:  # noqa: BLE001  whatever it is, the file must not look stuck
            end_badly([claimed], error)


def _embed_and_publish(first: Claim | None) -> None:
    if first is None:
        return
    # One that failed before goes alone: it must not take others with it.
    others = JOBS_TOGETHER - 1 if first.attempt == 1 else 0
    more = leases.claim_more(first, JobStatus.EMBEDDING, limit=others, work=CHUNKS_TOGETHER)
    claims = [claimed for claimed in (first, *more) if not is_exhausted(claimed)]
    with leases.heartbeat(claims) as is_lost:
        _embed(claims, is_lost)


def _embed(claims: list[Claim], is_lost: Callable[[Claim], bool]) -> None:
    try:
        waiting = claims
        while waiting:
            waiting = embedding.embed_missing(waiting, is_lost=is_lost, publish=_publish)
    except Exception as error:  # noqa: BLE001  whatever it is, no file must look stuck
        if len(claims) > 1 and isinstance(error, EngineError) and not error.retryable:
            for claimed in claims:  # one of them is at fault: the others shall not pay
                _embed([claimed], is_lost)
            return
        end_badly(claims, error)


@contextmanager
def _workplace() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix=WORKPLACE, dir=settings.FILE_UPLOAD_TEMP_DIR) as folder:
        yield Path(folder)


def _parse(
    version: DocumentVersion,
    claimed: Claim,
    folder: Path,
    parts: Parts | None,
    should_cancel: Callable[[], bool],
) -> ParsedDocument:
    """The bytes go to the sandbox through a private copy: it never sees the storage."""
    path = folder / "original"
    with storage.open_original(version.storage_key) as source, path.open("wb") as target:
        shutil.copyfileobj(source, target, 1 << 20)
    return sandbox().parse(
        path,
        media_type=version.media_type,
        filename=version.filename,
        limits=limits(),
        on_progress=claimed.report,
        should_cancel=should_cancel,
        on_attachment=parts.receive if parts else None,
    )


def _title(parsed: ParsedDocument, version: DocumentVersion) -> str:
    """What the uploader called it, else its own title or first heading, else the file's name."""
    if version.document.title != version.filename:
        return version.document.title
    headings = (e for e in parsed.elements if e.kind is ElementKind.HEADING and e.level == 1)
    first = next((parsed.text[e.char_start : e.char_end] for e in headings), "")
    return " ".join((parsed.title or first).split())[:500] or version.filename


def _chunk(parsed: ParsedDocument, title: str) -> list[ChunkDraft]:
    space = spaces.ensure_active(engines.embedder().spec)
    tokens = spaces.tokens_of(space)
    return chunk_document(
        parsed,
        title=title,
        tokens=tokens,
        window=space.window - tokens.count(space.passage_prefix),
    )


def _store(
    version: DocumentVersion,
    claimed: Claim,
    parsed: ParsedDocument,
    drafts: list[ChunkDraft],
    title: str,
    part_ids: set[UUID],
) -> None:
    with transaction.atomic():
        job = claimed.held()
        if part_ids or version.number > 1:
            documents.delete_parts_except(version.document_id, part_ids, actor=version.created_by)
        documents.store_text(
            version.pk,
            text=parsed.text,
            elements=as_rows(parsed.elements),
            boxes=as_rows(parsed.boxes),
        )
        index.replace_chunks(version, drafts)
        if title != version.document.title:
            documents.rename(version.document_id, title=title)
        DocumentVersion.objects.filter(pk=version.pk).update(
            parser=parsed.parser,
            page_count=parsed.page_count,
            chunk_count=len(drafts),
            warnings=list(parsed.warnings),
        )
        job.status = JobStatus.EMBEDDING
        job.attempts = 0
        job.error_code = job.error_detail = ""
        job.lease_owner, job.lease_until = "", None
        job.stage_done, job.stage_total = 0, len(drafts)
        job.save()
        outbox.add(job, outbox.EMBED_TASK)


def _publish(claims: Sequence[Claim]) -> list[Claim]:
    """Make the versions the ones that answer, all of them in one commit.

    Claims that were lost are left alone. Returns those that cannot be published yet: another
    model's vectors are needed since theirs were made.
    """
    with transaction.atomic():
        spaces.hold()
        jobs = leases.held(claims)
        space = spaces.ensure_active(engines.embedder().spec)
        lacking = index.count_without_vector([job.version_id for job in jobs], space=space)
        whole = [job for job in jobs if not lacking[job.version_id]]
        documents.publish_versions([job.version_id for job in whole])
        index.remove_superseded_chunks([job.version.document_id for job in whole])
        IngestionJob.objects.filter(pk__in=[job.pk for job in whole]).update(
            status=JobStatus.READY,
            stage_done=F("stage_total"),
            lease_owner="",
            lease_until=None,
            error_code="",
            error_detail="",
            finished_at=Now(),
        )
    return [claimed for claimed in claims if lacking[claimed.version_id]]
