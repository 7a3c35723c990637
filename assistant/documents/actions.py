"""Writes on collections, documents and versions; each is checked by its caller and audited here."""

from __future__ import annotations

from collections.abc import Container, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from hashlib import sha256
from typing import IO, Any
from uuid import UUID, uuid4

from django.conf import settings
from django.core.exceptions import ValidationError
from django.db import IntegrityError, connection, transaction
from django.db.models import Max, QuerySet
from django.utils import timezone

from assistant.audit.models import record
from assistant.documents import storage
from assistant.documents.models import (
    Collection,
    Document,
    DocumentVersion,
    PageBoxes,
    PendingFileRemoval,
    VersionText,
)
from assistant.permissions.actions import grant_role
from assistant.permissions.roles import Role
from assistant.users.models import User
from inference.tokens import estimated_tokens


@dataclass(frozen=True, slots=True)
class Upload:
    """One file as it came in; everything but ``content`` is data, never a path or a type.

    ``path`` is where it lay in an uploaded folder, or inside the document ``parent_id``, whose
    part it then is. ``document_id`` names the document of which it is the next version.
    """

    content: IO[bytes]
    filename: str
    media_type: str
    title: str = ""
    external_id: str | None = None
    source_url: str = ""
    metadata: dict[str, Any] = field(default_factory=dict)
    path: str = ""
    parent_id: UUID | None = None
    document_id: UUID | None = None


def create_collection(*, name: str, description: str = "", actor: User) -> Collection:
    """The creator manages it."""
    with transaction.atomic():
        collection = Collection.objects.create(name=name, description=description, created_by=actor)
        grant_role(collection.pk, user=actor, role=Role.MANAGER, actor=actor)
        record(actor, "collection.create", collection, collection_id=collection.pk)
    return collection


def create_private_collection(*, name: str, owner: User) -> Collection:
    """For ``owner`` alone, see ``Collection.private_to``."""
    collection = Collection.objects.create(name=name, created_by=owner, private_to=owner)
    record(owner, "collection.create", collection, collection_id=collection.pk, private=True)
    return collection


def update_collection(
    collection: Collection,
    *,
    name: str,
    description: str,
    instructions: str | None = None,
    actor: User,
) -> Collection:
    """``instructions`` None leaves them as they are. Raises ValidationError when too long."""
    collection.name, collection.description = name, description
    before = collection.instructions
    if instructions is not None:
        collection.instructions = check_instructions(instructions)
    with transaction.atomic():
        collection.save(update_fields=["name", "description", "instructions"])
        record(actor, "collection.update", collection, collection_id=collection.pk)
        if collection.instructions != before:
            record(
                actor,
                "collection.instruct",
                collection,
                collection_id=collection.pk,
                **instructions_digest(collection.instructions),
            )
    return collection


def check_instructions(text: str) -> str:
    """Instructions for the model as they are kept. Raises ValidationError with words."""
    text = text.replace("\r\n", "\n").strip()
    tokens = estimated_tokens(text)
    if tokens > settings.INSTRUCTIONS_MAX_TOKENS:
        raise ValidationError(
            {
                "instructions": f"The instructions take about {tokens:,} tokens of each prompt; at"
                f" most {settings.INSTRUCTIONS_MAX_TOKENS:,} are allowed. Shorten them to about"
                f" {settings.INSTRUCTIONS_MAX_TOKENS * 3:,} letters."
            },
            code="too_long",
        )
    if "\x00" in text:
        raise ValidationError({"instructions": "They contain a NUL character."}, code="nul")
    return text


def instructions_digest(text: str) -> dict[str, Any]:
    """What is noted of instructions: which text it was, not the text."""
    return {"sha256": sha256(text.encode()).hexdigest(), "tokens": estimated_tokens(text)}


def delete_collection(collection: Collection, *, actor: User) -> None:
    """Remove it with all it holds; originals follow within minutes."""
    with transaction.atomic():
        _schedule_removal(DocumentVersion.objects.filter(document__collection=collection))
        record(actor, "collection.delete", collection, collection_id=collection.pk)
        collection.delete()


