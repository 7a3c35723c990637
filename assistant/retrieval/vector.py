"""The vector arm: cosine similarity over halfvec, exact or by HNSW.

pgvector filters after an approximate scan, so a reader who may see little would get too few
rows. Small visible sets are therefore scanned exactly; large ones use HNSW with iterative scan,
and an exact statement follows when that brings fewer than min(k, visible) rows.
"""

from __future__ import annotations

from dataclasses import dataclass

from django.db import connection, transaction
from pgvector import HalfVector

from assistant.retrieval.models import EmbeddingSpace
from assistant.retrieval.scope import Params, Scope
from inference.types import Vectors

# Up to this many visible vectors an exact scan is as fast as HNSW and loses nothing.
EXACT_UP_TO = 20_000
EF_SEARCH = 100
MAX_SCAN_TUPLES = 40_000


@dataclass(frozen=True, slots=True)
class Ranked:
    """Chunk id and score of one arm, best first; for vectors the score is cosine similarity."""

    chunk_id: int
    score: float


def visible_vectors(scope: Scope, *, space: EmbeddingSpace) -> int:
    """How many vectors the scope may see, counted up to EXACT_UP_TO + 1."""
    with connection.cursor() as cursor:
        cursor.execute(
            f"""
            SELECT count(*) FROM (
                SELECT 1 FROM retrieval_embedding e
                WHERE e.space_id = %(space)s AND {scope.on("e.collection_id")}
                LIMIT {EXACT_UP_TO + 1}
            ) few
            """,
            {**scope.params, "space": space.pk},
        )
        return int(cursor.fetchone()[0])


def nearest(
    vector: Vectors, *, scope: Scope, space: EmbeddingSpace, limit: int, visible: int
) -> list[Ranked]:
    """The ``limit`` nearest visible chunks to ``vector`` of shape (dimension,)."""
    params = {**scope.params, "query": HalfVector(vector).to_text(), "limit": limit}
    if visible > EXACT_UP_TO:
        found = _approximate(scope, space, params)
        if len(found) >= limit:
            return found
    return _exact(scope, space, params)


def _exact(scope: Scope, space: EmbeddingSpace, params: Params) -> list[Ranked]:
    kind = f"halfvec({space.dimension:d})"
    return _run(
        f"""
        WITH visible AS MATERIALIZED (
            SELECT e.chunk_id, e.vector FROM retrieval_embedding e
            JOIN retrieval_chunk c ON c.id = e.chunk_id {scope.live}
            WHERE e.space_id = {space.pk:d} AND {scope.on("e.collection_id")}
        )
        SELECT chunk_id, 1 - (vector::{kind} <=> %(query)s::{kind}) FROM visible
        ORDER BY vector::{kind} <=> %(query)s::{kind} LIMIT %(limit)s
        """,
        params,
    )


def _approximate(scope: Scope, space: EmbeddingSpace, params: Params) -> list[Ranked]:
    kind = f"halfvec({space.dimension:d})"
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute("SET LOCAL hnsw.iterative_scan = strict_order")
        cursor.execute(f"SET LOCAL hnsw.ef_search = {EF_SEARCH}")
        cursor.execute(f"SET LOCAL hnsw.max_scan_tuples = {MAX_SCAN_TUPLES}")
        return _run(
            f"""
            SELECT e.chunk_id, 1 - (e.vector::{kind} <=> %(query)s::{kind})
            FROM retrieval_embedding e
            JOIN retrieval_chunk c ON c.id = e.chunk_id {scope.live}
            WHERE e.space_id = {space.pk:d} AND {scope.on("e.collection_id")}
            ORDER BY e.vector::{kind} <=> %(query)s::{kind} LIMIT %(limit)s
            """,
            params,
        )


def _run(statement: str, params: Params) -> list[Ranked]:
    with connection.cursor() as cursor:
        cursor.execute(statement, params)
        return [Ranked(chunk_id, float(score)) for chunk_id, score in cursor.fetchall()]
