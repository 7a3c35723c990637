"""The vector arm: cosine similarity over halfvec, exact or by HNSW.

pgvector filters after an approximate scan: it walks from the nearest vectors outwards and drops
what the reader may not see, so its work grows as total / visible. An exact scan's work grows as
visible. They meet where visible is the square root of total, list length and WALK_COST: below it
the scan is exact. An approximate scan is never trusted to fill the list: it may do as much work as
the exact one would, and when it brings fewer than ``limit`` rows by then, the exact one follows.
``python -m benchmarks.million`` measures all of this; docs/decisions/0007 has the figures.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from math import sqrt
from typing import Any, Final, Literal, NamedTuple

import numpy as np
import orjson
from django.db import connection
from django.db.backends.utils import CursorWrapper

from assistant.database import server_cursor
from assistant.retrieval.models import EmbeddingSpace
from assistant.retrieval.scope import Params, Scope
from assistant.retrieval.statistics import FEW, Sample
from inference.types import Vectors

Plan = Literal["nothing visible", "exact", "hnsw", "hnsw, then exact"]

# What one tuple that HNSW walks costs, in vectors compared by an exact scan: both take 49 ms for
# 60,000 visible of a million, and 20 for 20,000 of 100,000.
WALK_COST = 20.0
# Below this an exact scan is a few milliseconds, whatever the total.
EXACT_AT_LEAST = 5_000
# How HNSW is walked. At a million chunks an ef of 400 brings 0.976 of the true ten, and for 3
# questions in 200 none of them; 800 bring 0.993, for 1 in 200 none, and take 8 ms longer. 1,000
# bring no more. Without sorts the planner has to walk HNSW in its order.
WALK: Final = {
    "enable_sort": "off",
    "hnsw.iterative_scan": "strict_order",
    "hnsw.ef_search": "800",
    "hnsw.max_scan_tuples": "40000",
}
# Chunks of versions that do not answer (being replaced, disabled) may stand among the nearest.
SPARE = 100


class Ranked(NamedTuple):
    """Chunk id and score of one arm, best first; for vectors the score is cosine similarity."""

    chunk_id: int
    score: float


# In C: hundreds of them by their own constructor took a tenth of a search's Python.
_make: Final[Callable[[tuple[int, float]], Ranked]] = partial(tuple.__new__, Ranked)


def ranked(ids: Iterable[int], scores: Iterable[float]) -> list[Ranked]:
    """One for each id and its score."""
    return list(map(_make, zip(ids, scores, strict=True)))


@dataclass(frozen=True, slots=True)
class Nearest:
    """What the arm found and how."""

    ranked: list[Ranked]
    plan: Plan


def nearest(
    vector: Vectors,
    *,
    scope: Scope,
    space: EmbeddingSpace,
    limit: int,
    sample: Sample | None = None,
) -> Nearest:
    """The ``limit`` nearest visible chunks to ``vector`` of shape (dimension,).

    min(``limit``, visible) rows come back, whatever is hidden around them; none when ``space`` is
    not the active one. ``sample`` is that of ``scope``, where it was drawn: it says how many
    vectors there are to compare, filters apart, or nearly. Needs an open transaction.
    """
    if sample is None or sample.met_none:
        visible, most = _visible(scope, space, limit=limit)
    else:
        visible = round(sample.held)
        most = max(EXACT_AT_LEAST, round(sqrt(WALK_COST * limit * sample.total)))
    if not visible:
        return Nearest([], "nothing visible")
    params = {**scope.params, "query": _as_text(vector), "limit": limit}
    if visible <= most or _names_documents(scope):
        found = _exact(scope, space, params, visible, few=visible <= most)
        return Nearest(found, "exact")
    found = _approximate(scope, space, params)
    if len(found) >= limit:
        return Nearest(found, "hnsw")
    return Nearest(_exact(scope, space, params, visible, few=False), "hnsw, then exact")


def _visible(scope: Scope, space: EmbeddingSpace, *, limit: int) -> tuple[int, int]:
    """How many vectors the scope may see, filters apart, and up to how many an exact scan pays.

    Counted up to one more than that. The total is that of the last ANALYZE, over all spaces: an
    order of magnitude is enough.
    """
    with connection.cursor() as cursor:
        cursor.execute(
            f"""
            WITH most AS MATERIALIZED (
                SELECT greatest(
                    {EXACT_AT_LEAST:d}, sqrt({WALK_COST} * {limit:d} * greatest(reltuples, 0))
                )::bigint AS vectors
                FROM pg_class WHERE oid = 'retrieval_embedding'::regclass
            )
            SELECT (SELECT count(*) FROM (
                SELECT FROM retrieval_embedding e
                WHERE e.space_id = {space.pk:d} AND {scope.seeking("e.collection_id")}
                LIMIT (SELECT vectors + 1 FROM most)
            ) few), vectors FROM most
            """,
            scope.params,
        )
        row: tuple[int, int] = cursor.fetchone()
        return row


def _names_documents(scope: Scope) -> bool:
    """Filters that name documents leave few chunks, which HNSW would walk far to find."""
    return "filter_document_ids" in scope.params


def _exact(
    scope: Scope, space: EmbeddingSpace, params: Params, visible: int, *, few: bool
) -> list[Ranked]:
    """Adding 0 keeps HNSW out: an index gives no order for a sum.

    ``few``: the reader's collections lead to the ``visible`` vectors, and up to ``FEW`` of them to
    the documents, of which there are no more; see ``Scope.current``.
    """
    distance = f"(e.vector::halfvec({space.dimension:d}) <=> {_query(space)}) + 0"
    seen = scope.seeking("e.collection_id") if few else scope.filtering("e.collection_id")
    if not scope.documents:
        # Looking up what is current costs more than comparing: only the nearest are looked up.
        near = params["limit"] + SPARE
        is_current = f"JOIN retrieval_chunk c ON c.id = near.chunk_id {scope.ranked}"
        if few and visible <= FEW:
            # OFFSET 0 makes it a lookup each, whatever the planner believes of their number.
            is_current = (
                "CROSS JOIN LATERAL (SELECT FROM retrieval_chunk c"
                f" WHERE c.id = near.chunk_id AND {scope.current} OFFSET 0) answers"
            )
        rows = _rows(
            f"""
            WITH near AS MATERIALIZED (
                SELECT e.chunk_id, {distance} AS distance FROM retrieval_embedding e
                WHERE {_within(space)} AND {seen} ORDER BY distance LIMIT {near:d}
            ), current AS MATERIALIZED (
                SELECT near.chunk_id, near.distance FROM near {is_current}
            )
            SELECT chunk_id, 1 - distance FROM current ORDER BY distance LIMIT %(limit)s
            """,
            params,
            server_cursor(),
        )
        if len(rows) == params["limit"] or visible <= near:
            return _ranked(rows)
    return _ranked(
        _rows(
            f"""
            WITH visible AS MATERIALIZED (
                SELECT e.chunk_id, {distance} AS distance FROM retrieval_embedding e
                JOIN retrieval_chunk c ON c.id = e.chunk_id {scope.ranked}
                WHERE {_within(space)} AND {seen}
            )
            SELECT chunk_id, 1 - distance FROM visible ORDER BY distance LIMIT %(limit)s
            """,
            params,
            server_cursor(),
        )
    )


def _approximate(scope: Scope, space: EmbeddingSpace, params: Params) -> list[Ranked]:
    """One message, which takes its settings back at its end: the exact statement that may follow
    would walk the same index again (amfs #421).

    A savepoint would too, but psycopg forgets all prepared statements of a connection that is
    rolled back, if only to a savepoint. OFFSET 0 keeps the planner from anything but looking up
    what is current for each vector it meets.
    """
    assert connection.in_atomic_block
    distance = f"e.vector::halfvec({space.dimension:d}) <=> {_query(space)}"
    before = "".join(f"SET LOCAL {name} = {value};" for name, value in WALK.items())
    after = "".join(f";SET LOCAL {name} TO DEFAULT" for name in WALK)
    return _ranked(
        _rows(
            f"""
            {before}
            SELECT e.chunk_id, 1 - ({distance}) FROM retrieval_embedding e
            CROSS JOIN LATERAL (
                SELECT FROM retrieval_chunk c {scope.ranked} WHERE c.id = e.chunk_id OFFSET 0
            ) current
            WHERE {_within(space)} AND {scope.filtering("e.collection_id")}
            ORDER BY {distance} LIMIT %(limit)s
            {after}
            """,
            params,
            connection.cursor(),
        )
    )


def _within(space: EmbeddingSpace) -> str:
    """Vectors of ``space``, and none of them once another one is searched."""
    return (
        f"e.space_id = {space.pk:d} AND EXISTS (SELECT FROM retrieval_embeddingspace s"
        f" WHERE s.id = {space.pk:d} AND s.is_active)"
    )


def _as_text(vector: Vectors) -> str:
    """As a literal of pgvector, which rounds it to what it compares."""
    numbers = np.ascontiguousarray(vector, dtype=np.float32)
    return orjson.dumps(numbers, option=orjson.OPT_SERIALIZE_NUMPY).decode()


def _query(space: EmbeddingSpace) -> str:
    return f"%(query)s::halfvec({space.dimension:d})"


def _rows(statements: str, params: Params, cursor: CursorWrapper) -> list[Any]:
    """The rows of the one statement among ``statements`` that returns any."""
    with cursor:
        cursor.execute(statements, params)
        while cursor.description is None:
            cursor.nextset()
        rows: list[Any] = cursor.fetchall()
        return rows


def _ranked(rows: list[Any]) -> list[Ranked]:
    return list(map(_make, rows))
