"""Citations: markers found in the stream, each bound to a quote in its source.

A marker is a claim of the model. It becomes a citation only with a passage that was offered, and
counts as verified only when words from the stored text stand behind the sentence it marks.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from assistant.chat.quoting import Span, find_quote, sentences, words

# What may still become a marker when the next delta comes; longer text is no marker.
_OPEN = re.compile(r"[\[［【][^\[\]［］【】\n]{0,40}$")
_MARKER = re.compile(
    r"[\[［]\s*(?P<plain>\d{1,3}(?:\s*[,;，]\s*\d{1,3})*)\s*[\]］]"
    r"|【\s*(?P<harmony>\d{1,3})\s*(?:†[^【】\n]{0,40})?】"
)
_QUOTED = re.compile(r"[\"“„«]([^\"”“»\n]{12,400})[\"”“»]")
_CLOSING = frozenset(".!?。！？")
# Share of a claim's weight that the quoted words must cover.
SUPPORT = 0.5
MAX_QUOTE_CHARACTERS = 400


@dataclass(frozen=True, slots=True)
class Marker:
    """``[number]`` stands right after ``claim`` in the answer."""

    number: int
    claim: str


@dataclass(frozen=True, slots=True)
class Quote:
    """Words of a source behind a claim; ``span`` is in the source's text."""

    text: str
    span: Span
    verified: bool


@dataclass(slots=True)
class MarkerParser:
    """Splits a stream into plain text and markers, across any borders of the deltas.

    ``[1]``, ``[1, 2]``, full-width brackets and gpt-oss's ``【1†L3-L4】`` all come out as ``[1]``.
    Numbers that no source has are dropped. Inside code nothing is a marker.
    """

    known: frozenset[int]
    _held: str = ""
    _claim: str = ""
    _ticks: int = 0

    def feed(self, text: str) -> Iterator[str | Marker]:
        """Text to show and markers, in order; what may be half a marker is held back."""
        buffer = self._held + text
        match = _OPEN.search(buffer)
        self._held = buffer[match.start() :] if match else ""
        yield from self._split(buffer[: match.start()] if match else buffer)

    def finish(self) -> Iterator[str | Marker]:
        rest, self._held = self._held, ""
        yield from self._split(rest)

    def _split(self, text: str) -> Iterator[str | Marker]:
        position = 0
        for match in _MARKER.finditer(text):
            before = text[position : match.start()]
            if before:
                yield self._plain(before)
            position = match.end()
            if self._in_code() or text[match.end() : match.end() + 1] == "(":
                yield self._plain(match[0])
                continue
            yield from self._markers(match)
        if rest := text[position:]:
            yield self._plain(rest)

    def _markers(self, match: re.Match[str]) -> Iterator[Marker]:
        numbers = match["harmony"] or match["plain"]
        claim = _last_sentence(self._claim)
        for number in dict.fromkeys(int(part) for part in re.findall(r"\d+", numbers)):
            if number in self.known:
                yield Marker(number, claim)

    def _plain(self, text: str) -> str:
        self._ticks += text.count("`")
        # Only the current paragraph matters to a claim.
        self._claim = (self._claim + text)[-2000:]
        return text

    def _in_code(self) -> bool:
        return self._ticks % 2 == 1


def _last_sentence(text: str) -> str:
    """The sentence that a marker at the end of ``text`` stands behind."""
    found = sentences(text)
    return text[found[-1].start : found[-1].end] if found else ""


def bind(claim: str, source: str) -> Quote | None:
    """The words of ``source`` that stand behind ``claim``; None when it has no words at all.

    A sentence that stands in the source, or a quotation in the claim that does, is the quote.
    Otherwise it is the sentence, or two neighbours, that cover most of the claim's words, weighted
    by rarity in the source; with less than SUPPORT of the weight it is not verified.
    """
    for candidate in (claim, *_QUOTED.findall(claim)):
        cleaned = candidate.strip().strip("-*•> ").strip()
        span = find_quote(source, cleaned) if len(cleaned) >= 12 else None
        if span is not None:
            closed = source[span.end : span.end + 1] in _CLOSING
            return _quote(source, Span(span.start, span.end + closed), verified=True)
    return _best_sentences(claim, source)


def _best_sentences(claim: str, source: str) -> Quote | None:
    spans = sentences(source)
    if not spans:
        return None
    bags = [set(words(source[span.start : span.end])) for span in spans]
    wanted = set(words(claim))
    weights = {word: 1 / (1 + sum(word in bag for bag in bags)) for word in wanted}
    total = sum(weights.values())
    best, best_score = spans[0], 0.0
    for i, bag in enumerate(bags):
        for last in (i, i + 1):
            if last >= len(spans):
                continue
            covered = wanted & (bag | bags[last])
            # Two sentences must earn their length.
            score = sum(weights[word] for word in covered) * (1.0 if last == i else 0.85)
            if score > best_score:
                best, best_score = Span(spans[i].start, spans[last].end), score
    return _quote(source, best, verified=total > 0 and best_score / total >= SUPPORT)


def _quote(source: str, span: Span, *, verified: bool) -> Quote:
    if span.end - span.start > MAX_QUOTE_CHARACTERS:
        cut = source.rfind(" ", span.start, span.start + MAX_QUOTE_CHARACTERS)
        span = Span(span.start, cut if cut > span.start else span.start + MAX_QUOTE_CHARACTERS)
    return Quote(source[span.start : span.end], span, verified)
