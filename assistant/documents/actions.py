"""Writes on collections, documents and versions; each is checked by its caller and audited here."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import IO, Any
from uuid import UUID, uuid4

from django.db import IntegrityError, connection, transaction
from django.db.models import Max, QuerySet
from django.utils import timezone

from assistant.audit.models import record
from assistant.documents import storage
from assistant.documents.models import (
    Collection,
    Document,
    DocumentVersion,
    PendingFileRemoval,
    VersionText,
)
from assistant.permissions.actions import grant_role
from assistant.permissions.roles import Role
from assistant.users.models import User


@dataclass(frozen=True, slots=True)
class Upload:
    """One file as it came in; everything but ``content`` is data, never a path or a type."""

    content: IO[bytes]
    filename: str
    media_type: str
    title: str = ""
    external_id: str | None = None
    source_url: str = ""
    metadata: dict[str, Any] = field(default_factory=dict)


def create_collection(*, name: str, description: str = "", actor: User) -> Collection:
    """The creator manages it."""
    with transaction.atomic():
        collection = Collection.objects.create(name=name, description=description, created_by=actor)
        grant_role(collection.pk, user=actor, role=Role.MANAGER, actor=actor)
        record(actor, "collection.create", collection, collection_id=collection.pk)
    return collection


def update_collection(
    collection: Collection, *, name: str, description: str, actor: User
) -> Collection:
    collection.name, collection.description = name, description
    with transaction.atomic():
        collection.save(update_fields=["name", "description"])
        record(actor, "collection.update", collection, collection_id=collection.pk)
    return collection


def delete_collection(collection: Collection, *, actor: User) -> None:
    """Remove it with all it holds; originals follow within minutes."""
    with transaction.atomic():
        _schedule_removal(DocumentVersion.objects.filter(document__collection=collection))
        record(actor, "collection.delete", collection, collection_id=collection.pk)
        collection.delete()


def store_version(
    collection_id: UUID, upload: Upload, *, actor: User
) -> tuple[DocumentVersion, bool]:
    """Store an upload as a new document or the next version; returns it and whether it is new.

    The same ``external_id`` in the collection is the same document; the same bytes as its latest
    version are that version, and nothing is written. Must run inside a transaction: the caller
    adds the job in the same commit. On rollback the stored bytes are removed again.

    Raises OSError when the storage refuses the bytes.
    """
    assert connection.in_atomic_block
    sha256, size = storage.digest(upload.content)
    document = _document_for(collection_id, upload, actor=actor)
    latest = document.latest_version
    if latest is not None and latest.sha256 == sha256:
        _refresh_labels(document, upload)
        return latest, False
    version_id = uuid4()
    key = storage.save_original(version_id, upload.content)
    try:
        number = document.versions.aggregate(last=Max("number"))["last"] or 0
        version = DocumentVersion.objects.create(
            id=version_id,
            document=document,
            number=number + 1,
            sha256=sha256,
            size=size,
            media_type=upload.media_type,
            filename=upload.filename[:255],
            storage_key=key,
            created_by=actor,
        )
        document.latest_version = version
        _refresh_labels(document, upload)
        record(
            actor,
            "document.upload",
            document,
            version=version.number,
            sha256=sha256,
            size=size,
        )
    except BaseException:
        storage.remove_original(key)
        raise
    return version, True


def _document_for(collection_id: UUID, upload: Upload, *, actor: User) -> Document:
    """The document with this external id, locked so that versions are numbered one by one."""
    if upload.external_id is not None:
        found: QuerySet[Document] = Document.objects.filter(
            collection_id=collection_id, external_id=upload.external_id
        )
        if document := found.select_for_update().first():
            return document
        try:
            with transaction.atomic():
                return _create_document(collection_id, upload, actor=actor)
        except IntegrityError:  # another upload of the same external id was faster
            return found.select_for_update().get()
    return _create_document(collection_id, upload, actor=actor)


def _create_document(collection_id: UUID, upload: Upload, *, actor: User) -> Document:
    document: Document = Document.objects.create(
        collection_id=collection_id,
        external_id=upload.external_id,
        title=(upload.title or upload.filename)[:500],
        source_url=upload.source_url,
        metadata=upload.metadata,
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
    document.updated_at = timezone.now()
    document.save()


def publish_version(version: DocumentVersion) -> bool:
    """Make ``version`` the one that answers, in one UPDATE.

    False, and nothing happens, when the document was deleted or a newer version is already
    published. The caller holds the job's fence in the same transaction.
    """
    now = timezone.now()
    newer = DocumentVersion.objects.filter(
        document_id=version.document_id, number__gt=version.number, published_at__isnull=False
    )
    if newer.exists():
        return False
    switched = (
        Document.objects.get_queryset()
        .filter(pk=version.document_id)
        .update(current_version=version, updated_at=now)
    )
    if switched:
        DocumentVersion.objects.filter(pk=version.pk).update(published_at=now)
    return bool(switched)


def delete_document(document: Document, *, actor: User) -> None:
    """From the commit on it answers nothing; text and vectors go in the same transaction.

    Chunks, embeddings and jobs fall with their versions; the bytes follow within minutes. The
    tombstone keeps ids only.
    """
    with transaction.atomic():
        locked = Document.objects.select_for_update().filter(pk=document.pk).first()
        if locked is None:
            return
        versions = DocumentVersion.objects.filter(document=locked)
        _schedule_removal(versions)
        record(actor, "document.delete", locked)
        Document.objects.filter(pk=locked.pk).update(
            deleted_at=timezone.now(),
            current_version=None,
            latest_version=None,
            external_id=None,
            title="",
            source_url="",
            metadata={},
        )
        versions.delete()


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


def store_text(version_id: UUID, *, text: str, elements: list[Any], boxes: list[Any]) -> None:
    """Write or replace the stored text of a version that is not published yet."""
    VersionText.objects.update_or_create(
        version_id=version_id, defaults={"text": text, "elements": elements, "boxes": boxes}
    )


def rename(document_id: UUID, *, title: str) -> None:
    """Show the document under ``title`` from now on."""
    Document.objects.filter(pk=document_id).exclude(title=title).update(title=title)
