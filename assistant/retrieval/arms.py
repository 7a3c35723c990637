"""Both arms for every query of a search: side by side where that helps, else one after the other.

Over many chunks each arm keeps a processor of the database busy for a while, and neither needs what
the other finds. Where few are visible, a second connection costs more than it saves; and where more
searches are at it, they need the connections and processors themselves.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial
from time import perf_counter
from typing import Final, Literal

from assistant.database import beside
from assistant.retrieval import keyword, languages, spaces, statistics, vector
from assistant.retrieval.fusion import Arms
from assistant.retrieval.models import EmbeddingSpace
from assistant.retrieval.scope import Scope
from assistant.retrieval.statistics import Sample
from assistant.retrieval.tracing import ArmName, ArmTrace, Clock, Trace
from inference.types import Vectors

Mode = Literal["hybrid", "vector", "keyword"]

# Candidates that each arm hands to the fusion.
ARM_DEPTH: Final = 200
# From so many visible chunks on, the arms are asked side by side.
BESIDE_FROM: Final = 500
ARMS: Final[dict[Mode, frozenset[ArmName]]] = {
    "hybrid": frozenset({"vector", "keyword"}),
    "vector": frozenset({"vector"}),
    "keyword": frozenset({"keyword"}),
}


@dataclass(frozen=True, slots=True)
class Embedded:
    """The vectors of the queries in a space; None without one. ``floor`` as in ``Arms``."""

    space: EmbeddingSpace | None = None
    vectors: Vectors | None = None
    floor: float = 0.0


class SpaceSwitched(Exception):
    """Another model's vectors are searched since the queries were embedded."""


# What the vector arm found for each query, and in how many milliseconds.
_Nearest = list[tuple[vector.Nearest, float]]


def ask(
    queries: Sequence[str],
    embedded: Embedded,
    *,
    scope: Scope,
    mode: Mode,
    limit: int,
    clock: Clock,
    trace: Trace,
    may_be_beside: bool = False,
) -> list[Arms]:
    """What the arms of ``mode`` bring for each query, at least ``limit`` where so many are visible.

    ``may_be_beside``: the transaction is a ``snapshot()`` of its own, and there is time for it.

    Raises SpaceSwitched.
    """
    if mode != "keyword" and embedded.space is None and spaces.active() is not None:
        raise SpaceSwitched
    asked = ARMS[mode] if embedded.vectors is not None else ARMS[mode] - {"vector"}
    depth = max(ARM_DEPTH, limit)
    sample = statistics.draw(scope) if "keyword" in asked else None
    find_nearest = partial(_nearest, embedded, scope=scope, limit=depth, sample=sample)
    running: Future[_Nearest] | None = None
    if may_be_beside and "vector" in asked and sample and sample.held >= BESIDE_FROM:
        running = beside(find_nearest)
        trace.side_by_side = running is not None
    found = [Arms(floor=embedded.floor) for _ in queries]
    if sample is not None:
        for arms, query in zip(found, queries, strict=True):
            arms.keyword = keyword.best_matches(query, scope=scope, limit=depth, sample=sample)
            ranks, took = trace.ranks(arms.keyword.ranked), clock.lap("keyword")
            trace.arms.append(ArmTrace("keyword", query, "bm25", ranks, took))
    if "vector" in asked:
        nearest = running.result() if running else find_nearest()
        clock.add("vector", sum(took for _, took in nearest))
        known = languages.known_to(embedded.space) if embedded.space else None
        for arms, query, (near, took) in zip(found, queries, nearest, strict=True):
            arms.vector = near.ranked
            arms.coverage = languages.coverage(known, trace.language, query)
            trace.arms.append(ArmTrace("vector", query, near.plan, trace.ranks(near.ranked), took))
    return found


def _nearest(embedded: Embedded, *, scope: Scope, limit: int, sample: Sample | None) -> _Nearest:
    assert embedded.space is not None and embedded.vectors is not None
    found: _Nearest = []
    started = perf_counter()
    for query in embedded.vectors:
        near = vector.nearest(query, scope=scope, space=embedded.space, limit=limit, sample=sample)
        # Asked only now: a space that is searched no more has nothing near.
        if not near.ranked and spaces.active() not in {embedded.space, None}:
            raise SpaceSwitched
        found.append((near, (perf_counter() - started) * 1000))
        started = perf_counter()
    return found