def store_version(
    collection_id: UUID, upload: Upload, *, actor: User | None, restored_from: int | None = None
) -> tuple[DocumentVersion, bool]:
    """Store an upload as a new document or the next version; returns it and whether it is new.

    The same ``external_id`` in the collection, or the same ``path`` in the parent, is the same
    document; the same bytes as its latest version are that version, and nothing is written. Must
    run inside a transaction: the caller adds the job in the same commit. On rollback the stored
    bytes are removed again.

    Raises Document.DoesNotExist when ``upload.document_id`` was deleted, and OSError when the
    storage refuses the bytes.
    """
    assert connection.in_atomic_block
    digest, size = storage.digest(upload.content)
    version_id = uuid4()
    document = _document_for(collection_id, upload, version_id, actor=actor)
    is_first = document.latest_version_id == version_id
    latest = None if is_first else document.latest_version
    if latest is not None and latest.sha256 == digest:
        _refresh_labels(document, upload)
        return latest, False
    key = storage.save_original(version_id, upload.content)
    try:
        version = DocumentVersion.objects.create(
            id=version_id,
            document=document,
            number=1 if is_first else _last_number(document) + 1,
            sha256=digest,
            size=size,
            media_type=upload.media_type,
            filename=upload.filename[:255],
            storage_key=key,
            restored_from=restored_from,
            created_by=actor,
        )
        if not is_first:
            document.latest_version = version
            _refresh_labels(document, upload)
        record(
            actor,
            "document.upload",
            document,
            version=version.number,
            sha256=digest,
            size=size,
        )
    except BaseException:
        storage.remove_original(key)
        raise
    return version, True


def _last_number(document: Document) -> int:
    last: int | None = document.versions.aggregate(last=Max("number"))["last"]
    return last or 0


def _document_for(
    collection_id: UUID, upload: Upload, version_id: UUID, *, actor: User | None
) -> Document:
    """The document that this upload is a version of, locked so that versions are numbered.

    A new one already names ``version_id`` as its latest version, which is checked at the commit.
    """
    found: QuerySet[Document] = Document.objects.filter(collection_id=collection_id)
    if upload.document_id is not None:
        return found.select_for_update().get(pk=upload.document_id)
    if upload.parent_id is not None:
        found = found.filter(parent=upload.parent_id, path=upload.path)
    elif upload.external_id is not None:
        found = found.filter(external_id=upload.external_id)
    else:
        return _create_document(collection_id, upload, version_id, actor=actor)
    if document := found.select_for_update().first():
        return document
    try:
        with transaction.atomic():
            return _create_document(collection_id, upload, version_id, actor=actor)
    except IntegrityError:  # another upload of the same document was faster
        return found.select_for_update().get()


def _create_document(
    collection_id: UUID, upload: Upload, version_id: UUID, *, actor: User | None
) -> Document:
    document: Document = Document.objects.create(
        collection_id=collection_id,
        external_id=upload.external_id,
        parent_id=upload.parent_id,
        path=upload.path[:500],
        title=(upload.title or upload.filename)[:500],
        source_url=upload.source_url,
        metadata=upload.metadata,
        latest_version_id=version_id,
        created_by=actor,
    )
    return document


def _refresh_labels(document: Document, upload: Upload) -> None:
    if upload.title:
        document.title = upload.title[:500]
    if upload.source_url:
        document.source_url = upload.source_url
    if upload.metadata:
        document.metadata = upload.metadata
    if upload.path and document.parent_id is None:
        document.path = upload.path[:500]
    document.updated_at = timezone.now()
    document.save()


def publish_versions(version_ids: Sequence[UUID]) -> None:
    """Make versions the ones that answer, in one UPDATE.

    Left alone are those whose document was deleted and those older than the one that answers. The
    caller holds the jobs' fences in the same transaction.
    """
    assert connection.in_atomic_block
    with connection.cursor() as cursor:
        cursor.execute(
            """
            WITH published AS (
                UPDATE documents_document d
                SET current_version_id = v.id, updated_at = statement_timestamp()
                FROM documents_documentversion v
                WHERE v.id = ANY(%s) AND d.id = v.document_id AND d.deleted_at IS NULL
                AND NOT EXISTS (
                    SELECT 1 FROM documents_documentversion newer
                    WHERE newer.document_id = v.document_id AND newer.number > v.number
                    AND newer.published_at IS NOT NULL
                )
                RETURNING v.id
            )
            UPDATE documents_documentversion SET published_at = statement_timestamp()
            WHERE id IN (SELECT id FROM published)
            """,
            [list(version_ids)],
        )


