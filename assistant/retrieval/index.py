"""Writing chunks and vectors. What is written here answers only once its version is current."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol
from uuid import UUID

from django.conf import settings
from django.db import connection, transaction
from django.db.models import Count, Exists, OuterRef, Q, QuerySet
from pgvector import HalfVector

from assistant.documents.models import Document, DocumentVersion
from assistant.retrieval.models import Chunk, Embedding, EmbeddingSpace
from inference.types import Vectors


class Draft(Protocol):
    """What the chunker makes; see ``ingestion.elements.ChunkDraft``."""

    @property
    def ordinal(self) -> int: ...
    @property
    def text(self) -> str: ...
    @property
    def embed_text(self) -> str: ...
    @property
    def char_start(self) -> int: ...
    @property
    def char_end(self) -> int: ...
    @property
    def heading_path(self) -> tuple[str, ...]: ...
    @property
    def page(self) -> int | None: ...


@dataclass(frozen=True, slots=True)
class PendingChunk:
    """A chunk that waits for its vector."""

    chunk_id: int
    version_id: UUID
    collection_id: UUID
    embed_text: str
    content_hash: bytes


def replace_chunks(version: DocumentVersion, drafts: Sequence[Draft]) -> None:
    """Make ``drafts`` the chunks of a version that is not published yet.

    Vectors of chunks whose text was embedded before, in any document, are taken over by content
    hash. The caller holds the job's fence in the open transaction.
    """
    assert connection.in_atomic_block
    Chunk.objects.filter(version=version).delete()
    document = version.document
    rows = [
        Chunk(
            version=version,
            document_id=document.pk,
            collection_id=document.collection_id,
            ordinal=draft.ordinal,
            text=draft.text,
            context=_context(draft),
            heading_path=list(draft.heading_path),
            page=draft.page,
            char_start=draft.char_start,
            char_end=draft.char_end,
            content_hash=hashlib.sha256(draft.embed_text.encode()).digest(),
            terms="",
            term_count=0,
        )
        for draft in drafts
    ]
    Chunk.objects.bulk_create(rows, batch_size=500)
    _index_terms(version.pk)
    for space in EmbeddingSpace.objects.filter(Q(is_active=True) | Q(target_since__isnull=False)):
        take_over_vectors(
            Chunk.objects.filter(version=version).values_list("pk", flat=True), space=space
        )


def _context(draft: Draft) -> str:
    """What ``embed_text`` puts in front of the text."""
    return draft.embed_text.removesuffix(draft.text).rstrip("\n")


def _index_terms(version_id: UUID) -> None:
    with connection.cursor() as cursor:
        cursor.execute(
            f"""
            UPDATE {Chunk._meta.db_table} SET (terms, term_count) = (
                SELECT t, coalesce((SELECT sum(cardinality(positions)) FROM unnest(t)), 0)
                FROM to_tsvector(%s::regconfig, unaccent(context || E'\\n' || text)) AS t
            )
            WHERE version_id = %s
            """,
            [settings.TEXT_SEARCH_CONFIG, version_id],
        )


def take_over_vectors(chunk_ids: Iterable[int], *, space: EmbeddingSpace) -> None:
    """Give chunks the vectors of others with the same content in ``space``, in any document."""
    with connection.cursor() as cursor:
        cursor.execute(
            f"""
            INSERT INTO {Embedding._meta.db_table}
                (chunk_id, space_id, collection_id, content_hash, vector)
            SELECT c.id, %(space)s, c.collection_id, c.content_hash, twin.vector
            FROM {Chunk._meta.db_table} c
            CROSS JOIN LATERAL (
                SELECT e.vector FROM {Embedding._meta.db_table} e
                WHERE e.space_id = %(space)s AND e.content_hash = c.content_hash LIMIT 1
            ) twin
            WHERE c.id = ANY(%(chunks)s)
            ON CONFLICT (chunk_id, space_id) DO NOTHING
            """,
            {"space": space.pk, "chunks": list(chunk_ids)},
        )


def count_chunks(version_ids: Iterable[UUID]) -> Counter[UUID]:
    return _count(Chunk.objects.filter(version__in=list(version_ids)))


def count_without_vector(version_ids: Iterable[UUID], *, space: EmbeddingSpace) -> Counter[UUID]:
    return _count(_without_vector(version_ids, space))


def _count(chunks: QuerySet[Chunk]) -> Counter[UUID]:
    """Chunks by version; a version without any counts as 0."""
    return Counter(dict(chunks.values_list("version_id").annotate(Count("pk")).order_by()))


def _without_vector(version_ids: Iterable[UUID], space: EmbeddingSpace) -> QuerySet[Chunk]:
    vector = Embedding.objects.filter(chunk=OuterRef("pk"), space=space)
    return Chunk.objects.filter(~Exists(vector), version__in=list(version_ids))


def chunks_without_vector(
    version_ids: Iterable[UUID], *, space: EmbeddingSpace, limit: int
) -> list[PendingChunk]:
    """Up to ``limit`` chunks, version by version in document order."""
    return pending(_without_vector(version_ids, space).order_by("version", "ordinal")[:limit])


def pending(chunks: QuerySet[Chunk]) -> list[PendingChunk]:
    return [
        PendingChunk(
            chunk_id=row.pk,
            version_id=row.version_id,
            collection_id=row.collection_id,
            embed_text=f"{row.context}\n{row.text}" if row.context else row.text,
            content_hash=bytes(row.content_hash),
        )
        for row in chunks
    ]


def without_vector(chunks: Sequence[PendingChunk], *, space: EmbeddingSpace) -> list[PendingChunk]:
    """Those of ``chunks`` that have no vector yet."""
    have = set(
        Embedding.objects.filter(
            space=space, chunk__in=[chunk.chunk_id for chunk in chunks]
        ).values_list("chunk_id", flat=True)
    )
    return [chunk for chunk in chunks if chunk.chunk_id not in have]


def has_all_vectors(version_id: UUID, *, space: EmbeddingSpace) -> bool:
    return not _without_vector([version_id], space).exists()


def store_vectors(
    chunks: Sequence[PendingChunk], vectors: Vectors, *, space: EmbeddingSpace
) -> None:
    """Vectors come in the order of ``chunks``; those of chunks deleted meanwhile are dropped."""
    with transaction.atomic():
        alive = set(
            Chunk.objects.select_for_update(no_key=True)
            .filter(pk__in=[chunk.chunk_id for chunk in chunks])
            .values_list("pk", flat=True)
        )
        Embedding.objects.bulk_create(
            [
                Embedding(
                    chunk_id=chunk.chunk_id,
                    space=space,
                    collection_id=chunk.collection_id,
                    content_hash=chunk.content_hash,
                    vector=HalfVector(vector),
                )
                for chunk, vector in zip(chunks, vectors, strict=True)
                if chunk.chunk_id in alive
            ],
            ignore_conflicts=True,
        )


def remove_superseded_chunks(document_id: UUID) -> None:
    """Drop chunks and vectors of versions older than the current one; their text stays."""
    current = (
        Document.objects.filter(pk=document_id)
        .values_list("current_version__number", flat=True)
        .first()
    )
    if current is not None:
        Chunk.objects.filter(version__document_id=document_id, version__number__lt=current).delete()
