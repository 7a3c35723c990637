"""After the last word: which sentences of an answer stand on a source, and where sources disagree.

No language model decides. A sentence with a verified citation is supported. Any other is compared
with the sentences of the passages that were read, by the embedding model of the search.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final, Literal

from assistant import engines
from assistant.chat.citing import MARKER
from assistant.chat.claims import contradicts, measures, without_bullet
from assistant.chat.events import CitationFound
from assistant.chat.quoting import Span, sentences, words_of_sentences
from assistant.retrieval import Passage
from inference.extractive import cosine_floor_of, terms
from inference.types import EngineError

Basis = Literal["verified", "similar", "none"]

# Cosine from which a sentence of a passage says the same: where most of what is supported lies
# above and most of what is not below, see `benchmarks.citations --thresholds`.
SIMILAR: Final = 0.65
# The reader waits for the end of the answer.
TIMEOUT_SECONDS: Final = 2.0
_MAX_SENTENCES: Final = 40
_MAX_CANDIDATES: Final = 96
_MIN_TERMS: Final = 3
# Share of a sentence's words that make another source speak of the same thing.
_SAME_THING: Final = 0.85
_CODE: Final = re.compile(r"```.*?(?:```|\Z)|`[^`\n]*`", re.DOTALL)
_LEADING_MARKERS: Final = re.compile(r"\s*[.,;:]?\s*(?:\[\d{1,3}\]\s*)+")


@dataclass(frozen=True, slots=True)
class Sentence:
    """``text[start:end]`` of an answer and what it stands on.

    ``number`` is the source, None without one; ``score`` between 0 and 1.
    """

    start: int
    end: int
    basis: Basis
    score: float
    number: int | None


@dataclass(frozen=True, slots=True)
class Conflict:
    """Sources ``number`` and ``other`` give different ``values`` of ``unit`` for one sentence.

    ``dated`` are the days their versions were stored, ISO 8601.
    """

    number: int
    other: int
    unit: str
    values: tuple[str, str]
    dated: tuple[str, str]


@dataclass(slots=True)
class _Claim:
    span: Span
    text: str
    citations: list[CitationFound]


async def support_of(
    text: str, citations: Sequence[CitationFound], passages: Sequence[Passage]
) -> dict[str, Any]:
    """``{"sentences": [...], "conflicts": [...]}`` of a complete answer, as JSON.

    Sentences that could not be compared in time are left out.
    """
    claims = _claims(text, citations)
    known: list[Sentence] = []
    open_claims: list[_Claim] = []
    for claim in claims:
        citation = next((each for each in claim.citations if each.verified), None)
        if citation is None:
            open_claims.append(claim)
        else:
            known.append(_verified(claim, citation))
    try:
        async with asyncio.timeout(TIMEOUT_SECONDS):
            known += await _compared(open_claims, passages)
    except (EngineError, TimeoutError):
        pass  # an answer without marks is better than none
    return {
        "sentences": [asdict(each) for each in sorted(known, key=lambda each: each.start)],
        "conflicts": [asdict(each) for each in _conflicts(claims, passages)],
    }


def _claims(text: str, citations: Sequence[CitationFound]) -> list[_Claim]:
    """The sentences that claim something, each with its citations."""
    plain = _CODE.sub(lambda match: re.sub(r"[^\n]", " ", match[0]), text)
    left = list(citations)
    claims: list[_Claim] = []
    for span in sentences(plain):
        start = span.start
        # "It is so. [1] Next": the marker belongs to the sentence before.
        if claims and (leading := _LEADING_MARKERS.match(plain, start, span.end)):
            _take(leading[0], left, claims[-1])
            start = leading.end()
        claim = _Claim(Span(start, span.end), "", [])
        _take(plain[start : span.end], left, claim)
        claim.text = without_bullet(MARKER.sub(" ", plain[start : span.end]))
        claims.append(claim)
    return [claim for claim in claims if claim.citations or _says_something(claim.text)][
        :_MAX_SENTENCES
    ]


def _take(text: str, left: list[CitationFound], claim: _Claim) -> None:
    for match in MARKER.finditer(text):
        if left and str(left[0].number) == match["plain"]:
            claim.citations.append(left.pop(0))


def _says_something(text: str) -> bool:
    return not text.startswith("#") and not text.endswith(":") and len(terms(text)) >= _MIN_TERMS


def _verified(claim: _Claim, citation: CitationFound) -> Sentence:
    return Sentence(claim.span.start, claim.span.end, "verified", 1.0, citation.number)


async def _compared(claims: Sequence[_Claim], passages: Sequence[Passage]) -> list[Sentence]:
    found = _candidates(claims, passages)
    if not claims:
        return []
    if not found:
        return [Sentence(c.span.start, c.span.end, "none", 0.0, None) for c in claims]
    embedder = engines.embedder()
    spec = embedder.spec
    # Both kinds in the lane of the queries where they are embedded alike: somebody waits.
    kind: Literal["query", "passage"] = (
        "query" if spec.query_prefix == spec.passage_prefix else "passage"
    )
    texts = [claim.text for claim in claims]
    vectors = await embedder.aembed([*texts, *(text for _, text in found)], kind=kind)
    floor = cosine_floor_of(spec)
    cosines = (vectors[: len(texts)] @ vectors[len(texts) :].T - floor) / (1 - floor)
    judged: list[Sentence] = []
    for claim, row in zip(claims, cosines, strict=True):
        best = int(row.argmax())
        number, text = found[best]
        score = round(min(max(float(row[best]), 0.0), 1.0), 3)
        is_similar = score >= SIMILAR and not contradicts(
            claim.text, text, about=_about(passages[number - 1])
        )
        basis: Basis = "similar" if is_similar else "none"
        judged.append(
            Sentence(claim.span.start, claim.span.end, basis, score, number if is_similar else None)
        )
    return judged


def _candidates(claims: Sequence[_Claim], passages: Sequence[Passage]) -> list[tuple[int, str]]:
    """Sentences of the passages with their numbers; those that share most words come first."""
    wanted = {word for claim in claims for word in terms(claim.text)}
    if not wanted:
        return []
    ranked: list[tuple[int, int, str]] = []
    for number, passage in enumerate(passages, start=1):
        text = passage.text
        for span, words in zip(sentences(text), words_of_sentences(text), strict=True):
            ranked.append((len(wanted & words), number, text[span.start : span.end]))
    ranked.sort(key=lambda each: -each[0])
    return [(number, text) for _, number, text in ranked[:_MAX_CANDIDATES]]


def _about(passage: Passage) -> str:
    return " ".join((passage.title, *passage.locator.heading_path))


def _conflicts(claims: Sequence[_Claim], passages: Sequence[Passage]) -> list[Conflict]:
    """Where another passage that was read gives another number for what a verified quote says."""
    found: dict[tuple[int, int, str], Conflict] = {}
    for claim in claims:
        for citation in claim.citations:
            said = measures(citation.quote) if citation.verified else {}
            wanted = {word for word in terms(claim.text) if not word[0].isdigit()}
            if not said or len(wanted) < _MIN_TERMS:
                continue
            mine = passages[citation.number - 1]
            for number, passage in enumerate(passages, start=1):
                if passage.version_id == mine.version_id:
                    continue
                spans = sentences(passage.text)
                for span, words in zip(spans, words_of_sentences(passage.text), strict=True):
                    if len(wanted & words) < _SAME_THING * len(wanted):
                        continue
                    other = measures(passage.text[span.start : span.end])
                    for unit in said.keys() & other.keys():
                        key = (*sorted((citation.number, number)), unit)
                        if said[unit].isdisjoint(other[unit]):
                            found.setdefault(
                                key,  # type: ignore[arg-type]
                                Conflict(
                                    citation.number,
                                    number,
                                    unit,
                                    (_joined(said[unit]), _joined(other[unit])),
                                    (_day(mine), _day(passage)),
                                ),
                            )
    return list(found.values())


def _joined(values: frozenset[str]) -> str:
    return ", ".join(sorted(values))


def _day(passage: Passage) -> str:
    return passage.version_created_at.date().isoformat()
