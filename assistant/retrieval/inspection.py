"""What the index holds of one version, for the people who answer for its content."""

from __future__ import annotations

from dataclasses import dataclass
from uuid import UUID

from django.db.models import Exists, OuterRef, QuerySet

from assistant import engines
from assistant.permissions.policy import AnyUser, collections_with_role
from assistant.permissions.roles import Role
from assistant.retrieval import spaces
from assistant.retrieval.models import Chunk, Embedding


@dataclass(frozen=True, slots=True)
class IndexedChunk:
    """One chunk as it was indexed. ``tokens`` counts context and text as the model does.

    ``has_vector`` is about the space that is searched now.
    """

    ordinal: int
    text: str
    context: str
    heading_path: tuple[str, ...]
    page: int | None
    char_start: int
    char_end: int
    tokens: int
    has_vector: bool


def count_chunks(version_id: UUID, *, user: AnyUser) -> int:
    return _chunks(version_id, user).count()


def chunks_of(
    version_id: UUID, *, user: AnyUser, start: int = 0, limit: int = 50
) -> list[IndexedChunk]:
    """Up to ``limit`` chunks from ordinal ``start`` on; none unless ``user`` is a contributor.

    Chunks of a version go when a newer one is published, so an old version has none.
    """
    vector = Embedding.objects.filter(chunk=OuterRef("pk"), space__is_active=True)
    rows = (
        _chunks(version_id, user)
        .filter(ordinal__gte=start)
        .annotate(has_vector=Exists(vector))
        .order_by("ordinal")[:limit]
    )
    space = spaces.active()
    counter = spaces.tokens_of(space) if space else engines.token_counter()
    return [
        IndexedChunk(
            ordinal=row.ordinal,
            text=row.text,
            context=row.context,
            heading_path=tuple(row.heading_path),
            page=row.page,
            char_start=row.char_start,
            char_end=row.char_end,
            tokens=counter.count(f"{row.context}\n{row.text}" if row.context else row.text),
            has_vector=row.has_vector,
        )
        for row in rows
    ]


def _chunks(version_id: UUID, user: AnyUser) -> QuerySet[Chunk]:
    return Chunk.objects.filter(
        version_id=version_id,
        document__deleted_at=None,
        collection__in=collections_with_role(user, Role.CONTRIBUTOR),
    )
