"""How one search came to its passages: filled in while it runs, shown to managers.

A trace holds only what the asking person may read: its chunks come from arms that were scoped, and
their titles and excerpts are loaded under the same scope.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from time import perf_counter
from typing import Literal
from uuid import UUID

from django.db import connection

from assistant.retrieval.scope import Scope
from assistant.retrieval.vector import Ranked

ArmName = Literal["vector", "keyword"]
Happening = Literal["collapsed", "capped", "joined", "over_budget"]

_EXCERPT_CHARACTERS = 240


@dataclass(frozen=True, slots=True)
class TracedChunk:
    """A chunk at its place of a ranking, from 1; ``score`` in the ranking's own unit."""

    chunk_id: int
    rank: int
    score: float


@dataclass(frozen=True, slots=True)
class ArmTrace:
    """What one arm found for one query.

    ``plan`` says how it was run, such as ``exact`` or ``hnsw``; scores are cosines or BM25.
    """

    name: ArmName
    query: str
    plan: str
    ranked: tuple[TracedChunk, ...]
    milliseconds: float


@dataclass(frozen=True, slots=True)
class FusionTrace:
    """How the arms of one query were weighted: ``weights`` sum to 1.

    ``evidence`` are the numbers that the weights follow from, ``reasons`` the same in words.
    """

    query: str
    weights: dict[ArmName, float]
    evidence: dict[str, float]
    reasons: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Decision:
    """Why a chunk is not a passage of its own: ``into`` is the chunk that stands for it."""

    chunk_id: int
    happening: Happening
    why: str
    into: int | None = None


@dataclass(frozen=True, slots=True)
class ChunkCard:
    """What a person needs to recognise a chunk."""

    document_id: UUID
    title: str
    heading_path: tuple[str, ...]
    page: int | None
    excerpt: str
    collection: str
    version: int
    char_start: int
    char_end: int


@dataclass(slots=True)
class Clock:
    """Where the time of one search goes: milliseconds by stage."""

    started: float = field(default_factory=perf_counter)
    timings: dict[str, float] = field(default_factory=dict)
    last: float = field(init=False)

    def __post_init__(self) -> None:
        self.last = self.started

    def lap(self, stage: str) -> float:
        """Milliseconds since the last lap, added to those of the stage."""
        took = (perf_counter() - self.last) * 1000
        self.add(stage, took)
        return took

    def add(self, stage: str, milliseconds: float) -> None:
        """A lap of which the stage took so much: other stages may have run meanwhile."""
        self.timings[stage] = round(self.timings.get(stage, 0.0) + milliseconds, 2)
        self.last = perf_counter()

    def stop(self) -> None:
        self.timings["total"] = round((perf_counter() - self.started) * 1000, 2)


@dataclass(slots=True)
class Trace:
    """One search from the question to the passages.

    Lists of chunks are kept only ``in_detail``: a thousand objects take milliseconds.
    ``queries`` are the texts searched for, the first the whole question. ``language`` is that of
    the question as ISO 639-1, ``languages`` the share of each language among the candidates.
    ``relevance`` is the calibrated probability that the best passage answers, ``chances`` the same
    for each chunk; ``reranked`` has the reranker's own scores and is empty without one. ``notes``
    are sentences for people, such as that the reranker did not answer. ``chunks`` describes every
    chunk that another field names; milliseconds by stage are in ``timings_ms``, of which the arms'
    overlap where they ran ``side_by_side``.
    """

    question: str
    in_detail: bool = False
    queries: tuple[str, ...] = ()
    language: str | None = None
    languages: dict[str, float] = field(default_factory=dict)
    arms: list[ArmTrace] = field(default_factory=list)
    fusions: list[FusionTrace] = field(default_factory=list)
    fused: tuple[TracedChunk, ...] = ()
    reranker: str = ""
    reranked: tuple[TracedChunk, ...] = ()
    decisions: list[Decision] = field(default_factory=list)
    chances: dict[int, float] = field(default_factory=dict)
    relevance: float = 0.0
    threshold: float = 0.0
    notes: list[str] = field(default_factory=list)
    chunks: dict[int, ChunkCard] = field(default_factory=dict)
    timings_ms: dict[str, float] = field(default_factory=dict)
    side_by_side: bool = False

    def ranks(self, ranked: Sequence[Ranked]) -> tuple[TracedChunk, ...]:
        """``ranked``, best first, as it is kept."""
        if not self.in_detail:
            return ()
        return tuple(
            TracedChunk(item.chunk_id, rank, item.score)
            for rank, item in enumerate(ranked, start=1)
        )

    def rank_in(self, arm: ArmName, chunk_id: int) -> TracedChunk | None:
        """The best place of a chunk in ``arm`` over all queries; None where it did not come."""
        places = [
            item
            for traced in self.arms
            if traced.name == arm
            for item in traced.ranked
            if item.chunk_id == chunk_id
        ]
        return min(places, key=lambda item: item.rank, default=None)

    def describe(self, *, scope: Scope) -> None:
        """Load the cards of the named chunks that ``scope`` covers."""
        named = {item.chunk_id for arm in self.arms for item in arm.ranked}
        named |= {item.chunk_id for item in self.fused}
        with connection.cursor() as cursor:
            cursor.execute(
                f"""
                SELECT c.id, d.id, d.title, c.heading_path, c.page,
                       left(c.text, {_EXCERPT_CHARACTERS}), col.name, v.number,
                       c.char_start, c.char_end
                FROM retrieval_chunk c {scope.live}
                JOIN documents_collection col ON col.id = c.collection_id
                WHERE c.id = ANY(%(named)s) AND {scope.on("c.collection_id")}
                """,
                {**scope.params, "named": list(named)},
            )
            self.chunks = {
                row[0]: ChunkCard(row[1], row[2], tuple(row[3]), *row[4:])
                for row in cursor.fetchall()
            }
