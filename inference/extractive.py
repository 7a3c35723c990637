"""The engine used when no language model is connected: it quotes the sentences that answer.

Each candidate sentence is scored by the cosine of its embedding with the question, by the share of
the question's rare words that it and its passage hold, and by whether it has what is asked for (a
time, a number, a name). The best few are quoted verbatim, each followed by its source number; of a
question in several parts those of each part. Below a measured score the engine abstains instead.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import AsyncGenerator, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from inference.asked_for import holds, kind_of, parts_of
from inference.prompts import NO_ANSWER
from inference.sentences import Kind, Piece, split
from inference.types import (
    Embedder,
    EmbeddingSpec,
    EngineHealth,
    Finished,
    GenerationRequest,
    LLMEvent,
    SourceText,
    TextDelta,
    Thinking,
    Vectors,
)

Scores = np.ndarray[tuple[int], np.dtype[np.float64]]

NOTICE: Final = (
    "No language model is connected: this answer quotes the most relevant sentences word for "
    "word. An administrator can connect one by setting LLM_BASE_URL."
)

# Chosen on XQuAD (en): see benchmarks/abstention.py for the measurement.
COSINE_WEIGHT: Final = 0.6
TERM_WEIGHT: Final = 0.3
RANK_WEIGHT: Final = 0.05
PASSAGE_WEIGHT: Final = 0.3
# What a sentence loses that has no time, number or name where one is asked for.
KIND_PENALTY: Final = 0.05
ABSTAIN_BELOW: Final = 0.6
_KEEP_FROM_BEST: Final = 0.8
_MAX_QUOTES: Final = 3
# Of each part of a question in several parts, chosen likewise.
_MAX_QUOTES_OF_PART: Final = 2
_KEEP_FROM_BEST_OF_PART: Final = 0.9
_MAX_CANDIDATES: Final = 160
_MAX_LIST_CHARACTERS: Final = 900
_LONGEST_LABEL: Final = 60
_SAME_WORDS: Final = 0.6

_QUESTION_MARKS: Final = ("?", "？", "؟")
_CLOSING: Final = "\"'”’»)]*_」』）"
_WORD: Final = re.compile(r"[^\W_]+(?:['’][^\W_]+)?")
_UNSPACED: Final = re.compile(r"[\u0e00-\u0eff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff]+")
_STOPWORDS_TEXT: Final = (
    "a an and are as at be been by can did do does for from had has have how i if in is it its "
    "many may me much my of on or our shall should so that the their them there these they this "
    "to was we were what when where which who whom whose why will with would you your "
    "der die das den dem des ein eine einen einem einer und oder ist sind war wie was wer wo wann "
    "warum welche welcher welches im in am zu zum zur von vom mit für auf an bei nach aus"
)
_STOPWORDS: Final = frozenset(_STOPWORDS_TEXT.split())


@dataclass(frozen=True, slots=True)
class Candidate:
    """One piece of one source. ``rank`` is the source's place in the list, from 0.

    ``heading`` is the line that it stands under, or the question right before it, which it
    answers: then a quote begins at ``start``, with the question.
    """

    source: SourceText
    rank: int
    piece: Piece
    start: int
    heading: str = ""

    @property
    def text(self) -> str:
        return self.source.text[self.piece.start : self.piece.end]


@dataclass(frozen=True, slots=True)
class Quote:
    """``text`` is a verbatim part of source ``number``; ``score`` is between 0 and about 1."""

    number: int
    text: str
    score: float


def terms(text: str) -> list[str]:
    """Content words, cut to a stem-like prefix; character pairs for scripts without spaces."""
    found: list[str] = []
    for match in _WORD.finditer(text.lower()):
        word = match.group()
        if _UNSPACED.match(word):
            found += [word[at : at + 2] for at in range(max(1, len(word) - 1))]
        elif word not in _STOPWORDS:
            found.append(_stem(word))
    return found


def _stem(word: str) -> str:
    for ending in ("'s", "’s", "ing", "ies", "ed", "es", "s", "e"):
        if word.endswith(ending) and len(word) - len(ending) >= 3:
            return word[: -len(ending)][:8]
    return word[:8]


def cosine_floor_of(spec: EmbeddingSpec) -> float:
    """About the cosine of unrelated texts under a model."""
    # The e5 family was trained at temperature 0.01: its cosines lie between 0.7 and 1.
    return 0.7 if "e5" in spec.model.lower() else 0.0


def candidates(sources: Sequence[SourceText]) -> list[Candidate]:
    """Quotable pieces of the sources in their order, the first ``_MAX_CANDIDATES``."""
    found: list[Candidate] = []
    for rank, source in enumerate(sources):
        found += _candidates(source, rank)
        if len(found) >= _MAX_CANDIDATES:
            break
    return found[:_MAX_CANDIDATES]


def _candidates(source: SourceText, rank: int) -> Iterator[Candidate]:
    """Headings and questions name what is said below them and say nothing themselves; nor does a
    label ("Expenses:") without its list."""
    heading = ""
    asked: Piece | None = None
    pieces = split(source.text)
    for piece, following in zip(pieces, [*pieces[1:], None], strict=True):
        text = source.text[piece.start : piece.end]
        is_question = text.rstrip(_CLOSING).endswith(_QUESTION_MARKS)
        is_label = len(text) <= _LONGEST_LABEL and _leads_in(text)
        names = piece.kind is Kind.HEADING or (
            is_label and (following is None or following.kind is not Kind.ITEM)
        )
        if names:
            heading = text
        if names or is_question:
            asked = piece if is_question else None
        elif len(text) >= 3 and any(c.isalnum() for c in text):
            above = source.text[asked.start : asked.end] if asked else heading
            yield Candidate(source, rank, piece, asked.start if asked else piece.start, above)
            asked = None


def _passage_scores(question: str, found: Sequence[Candidate]) -> list[float]:
    """For each candidate, the share of the question's rare words that its whole source holds.

    A near miss has the words of the question scattered over several sources.
    """
    sources = {candidate.rank: candidate.source for candidate in found}
    whole = [
        Candidate(source, rank, Piece(0, len(source.text), Kind.SENTENCE, 0), 0)
        for rank, source in sources.items()
    ]
    shares = dict(zip(sources, _term_scores(question, whole), strict=True))
    return [shares[candidate.rank] for candidate in found]


def _term_scores(question: str, found: Sequence[Candidate]) -> list[float]:
    """Share of the question's words, by rarity among the candidates, that each one holds.

    A word of the title or the headings counts half: it says what the passage is about.
    """
    wanted = set(terms(question))
    if not wanted:
        return [0.0] * len(found)
    held = [set(terms(candidate.text)) for candidate in found]
    seen = Counter(word for words in held for word in words & wanted)
    weight = {word: math.log(1 + len(found) / (0.5 + seen[word])) for word in wanted}
    total = sum(weight.values())
    scores = []
    for candidate, words in zip(found, held, strict=True):
        source = candidate.source
        said_above = (source.title, *source.heading_path, candidate.heading)
        around = set(terms(" ".join(said_above))) - words
        own = sum(weight[word] for word in wanted & words)
        scores.append((own + sum(weight[word] for word in wanted & around) / 2) / total)
    return scores


class ExtractiveLLM:
    """Answers behind the LLM Protocol without a language model.

    ``cosine_floor`` is the cosine of unrelated texts under the embedding model, above which the
    scale of the scores begins; by default chosen by the model's name.
    """

    is_language_model = False
    model = "extractive"

    def __init__(self, embedder: Embedder, *, cosine_floor: float | None = None) -> None:
        self._embedder = embedder
        self._floor = cosine_floor_of(embedder.spec) if cosine_floor is None else cosine_floor

    async def context_window(self) -> int:
        """Generous: the candidates are bounded instead."""
        return 32_768

    async def check(self) -> EngineHealth:
        return EngineHealth(ok=True, detail=NOTICE, model=self.model)

    async def stream(self, request: GenerationRequest) -> AsyncGenerator[LLMEvent, None]:
        """Quotes one by one, then Finished. Raises what the embedder raises."""
        yield Thinking()
        quotes = await self.quotes(request.question, request.sources)
        if not quotes:
            yield TextDelta(NO_ANSWER)
            yield Finished("stop")
            return
        for index, quote in enumerate(quotes):
            separator = "\n\n" if index else ""
            # A marker after a table's last cell would become a cell.
            marker = f"\n\n[{quote.number}]" if quote.text.endswith("|") else f" [{quote.number}]"
            yield TextDelta(f"{separator}{quote.text}{marker}")
        yield Finished("stop")

    async def quotes(self, question: str, sources: Sequence[SourceText]) -> list[Quote]:
        """The quotes in reading order; none when nothing is relevant enough."""
        found = candidates(sources)
        if not found:
            return []
        parts = parts_of(question)
        vectors = await self._vectors(found)
        of_each = [await self._scores(part, found, vectors) for part in parts]
        is_whole = len(parts) == 1
        most = _MAX_QUOTES if is_whole else _MAX_QUOTES_OF_PART
        share = _KEEP_FROM_BEST if is_whole else _KEEP_FROM_BEST_OF_PART
        chosen: list[int] = []
        for scores in of_each:
            chosen += _chosen(found, scores, most=most, share=share, besides=chosen)
        return _quotes(found, np.max(of_each, axis=0), chosen)

    async def scores(self, question: str, found: Sequence[Candidate]) -> Scores:
        """One score per candidate, for a question in one part."""
        return await self._scores(question, found, await self._vectors(found))

    async def _vectors(self, found: Sequence[Candidate]) -> Vectors:
        spec = self._embedder.spec
        # A reader waits: where both kinds are embedded alike, take the lane of the queries.
        alike = spec.query_prefix == spec.passage_prefix
        return await self._embedder.aembed(
            [f"{candidate.heading}\n{candidate.text}".lstrip() for candidate in found],
            kind="query" if alike else "passage",
        )

    async def _scores(self, question: str, found: Sequence[Candidate], vectors: Vectors) -> Scores:
        query = await self._embedder.aembed([question], kind="query")
        cosines = (vectors @ query[0]).astype(np.float64)
        cosines = np.maximum(cosines - self._floor, 0) / (1 - self._floor)
        ranks = np.array([1 / (1 + candidate.rank) for candidate in found])
        shares = np.array(_term_scores(question, found))
        wholes = np.array(_passage_scores(question, found))
        scores = (
            COSINE_WEIGHT * cosines
            + TERM_WEIGHT * shares
            + RANK_WEIGHT * ranks
            + PASSAGE_WEIGHT * wholes
        )
        if kind := kind_of(question):
            lacks = [not holds(candidate.text, kind, question) for candidate in found]
            scores -= KIND_PENALTY * np.array(lacks)
        return np.asarray(scores, dtype=np.float64)


def _chosen(
    found: Sequence[Candidate],
    scores: Scores,
    *,
    most: int,
    share: float,
    besides: Sequence[int],
) -> list[int]:
    """Indices of the best few, down to a ``share`` of the best score.

    They do not repeat each other, nor what was chosen ``besides``.
    """
    order = [int(index) for index in np.argsort(-scores, kind="stable")]
    best = float(scores[order[0]])
    chosen: list[int] = []
    for index in order:
        if len(chosen) == most or scores[index] < max(ABSTAIN_BELOW, share * best):
            break
        words = set(terms(found[index].text))
        if any(words == set(terms(found[other].text)) for other in besides):
            continue
        if all(_overlap(words, set(terms(found[other].text))) < _SAME_WORDS for other in chosen):
            chosen.append(index)
    return chosen


def _overlap(left: set[str], right: set[str]) -> float:
    smaller = min(len(left), len(right))
    return len(left & right) / smaller if smaller else float(left == right)


def _quotes(
    found: Sequence[Candidate],
    scores: Scores,
    chosen: Sequence[int],
) -> list[Quote]:
    """Spans to quote: lists after their lead-in, whole small tables, neighbours in one piece.

    The source of the best sentence comes first, then the others; within one in reading order.
    """
    spans: dict[int, list[tuple[int, int, float]]] = {}
    for index in chosen:
        candidate = found[index]
        start, end = _extent(found, index)
        spans.setdefault(candidate.rank, []).append((start, end, float(scores[index])))
    by_rank = {candidate.rank: candidate.source for candidate in found}
    quotes: list[Quote] = []
    for rank in sorted(spans, key=lambda rank: -max(score for *_, score in spans[rank])):
        source = by_rank[rank]
        for start, end, score in _joined(source.text, sorted(spans[rank])):
            quotes.append(Quote(source.number, source.text[start:end], score))
    return quotes


def _leads_in(text: str) -> bool:
    return text.rstrip("*_ ").endswith((":", "："))


def _joined(text: str, spans: Sequence[tuple[int, int, float]]) -> list[tuple[int, int, float]]:
    """Spans with only spaces between them become one."""
    merged: list[tuple[int, int, float]] = []
    for start, end, score in spans:
        if merged and (start <= merged[-1][1] or text[merged[-1][1] : start] in {" ", "  ", "\n"}):
            first, last, before = merged[-1]
            merged[-1] = (first, max(last, end), max(before, score))
        else:
            merged.append((start, end, score))
    return merged


def _extent(found: Sequence[Candidate], index: int) -> tuple[int, int]:
    """The span of a candidate with what it needs to be read: its list, or its table."""
    candidate = found[index]
    start, end = candidate.start, candidate.piece.end
    if candidate.piece.kind is Kind.ROW:
        return _table(found, index)
    if not _leads_in(candidate.text):
        return start, end
    for other in found[index + 1 :]:
        same = other.source is candidate.source and other.piece.kind is Kind.ITEM
        if not same or other.piece.end - start > _MAX_LIST_CHARACTERS:
            break
        end = other.piece.end
    return start, end


def _table(found: Sequence[Candidate], index: int) -> tuple[int, int]:
    """The whole table around a row when it is small, else the row."""
    candidate = found[index]
    first = last = index
    while first > 0 and _same_table(found[first - 1], found[first]):
        first -= 1
    while last + 1 < len(found) and _same_table(found[last], found[last + 1]):
        last += 1
    start, end = found[first].piece.start, found[last].piece.end
    if end - start <= _MAX_LIST_CHARACTERS:
        return start, end
    return candidate.piece.start, candidate.piece.end


def _same_table(upper: Candidate, lower: Candidate) -> bool:
    between = upper.source.text[upper.piece.end : lower.piece.start]
    return (
        upper.source is lower.source
        and upper.piece.kind is lower.piece.kind is Kind.ROW
        and "\n\n" not in between
    )
