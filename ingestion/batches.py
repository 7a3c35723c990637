"""Files that were sent together: totals, time left, and failures gathered by their reason."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from django.db.models import Count, F, Min, Q, QuerySet

from assistant.documents.models import Document
from assistant.permissions.policy import AnyUser
from assistant.permissions.roles import Role
from ingestion import line, progress
from ingestion.models import OPEN_STATUSES, IngestionJob, JobStatus

# More of one reason are counted, not listed.
LISTED: Final = 200
_NAMES: Final = {
    "no_text": "No text found",
    "type_mismatch": "Name and content differ",
    "corrupt_file": "Damaged file",
    "too_large": "Too large",
    "archive_bomb": "Unpacks to too much",
    "parse_timeout": "Took too long to read",
    "parse_memory": "Needed too much memory",
    "parse_crashed": "The reader failed",
    "sandbox_lost": "Interrupted",
    "embedder_unavailable": "Embedding service not reachable",
    "internal": "A fault on our side",
}


@dataclass(frozen=True, slots=True)
class Totals:
    """Files by the state of their newest version's job."""

    all: int
    queued: int
    parsing: int
    embedding: int
    ready: int
    failed: int
    cancelled: int

    @property
    def open(self) -> int:
        return self.queued + self.parsing + self.embedding

    @property
    def ended(self) -> int:
        return self.all - self.open


@dataclass(frozen=True, slots=True)
class FailedFile:
    """``detail`` is empty when the words of its group say it all."""

    document: Document
    detail: str


@dataclass(frozen=True, slots=True)
class FailureGroup:
    """Files that failed for one reason. ``files`` holds at most ``LISTED`` of ``count``."""

    code: str
    detail: str
    count: int
    files: list[FailedFile]

    @property
    def name(self) -> str:
        """``Password protected``."""
        return _NAMES.get(self.code) or self.code.replace("_", " ").capitalize() or "Failed"


@dataclass(frozen=True, slots=True)
class Batch:
    """One drop of files into one collection, in a list of recent ones."""

    id: UUID
    started_at: datetime
    totals: Totals


def latest_jobs(user: AnyUser, role: Role = Role.CONTRIBUTOR, **lookup: Any) -> QuerySet[Any]:
    """Jobs of the newest versions of live documents: the state that people see as the file's."""
    return IngestionJob.objects.for_user(user, role).filter(
        version__document__deleted_at=None,
        version__document__latest_version=F("version"),
        **lookup,
    )


def totals_of(jobs: QuerySet[Any]) -> Totals:
    return Totals(**jobs.order_by().aggregate(**_counts()))


def eta_of(jobs: QuerySet[Any]) -> int | None:
    """Seconds until the last of them is ready; None when that cannot be told."""
    unfinished = jobs.filter(status__in=OPEN_STATUSES).order_by(*line.ORDER)
    last = unfinished.values_list("pk", flat=True).last()
    return progress.eta_of(last) if last else None


def failures_of(jobs: QuerySet[Any]) -> list[FailureGroup]:
    """Commonest reason first."""
    failed = jobs.filter(status=JobStatus.FAILED)
    counts = failed.order_by().values("error_code").annotate(files=Count("pk"))
    return sorted(
        (_group(failed, row["error_code"], row["files"]) for row in counts),
        key=lambda group: (-group.count, group.code),
    )


def _group(failed: QuerySet[Any], code: str, count: int) -> FailureGroup:
    rows = list(
        failed.filter(error_code=code)
        .select_related("version__document__parent")
        .order_by("version__document__path", "version__document__title", "pk")[:LISTED]
    )
    detail = rows[0].error_detail if rows else ""
    files = [
        FailedFile(job.version.document, "" if job.error_detail == detail else job.error_detail)
        for job in rows
    ]
    return FailureGroup(code, detail, count, files)


def recent_batches(collection_id: UUID, *, user: AnyUser, limit: int = 5) -> list[Batch]:
    """Newest first."""
    rows = (
        latest_jobs(user, version__document__collection=collection_id, batch__isnull=False)
        .order_by()
        .values("batch")
        .annotate(started_at=Min("version__created_at"), **_counts())
        .order_by("-started_at")[:limit]
    )
    return [
        Batch(
            id=row["batch"],
            started_at=row["started_at"],
            totals=Totals(**{name: row[name] for name in _counts()}),
        )
        for row in rows
    ]


def _counts() -> dict[str, Count]:
    counts = {"all": Count("pk")}
    counts |= {name: Count("pk", filter=Q(status=name)) for name in JobStatus.values}
    return counts