def set_disabled(document: Document, *, disabled: bool, actor: User) -> None:
    """Take a document and its parts out of search and answers, or bring them back; nothing goes."""
    with transaction.atomic():
        family = _family([document.pk])
        changed = Document.objects.filter(pk__in=family, disabled_at__isnull=disabled).update(
            disabled_at=timezone.now() if disabled else None
        )
        if changed:
            record(actor, "document.disable" if disabled else "document.enable", document)


def delete_document(document: Document, *, actor: User | None) -> None:
    """From the commit on it answers nothing; text and vectors go in the same transaction.

    Parts go with it. Chunks, embeddings and jobs fall with their versions; the bytes follow within
    minutes. The tombstones keep ids only.
    """
    with transaction.atomic():
        family = _family([document.pk])
        if not family:
            return
        versions = DocumentVersion.objects.filter(document__in=family)
        _schedule_removal(versions)
        record(actor, "document.delete", document, parts=len(family) - 1)
        Document.objects.filter(pk__in=family).update(
            deleted_at=timezone.now(),
            current_version=None,
            latest_version=None,
            external_id=None,
            title="",
            path="",
            source_url="",
            metadata={},
        )
        versions.delete()


def delete_parts_except(document_id: UUID, kept: Container[UUID], *, actor: User | None) -> None:
    """Delete the parts of a container that its newest version no longer holds."""
    for part in Document.objects.filter(parent=document_id):
        if part.pk not in kept:
            delete_document(part, actor=actor)


def _family(roots: list[UUID]) -> list[UUID]:
    """The documents among ``roots`` that still live and all their parts, locked."""
    found: list[UUID] = []
    level = Document.objects.filter(pk__in=roots)
    while ids := list(level.select_for_update().values_list("pk", flat=True)):
        found.extend(ids)
        level = Document.objects.filter(parent__in=ids)
    return found


def _schedule_removal(versions: QuerySet[DocumentVersion]) -> None:
    PendingFileRemoval.objects.bulk_create(
        [
            PendingFileRemoval(storage_key=key)
            for key in versions.values_list("storage_key", flat=True)
        ],
        ignore_conflicts=True,
    )


def purge_originals(limit: int = 500) -> int:
    """Remove the bytes of deleted versions; returns how many. Safe to repeat and to interrupt."""
    removed = 0
    for row in PendingFileRemoval.objects.order_by("pk")[:limit]:
        storage.remove_original(row.storage_key)
        row.delete()
        removed += 1
    return removed


def remove_strays(*, folder: int) -> int:
    """Remove originals that no version names; returns how many.

    A process that dies between storing the bytes and its commit leaves one. An hour is longer than
    any upload, so none that is still to be committed is taken for one.
    """
    keys = storage.stored_before(timezone.now() - timedelta(hours=1), folder=folder)
    named = set(
        DocumentVersion.objects.filter(storage_key__in=keys).values_list("storage_key", flat=True)
    )
    strays = [key for key in keys if key not in named]
    for key in strays:
        storage.remove_original(key)
    return len(strays)


def store_text(version_id: UUID, *, text: str, elements: list[Any], boxes: list[Any]) -> None:
    """Write or replace the stored text of a version that is not published yet."""
    VersionText.objects.bulk_create(
        [VersionText(version_id=version_id, text=text, elements=elements)],
        update_conflicts=True,
        unique_fields=["version"],
        update_fields=["text", "elements"],
    )
    pages: dict[int, list[Any]] = {}
    for box in boxes:
        pages.setdefault(box["page"], []).append(box)
    PageBoxes.objects.filter(version=version_id).delete()
    PageBoxes.objects.bulk_create(
        PageBoxes(
            version_id=version_id,
            page=page,
            char_start=min(box["char_start"] for box in its),
            char_end=max(box["char_end"] for box in its),
            boxes=its,
        )
        for page, its in pages.items()
    )


def rename(document_id: UUID, *, title: str) -> None:
    """Show the document under ``title`` from now on."""
    Document.objects.filter(pk=document_id).exclude(title=title).update(title=title)
