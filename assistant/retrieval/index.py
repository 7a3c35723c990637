"""Writing chunks and vectors. What is written here answers only once its version is current."""

from __future__ import annotations

import hashlib
import json
import struct
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol
from uuid import UUID

from django.db import connection, transaction
from django.db.models import Count, Exists, OuterRef, Q, QuerySet
from pgvector import HalfVector

from assistant.documents.models import Document, DocumentVersion
from assistant.retrieval import analysis
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


# Rows of one INSERT: a long document must not become one message of hundreds of megabytes.
_ROWS_AT_ONCE = 2_000


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
    hash, in the space that is searched and in the one that is being filled. The caller holds the
    job's fence in the open transaction.
    """
    assert connection.in_atomic_block
    Chunk.objects.filter(version=version).delete()
    ids: list[int] = []
    for start in range(0, len(drafts), _ROWS_AT_ONCE):
        ids += _insert_chunks(version, drafts[start : start + _ROWS_AT_ONCE])
    for space in EmbeddingSpace.objects.filter(Q(is_active=True) | Q(target_since__isnull=False)):
        take_over_vectors(ids, space=space)


def _insert_chunks(version: DocumentVersion, drafts: Sequence[Draft]) -> list[int]:
    """One statement: the rows travel as arrays."""
    document = version.document
    analysed = analysis.analyse([draft.embed_text for draft in drafts])
    with connection.cursor() as cursor:
        cursor.execute(
            f"""
            INSERT INTO {Chunk._meta.db_table} (
                version_id, document_id, collection_id, ordinal, text, context, heading_path, page,
                char_start, char_end, content_hash, language, terms, term_count,
                frequencies, analyser
            )
            SELECT %s, %s, %s, d.ordinal, d.text, d.context,
                   ARRAY(SELECT jsonb_array_elements_text(d.headings::jsonb)),
                   d.page, d.char_start, d.char_end, d.content_hash, d.language,
                   d.terms::tsvector, d.term_count, d.frequencies, %s
            FROM unnest(
                %s::int[], %s::text[], %s::text[], %s::text[], %s::int[], %s::int[], %s::int[],
                %s::bytea[], %s::text[], %s::text[], %s::int[], %s::bytea[]
            ) AS d(
                ordinal, text, context, headings, page, char_start, char_end, content_hash,
                language, terms, term_count, frequencies
            )
            RETURNING id
            """,
            [
                version.pk,
                document.pk,
                document.collection_id,
                analysis.VERSION,
                [draft.ordinal for draft in drafts],
                [draft.text for draft in drafts],
                [_context(draft) for draft in drafts],
                [json.dumps(draft.heading_path) for draft in drafts],
                [draft.page for draft in drafts],
                [draft.char_start for draft in drafts],
                [draft.char_end for draft in drafts],
                [hashlib.sha256(draft.embed_text.encode()).digest() for draft in drafts],
                [each.language for each in analysed],
                [each.terms for each in analysed],
                [each.term_count for each in analysed],
                [each.frequencies for each in analysed],
            ],
        )
        return [row[0] for row in cursor.fetchall()]


def _context(draft: Draft) -> str:
    """What ``embed_text`` puts in front of the text."""
    return draft.embed_text.removesuffix(draft.text).rstrip("\n")


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


def store_vectors(
    chunks: Sequence[PendingChunk], vectors: Vectors, *, space: EmbeddingSpace
) -> None:
    """Vectors come in the order of ``chunks``; those of chunks deleted meanwhile are dropped."""
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute(
            "CREATE TEMPORARY TABLE IF NOT EXISTS vector_in (chunk_id bigint, vector halfvec)"
            " ON COMMIT DELETE ROWS; DELETE FROM vector_in"
        )
        with cursor.cursor.copy("COPY vector_in FROM STDIN (FORMAT BINARY)") as copy:
            copy.write(_binary_rows(chunks, vectors))
        # The chunks that still live are locked: a version that is deleted meanwhile waits, and
        # its new vectors then fall with it.
        cursor.execute(
            f"""
            WITH alive AS (
                SELECT id, collection_id, content_hash FROM {Chunk._meta.db_table}
                WHERE id IN (SELECT chunk_id FROM vector_in) FOR KEY SHARE
            )
            INSERT INTO {Embedding._meta.db_table}
                (chunk_id, space_id, collection_id, content_hash, vector)
            SELECT c.id, %s, c.collection_id, c.content_hash, i.vector
            FROM vector_in i JOIN alive c ON c.id = i.chunk_id
            ON CONFLICT (chunk_id, space_id) DO NOTHING
            """,
            [space.pk],
        )


def _binary_rows(chunks: Sequence[PendingChunk], vectors: Vectors) -> bytes:
    """Rows of (bigint, halfvec) as PostgreSQL's COPY BINARY wants them.

    Fifty times cheaper than text; psycopg cannot be told the type, which has no fixed number. See
    "File Formats, Binary Format" of COPY in PostgreSQL's manual.
    """
    rows = [b"PGCOPY\n\xff\r\n\0" + bytes(8)]
    for chunk, vector in zip(chunks, vectors, strict=True):
        packed = HalfVector(vector).to_binary()
        rows.append(struct.pack("!hiqi", 2, 8, chunk.chunk_id, len(packed)) + packed)
    rows.append(struct.pack("!h", -1))
    return b"".join(rows)


def remove_superseded_chunks(document_ids: Iterable[UUID]) -> None:
    """Drop chunks and vectors of versions older than the current ones; their text stays."""
    with connection.cursor() as cursor:
        cursor.execute(
            f"""
            DELETE FROM {Chunk._meta.db_table} WHERE version_id IN (
                SELECT old.id FROM {DocumentVersion._meta.db_table} old
                JOIN {Document._meta.db_table} d ON d.id = old.document_id
                JOIN {DocumentVersion._meta.db_table} present ON present.id = d.current_version_id
                WHERE d.id = ANY(%s) AND old.number < present.number
            )
            """,
            [list(document_ids)],
        )
