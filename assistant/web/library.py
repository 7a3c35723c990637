"""What the library shows: collections with their counts, documents with their progress."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from django.db.models import Count, Q, QuerySet

from assistant.documents.models import Collection, Document
from assistant.permissions.policy import collections_with_role
from assistant.permissions.roles import Role
from assistant.users.models import User
from ingestion.models import OPEN_STATUSES, IngestionJob, JobStatus
from ingestion.progress import Blocked, Progress, progress_of

PAGE_SIZE = 50
FILTERS: dict[str, tuple[str, ...]] = {
    "working": tuple(OPEN_STATUSES),
    "ready": (JobStatus.READY,),
    "failed": (JobStatus.FAILED,),
    "cancelled": (JobStatus.CANCELLED,),
}
_JOB = "documents__latest_version__job__status"


@dataclass(frozen=True, slots=True)
class Totals:
    """Documents of one collection by what became of their newest version."""

    all: int
    ready: int
    working: int
    failed: int
    cancelled: int


@dataclass(frozen=True, slots=True)
class DocumentRow:
    """One line of the documents table."""

    document: Document
    job: IngestionJob | None
    progress: Progress

    @property
    def status(self) -> str:
        return self.progress.status

    @property
    def words(self) -> str:
        return self.progress.words

    @property
    def note(self) -> str:
        """Beside the stage; what holds up everything is said once, above the table."""
        return "" if self.progress.blocked else self.progress.note

    @property
    def is_open(self) -> bool:
        return self.status in OPEN_STATUSES

    @property
    def can_retry(self) -> bool:
        return self.status in (JobStatus.FAILED, JobStatus.CANCELLED)

    @property
    def place(self) -> str:
        """The folder in which it lay; empty for a file that was sent by itself."""
        return self.document.path.rpartition("/")[0]

    @property
    def still_answering(self) -> int | None:
        """Number of an older version that answers while the newest one is not ready."""
        current = self.document.current_version
        if current is None or self.document.current_version_id == self.document.latest_version_id:
            return None
        return current.number


def readable_collections(user: User) -> QuerySet[Collection]:
    """With the numbers ``total``, ``ready``, ``working`` and ``failed``, in one query."""
    live = Q(documents__deleted_at=None)
    return (
        Collection.objects.for_user(user)
        .annotate(
            total=Count("documents", filter=live),
            ready=Count("documents", filter=live & Q(documents__current_version__isnull=False)),
            working=Count("documents", filter=live & Q(**{f"{_JOB}__in": OPEN_STATUSES})),
            failed=Count("documents", filter=live & Q(**{_JOB: JobStatus.FAILED})),
        )
        .order_by("name", "pk")
    )


def roles_of(user: User) -> dict[Any, str]:
    """Collection id to the highest role's name, where one may do more than read."""
    roles: dict[Any, str] = {}
    for role in (Role.CONTRIBUTOR, Role.MANAGER):
        held = collections_with_role(user, role).values_list(
            "pk" if user.is_superuser else "collection_id", flat=True
        )
        roles.update(dict.fromkeys(held, role.slug))
    return roles


def totals_of(collection: Collection, *, user: User) -> Totals:
    job = "latest_version__job__status"
    counts = (
        Document.objects.for_user(user)
        .filter(collection=collection)
        .aggregate(
            all=Count("pk"),
            **{
                name: Count("pk", filter=Q(**{f"{job}__in": statuses}))
                for name, statuses in FILTERS.items()
            },
        )
    )
    return Totals(**counts)


def documents_of(
    collection: Collection,
    *,
    user: User,
    name: str = "",
    status: str = "",
    batch: UUID | None = None,
) -> QuerySet[Document]:
    """Newest first; an unknown ``status`` is no filter. ``name`` is looked for in paths too."""
    documents: QuerySet[Document] = (
        Document.objects.for_user(user)
        .filter(collection=collection)
        .select_related("latest_version__job", "current_version", "parent")
    )
    if name:
        documents = documents.filter(
            Q(title__icontains=name)
            | Q(path__icontains=name)
            | Q(latest_version__filename__icontains=name)
        )
    if status in FILTERS:
        documents = documents.filter(latest_version__job__status__in=FILTERS[status])
    if batch is not None:
        documents = documents.filter(latest_version__job__batch=batch)
    return documents.order_by("-created_at", "pk")


def rows_of(
    documents: Iterable[Document], *, stopped: Mapping[str, Blocked] | None = None
) -> list[DocumentRow]:
    """With the progress of all of them, in a number of queries that does not grow with them."""
    found = [(document, getattr(document.latest_version, "job", None)) for document in documents]
    progress = progress_of((job for _, job in found if job), stopped=stopped)
    return [
        DocumentRow(document, job, progress[job.pk] if job else Progress(JobStatus.QUEUED, 0, 0))
        for document, job in found
    ]
