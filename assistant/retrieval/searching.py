"""``search()``: question in, passages out, under the reader's rights of this moment."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from time import perf_counter
from typing import Any, Literal
from uuid import UUID

from assistant import engines
from assistant.database import in_database, release_connection, snapshot
from assistant.permissions.policy import AnyUser
from assistant.retrieval import keyword, passages, spaces, vector
from assistant.retrieval.fusion import fuse
from assistant.retrieval.models import EmbeddingSpace
from assistant.retrieval.passages import Passage
from assistant.retrieval.scope import Scope, scope_of
from inference.types import Vectors

Mode = Literal["hybrid", "vector", "keyword"]

# Candidates that each arm hands to the fusion.
ARM_DEPTH = 200


@dataclass(frozen=True, slots=True)
class SearchResult:
    """Passages, best first, and where the time went (milliseconds by stage)."""

    passages: list[Passage]
    timings_ms: dict[str, float]


@dataclass(frozen=True, slots=True)
class _Wanted:
    query: str
    user: AnyUser
    collections: Sequence[UUID] | None
    limit: int
    mode: Mode
    filters: Mapping[str, Any] | None
    rerank: bool
    budget: int | None
    started: float = field(default_factory=perf_counter)


@dataclass(slots=True)
class _Clock:
    started: float
    timings: dict[str, float]

    def lap(self, stage: str) -> None:
        now = perf_counter()
        self.timings[stage] = round((now - self.started) * 1000, 2)
        self.started = now


def search(
    query: str,
    *,
    user: AnyUser,
    collections: Sequence[UUID] | None = None,
    limit: int = 10,
    mode: Mode = "hybrid",
    filters: Mapping[str, Any] | None = None,
    rerank: bool = True,
    budget: int | None = None,
) -> SearchResult:
    """The passages that ``user`` may read and that answer ``query`` best.

    With ``budget`` (tokens) neighbouring passages are joined and the list is cut to fit a prompt.
    No database connection is held while the query is embedded.

    Raises Collection.DoesNotExist when one of ``collections`` is absent or hidden, ValidationError
    for a bad filter, EngineError when the query cannot be embedded.
    """
    wanted = _Wanted(query, user, collections, limit, mode, filters, rerank, budget)
    while True:
        space = None if mode == "keyword" else spaces.active()
        vectors = None
        if space is not None:
            release_connection()
            vectors = spaces.embedder_of(space).embed([query], kind="query")
        try:
            return _ranked(wanted, space, vectors)
        except _SpaceSwitched:
            continue


async def asearch(
    query: str,
    *,
    user: AnyUser,
    collections: Sequence[UUID] | None = None,
    limit: int = 10,
    mode: Mode = "hybrid",
    filters: Mapping[str, Any] | None = None,
    rerank: bool = True,
    budget: int | None = None,
) -> SearchResult:
    """``search`` for async callers: no thread is held while the query is embedded."""
    wanted = _Wanted(query, user, collections, limit, mode, filters, rerank, budget)
    while True:
        space = None if mode == "keyword" else await in_database(spaces.active)()
        vectors = None
        if space is not None:
            vectors = await spaces.embedder_of(space).aembed([query], kind="query")
        try:
            return await in_database(_ranked)(wanted, space, vectors)
        except _SpaceSwitched:
            continue


class _SpaceSwitched(Exception):
    """Another model's vectors are searched since the question was embedded."""


def _ranked(wanted: _Wanted, space: EmbeddingSpace | None, vectors: Vectors | None) -> SearchResult:
    clock = _Clock(wanted.started, {})
    clock.lap("embed")
    limit = wanted.limit
    reranker = engines.reranker() if wanted.rerank and wanted.mode == "hybrid" else None
    # One moment for both arms and the texts: a version that is switched in between would else be
    # found by neither.
    with snapshot():
        if wanted.mode != "keyword" and (now := spaces.active()) != space and now is not None:
            raise _SpaceSwitched
        scope = scope_of(wanted.user, collections=wanted.collections, filters=wanted.filters)
        by_vector, by_keyword = [], []
        depth = max(ARM_DEPTH, limit)
        if vectors is not None and space is not None:
            by_vector = _vector_arm(vectors, scope, space, depth)
            clock.lap("vector")
        if wanted.mode != "vector":
            by_keyword = keyword.best_matches(wanted.query, scope=scope, limit=depth)
            clock.lap("keyword")
        ranking = fuse(by_vector, by_keyword)
        found = passages.load(ranking[: max(limit, 40) if reranker else limit], scope=scope)
        clock.lap("load")
    if reranker is not None and found:
        release_connection()
        scores = reranker.rerank(wanted.query, [passage.text for passage in found])
        found = [
            replace(passage, score=score)
            for passage, score in sorted(zip(found, scores, strict=True), key=lambda pair: -pair[1])
        ]
        clock.lap("rerank")
    found = found[:limit]
    if wanted.budget is not None:
        found = passages.fit(found, budget=wanted.budget)
        clock.lap("fit")
    clock.timings["total"] = round((perf_counter() - wanted.started) * 1000, 2)
    return SearchResult(found, clock.timings)


def _vector_arm(
    vectors: Vectors, scope: Scope, space: EmbeddingSpace, depth: int
) -> list[vector.Ranked]:
    visible = vector.visible_vectors(scope, space=space)
    if not visible:
        return []
    return vector.nearest(vectors[0], scope=scope, space=space, limit=depth, visible=visible)
