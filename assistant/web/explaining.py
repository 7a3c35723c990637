"""One search as the page for managers shows it: bars, weights, and a row for each candidate."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from urllib.parse import urlencode

from django.urls import reverse
from django.utils.translation import get_language_info

from assistant.retrieval import SearchResult
from assistant.retrieval.languages import Advice
from assistant.retrieval.passages import Passage
from assistant.retrieval.tracing import ChunkCard, Decision, Trace, TracedChunk

ROWS = 40
_STAGES = {
    "embed": "Embed the question",
    "wait": "Wait for a turn",
    "vector": "Vector arm",
    "keyword": "Keyword arm",
    "fuse": "Fuse",
    "scope": "Read the rights",
    "load": "Load the texts",
    "rerank": "Rerank",
    "diversity": "Drop duplicates",
    "fit": "Fit the budget",
}
_HAPPENINGS = {
    "collapsed": "Near-duplicate",
    "capped": "Enough of this document",
    "joined": "Joined",
    "over_budget": "Over the budget",
}


@dataclass(frozen=True, slots=True)
class Bar:
    """``share`` of the whole and ``start`` on it, in percent."""

    words: str
    milliseconds: float
    start: float
    share: float


@dataclass(frozen=True, slots=True)
class Weight:
    words: str
    share: float


@dataclass(frozen=True, slots=True)
class Row:
    """A candidate. ``place`` is that of its passage, None where it became none."""

    place: int | None
    chunk: ChunkCard
    url: str
    vector: TracedChunk | None
    keyword: TracedChunk | None
    fused: TracedChunk | None
    reranked: TracedChunk | None
    chance: float | None
    outcome: str
    why: str


@dataclass(frozen=True, slots=True)
class Explained:
    """Percentages are from 0 to 100."""

    trace: Trace
    bars: list[Bar]
    total: float
    weights: list[Weight]
    rows: list[Row]
    relevance: float
    threshold: float

    @property
    def abstains(self) -> bool:
        return self.relevance < self.threshold


@dataclass(frozen=True, slots=True)
class Spoken:
    """A language of the index; ``is_foreign``: the embedding model was not trained for it."""

    words: str
    chunks: int
    share: float
    is_foreign: bool


def spoken(advice: Advice) -> list[Spoken]:
    """Most chunks first."""
    total = sum(advice.chunks.values()) or 1
    return [
        Spoken(_language(code), count, 100 * count / total, code in advice.languages)
        for code, count in advice.chunks.items()
    ]


def _language(code: str) -> str:
    if not code:
        return "Not sure"
    try:
        return str(get_language_info(code)["name"])
    except KeyError:
        return code


def explain(result: SearchResult) -> Explained:
    """Takes a result with a trace."""
    trace = result.trace
    assert trace is not None
    total = trace.timings_ms.get("total", 0.0)
    return Explained(
        trace=trace,
        bars=list(_bars(trace.timings_ms, total, side_by_side=trace.side_by_side)),
        total=total,
        weights=list(_weights(trace)),
        rows=list(_rows(trace, result.passages)),
        relevance=100 * trace.relevance,
        threshold=100 * trace.threshold,
    )


def _bars(timings: dict[str, float], total: float, *, side_by_side: bool) -> Iterator[Bar]:
    """Each begins where the one before ends; ``side_by_side``, the arms begin together."""
    begin = end = 0.0
    for stage, milliseconds in timings.items():
        if stage == "total" or not total:
            continue
        if not (side_by_side and stage == "vector"):
            begin = end
        share = min(100 * milliseconds / total, 100 - begin)
        yield Bar(_STAGES.get(stage, stage.capitalize()), milliseconds, begin, share)
        end = max(end, begin + share)


def _weights(trace: Trace) -> Iterator[Weight]:
    """Of the whole question, which is the first query."""
    if trace.fusions:
        for name, share in trace.fusions[0].weights.items():
            yield Weight(f"{name.capitalize()} arm", 100 * share)


def _rows(trace: Trace, passages: Sequence[Passage]) -> Iterator[Row]:
    decided = {decision.chunk_id: decision for decision in trace.decisions}
    reranked = {item.chunk_id: item for item in trace.reranked}
    fused = {item.chunk_id: item for item in trace.fused}
    order = list(dict.fromkeys([*reranked, *fused]))
    places = {
        chunk_id: place
        for place, passage in enumerate(passages, start=1)
        for chunk_id in passage.chunk_ids
    }
    for chunk_id in order[:ROWS]:
        chunk = trace.chunks.get(chunk_id)
        if chunk is None:  # no longer readable since it was ranked
            continue
        decision = decided.get(chunk_id)
        place = places.get(chunk_id)
        yield Row(
            place=place,
            chunk=chunk,
            url=_url(chunk),
            vector=trace.rank_in("vector", chunk_id),
            keyword=trace.rank_in("keyword", chunk_id),
            fused=fused.get(chunk_id),
            reranked=reranked.get(chunk_id),
            chance=100 * trace.chances[chunk_id] if chunk_id in trace.chances else None,
            outcome=_outcome(decision, place),
            why=decision.why if decision else "",
        )


def _outcome(decision: Decision | None, place: int | None) -> str:
    if decision is not None:
        return _HAPPENINGS[decision.happening]
    return "Passage" if place else "Below the cut"


def _url(chunk: ChunkCard) -> str:
    place = {"v": chunk.version, "start": chunk.char_start, "end": chunk.char_end}
    return f"{reverse('document', args=[chunk.document_id])}?{urlencode(place)}#passage"
