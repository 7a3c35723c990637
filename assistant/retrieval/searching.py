"""``search()``: question in, passages out, under the reader's rights of this moment.

Three steps, because no database connection may be held while a model works: the arms are asked and
fused in one snapshot (``_retrieved``), a reranker may look at the texts, and what is left is made
into a list without twins, fitted to a budget and given its chances (``_finished``).
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from itertools import chain, repeat
from math import inf
from typing import Any
from uuid import UUID

from assistant import engines
from assistant.database import in_database, release_connection, snapshot
from assistant.permissions.policy import AnyUser
from assistant.retrieval import (
    calibration,
    diversity,
    passages,
    reranking,
    similarity,
    spaces,
    together,
)
from assistant.retrieval.analysis import detect_language
from assistant.retrieval.arms import ARM_DEPTH, ARMS, Embedded, Mode, SpaceSwitched, ask
from assistant.retrieval.calibration import Calibrated, CurveName, Evidence
from assistant.retrieval.fusion import Arms, merge
from assistant.retrieval.models import Chunk, EmbeddingSpace
from assistant.retrieval.passages import Passage
from assistant.retrieval.row_security import reading_as
from assistant.retrieval.scope import Scope, scope_of
from assistant.retrieval.splitting import parts_of
from assistant.retrieval.tracing import Clock, FusionTrace, Trace, TracedChunk
from assistant.retrieval.vector import Ranked
from inference.types import EngineError, Reranker

# Candidates that a reranker looks at.
RERANK_DEPTH = 40
# Candidates beyond those wanted, for what near-duplicates leave empty.
SPARE = 20
# Of those, so many are compared with others for what a budget or a document's share leaves out.
MARGIN = 5
# Of those, so many texts are loaded at first where nothing but twins can leave a place empty. Texts
# whose scores lie closer than this often are twins, and count once.
AT_FIRST = 3
ALIKE = 0.001


@dataclass(frozen=True, slots=True)
class SearchResult:
    """Passages, best first, and where the time went (milliseconds by stage).

    ``relevance`` is the probability that the best passage answers, 0 without one; below
    ``threshold`` an answer is not worth giving. ``trace`` is there when it was asked for.
    """

    passages: list[Passage]
    timings_ms: dict[str, float]
    relevance: float = 0.0
    threshold: float = 0.0
    trace: Trace | None = None


@dataclass(frozen=True, slots=True)
class _Wanted:
    """``queries`` are the texts to search for, the whole question first."""

    queries: tuple[str, ...]
    user: AnyUser
    collections: Sequence[UUID] | None
    limit: int
    mode: Mode
    filters: Mapping[str, Any] | None
    rerank: bool
    budget: int | None
    explain: bool
    private: UUID | None = None
    clock: Clock = field(default_factory=Clock)

    @property
    def reranker(self) -> Reranker | None:
        return engines.reranker() if self.rerank and self.mode == "hybrid" else None


@dataclass(slots=True)
class _Retrieved:
    """``found`` are the best candidates, each with the score of the fusion; ``later`` come after
    them and are not loaded yet. ``evidence`` is that of each query."""

    clock: Clock
    trace: Trace
    scope: Scope
    found: list[Passage]
    later: list[Ranked]
    neighbours: list[Passage]
    evidence: list[Evidence]
    calibrated: Calibrated

    def texts_to_rerank(self) -> list[str]:
        return [passage.text for passage in self.found[:RERANK_DEPTH]]


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
    explain: bool = False,
) -> SearchResult:
    """The passages that ``user`` may read and that answer ``query`` best.

    With ``budget`` (tokens) neighbouring passages are joined and the list is cut to fit a prompt.
    A compound question is split. With ``explain`` the result has a trace. No database connection is
    held while the query is embedded or the passages are reranked.

    Raises Collection.DoesNotExist when one of ``collections`` is absent or hidden, ValidationError
    for a bad filter, EngineError when the query cannot be embedded.
    """
    queries = _queries(query)
    wanted = _Wanted(queries, user, collections, limit, mode, filters, rerank, budget, explain)
    while True:
        asked = Embedded()
        if mode != "keyword":
            asked = _asked(wanted, spaces.last_seen())
        wanted.clock.lap("embed")
        try:
            found = _found(wanted, asked)
        except SpaceSwitched:
            continue
        if isinstance(found, SearchResult):
            return found
        reranker, retrieved = found
        texts = retrieved.texts_to_rerank()
        _reordered(retrieved, reranker, reranking.rerank(reranker, query, texts))
        return _finished(wanted, retrieved)


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
    explain: bool = False,
    private: UUID | None = None,
) -> SearchResult:
    """``search`` for async callers: no thread is held while a model works.

    ``private`` is a collection that is private to ``user``, to be searched instead of all others.
    """
    queries = _queries(query)
    wanted = _Wanted(
        queries, user, collections, limit, mode, filters, rerank, budget, explain, private
    )
    line = together.line()
    while True:
        asked = Embedded() if mode == "keyword" else await _aasked(wanted, line)
        wanted.clock.lap("embed")
        try:
            async with line.turn() as is_alone:
                wanted.clock.lap("wait")
                found = await _afound(wanted, asked, is_alone=is_alone)
        except SpaceSwitched:
            continue
        if isinstance(found, SearchResult):
            return found
        reranker, retrieved = found
        texts = retrieved.texts_to_rerank()
        _reordered(retrieved, reranker, await reranking.arerank(reranker, query, texts))
        # Comparing texts and counting tokens would hold up everybody's streams.
        return await asyncio.to_thread(_finished, wanted, retrieved)


def _queries(query: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys((query, *parts_of(query))))


def _asked(wanted: _Wanted, space: EmbeddingSpace | None) -> Embedded:
    """For ``space``, or the one that is searched by now when its model is gone."""
    while space is not None:
        release_connection()
        embedder = spaces.embedder_of(space)
        try:
            vectors = embedder.embed(wanted.queries, kind="query")
            floor = similarity.floor_of(space.pk, embedder)
        except EngineError:
            # The server of a model that is searched no more may be gone.
            if spaces.asks_alike(now := spaces.active(), space):
                raise
            space = now
            continue
        return Embedded(space, vectors, floor)
    return Embedded()


async def _aasked(wanted: _Wanted, line: together.Line) -> Embedded:
    """For the space that was searched last: the search itself says when that is another one."""
    space = await spaces.alast_seen()
    while space is not None:
        embedder = spaces.embedder_of(space)
        try:
            vectors = await line.embed(embedder, wanted.queries)
            floor = await similarity.afloor_of(space.pk, embedder)
        except EngineError:
            # As in ``_asked``.
            if spaces.asks_alike(now := await in_database(spaces.active)(), space):
                raise
            space = now
            continue
        return Embedded(space, vectors, floor)
    return Embedded()


def _found(
    wanted: _Wanted, asked: Embedded, *, is_alone: bool = True
) -> SearchResult | tuple[Reranker, _Retrieved]:
    """The result; or, where a reranker is to be asked first, that and what it is asked about.

    ``is_alone``: no other search is in the database. No connection is held when it returns. Raises
    SpaceSwitched.
    """
    retrieved = _retrieved(wanted, asked, is_alone=is_alone)
    release_connection()
    reranker = _asked_reranker(wanted, retrieved)
    return _finished(wanted, retrieved) if reranker is None else (reranker, retrieved)


_afound = in_database(_found)


def _retrieved(wanted: _Wanted, asked: Embedded, *, is_alone: bool) -> _Retrieved:
    """Both arms for every query, fused, with the texts of the best. Raises SpaceSwitched."""
    clock = wanted.clock
    trace = Trace(wanted.queries[0], in_detail=wanted.explain, queries=wanted.queries)
    trace.language = detect_language(wanted.queries[0])
    reranker = wanted.reranker
    at_first = most = max(wanted.limit + SPARE, RERANK_DEPTH if reranker else 0)
    # One moment for both arms and the texts: a version that is switched in between would else be
    # found by neither.
    with snapshot() as is_own:
        scope = scope_of(
            wanted.user,
            collections=wanted.collections,
            filters=wanted.filters,
            private=wanted.private,
        )
        calibrated = calibration.current(asked.space, reranker.model if reranker else "")
        clock.lap("scope")
        found = ask(
            wanted.queries,
            asked,
            scope=scope,
            mode=wanted.mode,
            limit=wanted.limit,
            clock=clock,
            trace=trace,
            may_be_beside=is_own and is_alone,
        )
        fused = [each.fused(ARMS[wanted.mode]) for each in found]
        trace.fusions = [
            FusionTrace(query, each.weights, each.evidence, each.reasons)
            for query, each in zip(wanted.queries, fused, strict=True)
        ]
        ranking = merge([each.ranking for each in fused])
        trace.fused = trace.ranks(ranking)
        if reranker is None and wanted.budget is None and not wanted.explain:
            at_first = _reach(ranking[:most], wanted.limit + AT_FIRST)
        clock.lap("fuse")
        # Every text is read under row-level security, whatever the scope says.
        with reading_as(wanted.user, to_the_end=is_own):
            passages_found = passages.load(ranking[:at_first], scope=scope)
            neighbours = []
            if wanted.budget is not None:
                neighbours = passages.load_neighbours(passages_found, scope=scope)
            clock.lap("load")
            if wanted.explain:
                trace.describe(scope=scope)
    return _Retrieved(
        clock,
        trace,
        scope,
        passages_found,
        ranking[at_first:most],
        neighbours,
        [each.as_evidence() for each in fused],
        calibrated,
    )


def _reach(ranking: Sequence[Ranked], wanted: int) -> int:
    """How many of ``ranking`` it takes for ``wanted`` texts, those of nearly one score as one."""
    different, last = 0, inf
    for at, (_, score) in enumerate(ranking):
        if last - score > ALIKE:
            if different == wanted:
                return at
            different += 1
        last = score
    return len(ranking)


def arms(query: str, *, user: AnyUser, collections: Sequence[UUID]) -> tuple[Arms, dict[int, str]]:
    """What both arms bring for one query, and the external id of each chunk's document.

    For ``learning``, which fuses the same candidates again without those that answer.
    """
    wanted = _Wanted((query,), user, collections, ARM_DEPTH, "hybrid", None, False, None, False)
    while True:
        asked = _asked(wanted, spaces.active())
        trace = Trace(query, language=detect_language(query))
        with suppress(SpaceSwitched), snapshot():
            scope = scope_of(user, collections=collections)
            (found,) = ask(
                wanted.queries,
                asked,
                scope=scope,
                mode=wanted.mode,
                limit=wanted.limit,
                clock=wanted.clock,
                trace=trace,
            )
            ids = {item.chunk_id for item in (*found.vector, *found.keyword.ranked)}
            documents = Chunk.objects.filter(pk__in=ids).values_list("pk", "document__external_id")
            return found, {chunk: document or "" for chunk, document in documents}


def _asked_reranker(wanted: _Wanted, retrieved: _Retrieved) -> Reranker | None:
    if not retrieved.found or (reranker := wanted.reranker) is None:
        return None
    if not retrieved.calibrated.has_use_for_reranker:
        retrieved.trace.notes.append(reranking.USELESS)
        return None
    return reranker


def _reordered(retrieved: _Retrieved, reranker: Reranker, reranked: reranking.Reranked) -> None:
    """Let the reranker's scores count where there are any; see ``calibration``."""
    trace = retrieved.trace
    trace.reranker = reranker.model
    retrieved.clock.lap("rerank")
    if reranked.scores is None:
        trace.notes.append(reranked.note)
        return
    scores, found = reranked.scores, retrieved.found
    rest = found[len(scores) :]
    own = sorted(range(len(scores)), key=lambda at: -scores[at])
    ranks = {at: rank for rank, at in enumerate(own, start=1)}
    chances = _chances(retrieved, "reranked", scores)
    order = sorted(own, key=lambda at: (-chances[at], at))
    trace.reranked = tuple(
        TracedChunk(found[at].chunk_ids[0], ranks[at], scores[at]) for at in order
    )
    retrieved.found = [*(found[at] for at in order), *rest]


