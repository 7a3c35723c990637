from __future__ import annotations

import uuid
from typing import ClassVar

from django.contrib.postgres.fields import ArrayField
from django.db import models
from django.db.models import Q
from django.utils import timezone

from assistant.permissions.querysets import ScopedQuerySet
from assistant.users.models import User


class Collection(models.Model):
    """A set of documents with one access list (its Grants).

    ``instructions`` are its managers' for the model, for what is written from its passages.

    One that is ``private_to`` a person has no grants: it is in no list, no search and nobody
    else's reach, superusers included. What lies in it is reached by id through ``readable_by``.
    """

    collection_path: ClassVar[str] = "pk"

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    name = models.CharField(max_length=200)
    description = models.TextField(blank=True)
    instructions = models.TextField(blank=True)
    private_to = models.ForeignKey(
        User, on_delete=models.CASCADE, null=True, editable=False, related_name="+"
    )
    created_by = models.ForeignKey(User, on_delete=models.SET_NULL, null=True, related_name="+")
    created_at = models.DateTimeField(default=timezone.now, editable=False)

    objects = ScopedQuerySet.as_manager()

    class Meta:
        ordering: ClassVar[list[str]] = ["name", "id"]

    def __str__(self) -> str:
        return self.name


class LiveDocuments(models.Manager.from_queryset(ScopedQuerySet["Document"])):  # type: ignore[misc]
    """Documents that are not deleted. Tombstones are reached through ``Document.all_objects``."""

    def get_queryset(self) -> ScopedQuerySet[Document]:
        return ScopedQuerySet(self.model, using=self._db).filter(deleted_at=None)


class Document(models.Model):
    """A thing with a title in one Collection.

    ``latest_version`` is the newest upload in whatever state; ``current_version`` is the one that
    answers questions, switched in one UPDATE when a new version is whole. While ``disabled_at`` is
    set it answers nothing but stays readable. Deleting leaves a tombstone without text, so that a
    late task or a restored backup cannot bring it back.

    ``path`` is where it lay in the uploaded folder, or within ``parent``: the mail or archive that
    it came out of, with which it is replaced and deleted.
    """

    collection_path: ClassVar[str] = "collection"

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    collection = models.ForeignKey(Collection, on_delete=models.CASCADE, related_name="documents")
    external_id = models.CharField(max_length=500, null=True, blank=True)  # noqa: DJ001  NULL: none given, not unique
    parent = models.ForeignKey("self", on_delete=models.CASCADE, null=True, related_name="children")
    path = models.CharField(max_length=500, blank=True)
    title = models.CharField(max_length=500)
    source_url = models.URLField(max_length=2000, blank=True)
    metadata = models.JSONField(default=dict, blank=True)
    current_version = models.ForeignKey(
        "DocumentVersion", on_delete=models.SET_NULL, null=True, related_name="+"
    )
    latest_version = models.ForeignKey(
        "DocumentVersion", on_delete=models.SET_NULL, null=True, related_name="+"
    )
    created_by = models.ForeignKey(User, on_delete=models.SET_NULL, null=True, related_name="+")
    created_at = models.DateTimeField(default=timezone.now, editable=False)
    updated_at = models.DateTimeField(default=timezone.now)
    disabled_at = models.DateTimeField(null=True, editable=False)
    deleted_at = models.DateTimeField(null=True, editable=False)

    objects = LiveDocuments()
    all_objects = models.Manager()  # noqa: DJ012  ruff does not know LiveDocuments for a manager

    class Meta:
        base_manager_name = "all_objects"
        ordering: ClassVar[list[str]] = ["-updated_at", "id"]
        indexes = [
            models.Index(
                fields=["collection", "-updated_at", "id"],
                name="document_list",
                condition=Q(deleted_at=None),
            ),
            models.Index(
                fields=["collection", "-created_at", "id"],
                name="document_newest",
                condition=Q(deleted_at=None),
            ),
        ]
        constraints = [
            models.UniqueConstraint(
                fields=["collection", "external_id"],
                name="document_external_id",
                condition=Q(deleted_at=None, external_id__isnull=False),
            ),
            models.UniqueConstraint(
                fields=["parent", "path"],
                name="document_part",
                condition=Q(deleted_at=None, parent__isnull=False),
            ),
        ]

    def __str__(self) -> str:
        return self.title


class DocumentVersion(models.Model):
    """One uploaded file of a Document: bytes on the storage, SHA-256 and number here."""

    collection_path: ClassVar[str] = "document__collection"

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    document = models.ForeignKey(Document, on_delete=models.CASCADE, related_name="versions")
    number = models.PositiveIntegerField()
    sha256 = models.CharField(max_length=64)
    size = models.PositiveBigIntegerField()
    media_type = models.CharField(max_length=100)
    filename = models.CharField(max_length=255)
    storage_key = models.CharField(max_length=200)
    parser = models.CharField(max_length=100, blank=True)
    warnings = ArrayField(models.TextField(), default=list)
    page_count = models.PositiveIntegerField(null=True)
    chunk_count = models.PositiveIntegerField(null=True)
    created_by = models.ForeignKey(User, on_delete=models.SET_NULL, null=True, related_name="+")
    restored_from = models.PositiveIntegerField(null=True)
    created_at = models.DateTimeField(default=timezone.now, editable=False)
    published_at = models.DateTimeField(null=True)

    objects = ScopedQuerySet.as_manager()

    class Meta:
        ordering: ClassVar[list[str]] = ["-number"]
        constraints = [
            models.UniqueConstraint(fields=["document", "number"], name="version_number")
        ]
        indexes = [models.Index(fields=["sha256"], name="version_bytes")]

    def __str__(self) -> str:
        return f"{self.filename} (version {self.number})"


class VersionText(models.Model):
    """The text that citations of one version point into, and its structure.

    ``elements`` are ``ingestion.elements`` dataclasses as a JSON list, ascending by ``char_start``.
    """

    collection_path: ClassVar[str] = "version__document__collection"

    version = models.OneToOneField(
        DocumentVersion, on_delete=models.CASCADE, primary_key=True, related_name="text"
    )
    text = models.TextField()
    elements = models.JSONField(default=list)

    objects = ScopedQuerySet.as_manager()

    def __str__(self) -> str:
        return f"text of {self.version_id}"


class PageBoxes(models.Model):
    """Where the lines of one page stand on it, as ``ingestion.elements.Box`` in a JSON list.

    All of them show parts of ``[char_start, char_end)`` of the version's text. A passage needs
    those of a page or two: read out of the boxes of a whole book, each cost milliseconds.
    """

    collection_path: ClassVar[str] = "version__document__collection"

    version = models.ForeignKey(
        DocumentVersion, on_delete=models.CASCADE, related_name="pages", db_index=False
    )
    page = models.PositiveIntegerField()
    char_start = models.PositiveIntegerField()
    char_end = models.PositiveIntegerField()
    boxes = models.JSONField()

    objects = ScopedQuerySet.as_manager()

    class Meta:
        constraints = [models.UniqueConstraint(fields=["version", "page"], name="boxes_page")]
        indexes = [
            models.Index(fields=["version", "char_start", "char_end"], name="boxes_of_passage")
        ]

    def __str__(self) -> str:
        return f"boxes of page {self.page} of {self.version_id}"


class PendingFileRemoval(models.Model):
    """An original whose row is gone; the sweep removes the bytes and then this row."""

    storage_key = models.CharField(max_length=200, unique=True)
    created_at = models.DateTimeField(default=timezone.now)

    def __str__(self) -> str:
        return self.storage_key
