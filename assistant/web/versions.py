"""What the document page tells about versions and parts of a document."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from django.db.models import QuerySet

from assistant.documents.models import Document, DocumentVersion
from assistant.users.models import User
from assistant.web.library import DocumentRow, rows_of
from ingestion.models import OPEN_STATUSES, IngestionJob, JobStatus
from ingestion.progress import Progress, progress_of

LISTED: Final = 200


@dataclass(frozen=True, slots=True)
class VersionRow:
    """One line of the list of versions."""

    version: DocumentVersion
    job: IngestionJob | None
    progress: Progress
    is_current: bool
    is_newest: bool

    @property
    def is_open(self) -> bool:
        return self.progress.status in OPEN_STATUSES

    @property
    def can_retry(self) -> bool:
        """Older versions are restored instead."""
        return self.is_newest and self.progress.status in (JobStatus.FAILED, JobStatus.CANCELLED)


def versions_of(document: Document, *, user: User) -> list[VersionRow]:
    """Newest first, at most ``LISTED``."""
    versions: QuerySet[DocumentVersion] = (
        DocumentVersion.objects.readable_by(user)
        .filter(document=document)
        .select_related("job", "created_by")
    )
    rows = [(version, getattr(version, "job", None)) for version in versions[:LISTED]]
    progress = progress_of(job for _, job in rows if job)
    return [
        VersionRow(
            version,
            job,
            progress[job.pk] if job else Progress(JobStatus.QUEUED, 0, 0),
            is_current=version.pk == document.current_version_id,
            is_newest=version.pk == document.latest_version_id,
        )
        for version, job in rows
    ]


def children_of(document: Document, *, user: User) -> tuple[list[DocumentRow], int]:
    """The first ``LISTED`` parts by their path, and how many there are."""
    parts: QuerySet[Document] = (
        Document.objects.readable_by(user)
        .filter(parent=document)
        .select_related("latest_version__job", "current_version", "parent")
        .order_by("path", "pk")
    )
    return rows_of(parts[:LISTED]), parts.count()