def _finished(wanted: _Wanted, retrieved: _Retrieved) -> SearchResult:
    """Chances instead of scores, twins last or gone, at most ``limit``, within the budget."""
    clock, trace, calibrated = retrieved.clock, retrieved.trace, retrieved.calibrated
    places = wanted.limit if wanted.budget is None else wanted.limit + MARGIN
    found, twins, trace.decisions = diversity.collapse(retrieved.found, wanted=places)
    if len(found) < places and retrieved.later:
        _load_later(wanted, retrieved)
        found, twins, trace.decisions = diversity.collapse(retrieved.found, wanted=places)
    trace.chances = _falling_chances(wanted, retrieved)
    clock.lap("diversity")
    relevance = _relevance(wanted, retrieved) if found else 0.0
    if wanted.budget is None:
        found = _with_chances(found[: wanted.limit], trace.chances)
        # Better the same again than fewer than were asked for, or could be seen.
        lowest = found[-1].score if found else 0.0
        twins = _with_chances(twins[: wanted.limit - len(found)], trace.chances)
        found += [replace(twin, score=min(twin.score, lowest)) for twin in twins]
    else:
        found, decisions = passages.fit(
            _with_chances(found, trace.chances),
            limit=wanted.limit,
            budget=wanted.budget,
            neighbours=retrieved.neighbours,
        )
        trace.decisions += decisions
        clock.lap("fit")
    clock.stop()
    trace.timings_ms = clock.timings
    trace.relevance, trace.threshold = relevance, calibrated.threshold
    return SearchResult(
        found,
        clock.timings,
        relevance,
        calibrated.threshold,
        trace if wanted.explain else None,
    )


def _load_later(wanted: _Wanted, retrieved: _Retrieved) -> None:
    """Add the texts of the candidates that were left for later, as far as they may be seen now."""
    with snapshot() as is_own, reading_as(wanted.user, to_the_end=is_own):
        retrieved.found += passages.load(retrieved.later, scope=retrieved.scope)
    release_connection()
    retrieved.later = []


def _relevance(wanted: _Wanted, retrieved: _Retrieved) -> float:
    """The chance that the best passage answers the question, or one of the questions in it."""
    if retrieved.trace.reranked:
        relevance = max(retrieved.trace.chances.values())
    else:
        curve = retrieved.calibrated.curve(wanted.mode)
        chances = [curve.chance(part.scores[0], part) for part in retrieved.evidence if part.scores]
        relevance = max(chances, default=0.0)
    # Who quotes words wants to see the texts that have them, however little else agrees.
    is_quoted = any(part.quoted for part in retrieved.evidence)
    return max(relevance, retrieved.calibrated.threshold) if is_quoted else relevance


def _falling_chances(wanted: _Wanted, retrieved: _Retrieved) -> dict[int, float]:
    """Of each candidate, by its chunk; they fall in the order of the candidates."""
    reranked = [item.score for item in retrieved.trace.reranked]
    name: CurveName = "reranked" if reranked else wanted.mode
    chances = calibration.falling(_chances(retrieved, name, reranked))
    return {
        passage.chunk_ids[0]: chance
        for passage, chance in zip(retrieved.found, chances, strict=True)
    }


def _with_chances(found: Sequence[Passage], chances: Mapping[int, float]) -> list[Passage]:
    return [replace(passage, score=chances[passage.chunk_ids[0]]) for passage in found]


def _chances(retrieved: _Retrieved, name: CurveName, reranked: Sequence[float]) -> list[float]:
    """Of the candidates, in their order; ``reranked`` are the scores of the first of them."""
    curve = retrieved.calibrated.curve(name)
    evidence = max(retrieved.evidence, key=lambda part: part.scores[0] if part.scores else 0.0)
    odds = chain(calibration.log_odds(reranked), repeat(0.0))
    return [
        curve.chance(passage.score, evidence, each)
        for passage, each in zip(retrieved.found, odds, strict=False)
    ]
