"""Citations: markers found in the stream, each bound to a quote in its source.

A marker is a claim of the model. It becomes a citation only with a passage that was offered, and
counts as verified only when words from the stored text stand behind the sentence it marks.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from assistant.chat.claims import adds, differs, without_bullet
from assistant.chat.quoting import (
    Span,
    find_quote,
    sentences,
    sentences_with,
    words_of_sentences,
)
from inference.extractive import terms

# What may still become a marker when the next delta comes; longer text is no marker.
_OPEN = re.compile(r"[\[［【][^\[\]［］【】\n]{0,40}$")
MARKER = re.compile(
    r"[\[［]\s*\^?(?P<plain>\d{1,3}(?:\s*[,;，–-]\s*\d{1,3})*)\s*[\]］]"
    r"|【\s*(?P<harmony>\d{1,6})\s*(?:†[^【】\n]{0,40})?】"
)
_OPENING = re.compile(r"[^:\n\"“]{1,60}:\s+")
_QUOTED = re.compile(r"[\"“„«]([^\"”“»\n]{12,400})[\"”“»]")
# Share of the weight of a claim's words that the quote must have: under 2 % of what a source does
# not say counts as verified, see `benchmarks.citations --thresholds`.
SUPPORT = 0.6
# Of the sentences that cover a claim best, so many are looked at.
CANDIDATES = 3
MIN_VERBATIM_CHARACTERS = 12
MAX_QUOTE_CHARACTERS = 400
# The end of a paragraph in which its last sentence mostly lies: 500 streams that cite in the same
# second would take turns to go through all of it.
_USUAL_CHARACTERS = 400


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
        if "[" not in buffer and "［" not in buffer and "【" not in buffer:
            self._held = ""
            if buffer:
                yield self._plain(buffer)
            return
        match = _OPEN.search(buffer)
        self._held = buffer[match.start() :] if match else ""
        yield from self._split(buffer[: match.start()] if match else buffer)

    def finish(self) -> Iterator[str | Marker]:
        rest, self._held = self._held, ""
        yield from self._split(rest)

    def _split(self, text: str) -> Iterator[str | Marker]:
        position = 0
        for match in MARKER.finditer(text):
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
        claim = _last_sentence(self._claim)
        for number in dict.fromkeys(_numbers(match["harmony"] or match["plain"])):
            if number in self.known:
                yield Marker(number, claim)

    def _plain(self, text: str) -> str:
        self._ticks += text.count("`")
        # Only the current paragraph matters to a claim.
        self._claim = (self._claim + text)[-2000:]
        return text

    def _in_code(self) -> bool:
        return self._ticks % 2 == 1


def _numbers(written: str) -> Iterator[int]:
    """``1, 3-5`` is 1, 3, 4 and 5."""
    for match in re.finditer(r"(\d+)(?:\s*[–-]\s*(\d+))?", written):
        yield from range(int(match[1]), int(match[2] or match[1]) + 1)


def _last_sentence(text: str) -> str:
    """The sentence that a marker at the end of ``text`` stands behind."""
    tail = text[-_USUAL_CHARACTERS:]
    found = sentences(tail)
    if len(found) < 2:  # its beginning may be cut off
        tail, found = text, sentences(text)
    return tail[found[-1].start : found[-1].end] if found else ""


def bind(claim: str, source: str, *, about: str = "") -> Quote | None:
    """The words of ``source`` that stand behind ``claim``; None when it has no words at all.

    A quotation in the claim must stand in the source, each of them. A sentence that does is its own
    quote; otherwise the quote is the sentence, or two neighbours, that cover most of the claim's
    words, weighted by rarity in the source. It is verified with at least SUPPORT of the weight and
    nothing in it that differs, see ``claims``. ``about`` is the source's title and headings.
    """
    claim = without_bullet(claim)
    spans = sentences(source)
    if not spans:
        return None
    if quotations := _QUOTED.findall(claim):
        found = [find_quote(source, words.strip(" .,;:!?")) for words in quotations]
        first = found[0]
        if first is not None and None not in found:
            quote = _whole(first, spans)
            around = _QUOTED.sub(" ", claim)
            is_same = not adds(around, source[quote.start : quote.end], about=about)
            return _quote(source, quote, verified=is_same)
        return _best_sentences(claim, source, spans, about=about, may_verify=False)
    span = find_quote(source, claim) if len(claim) >= MIN_VERBATIM_CHARACTERS else None
    if span is not None:
        whole = _whole(span, spans)
        is_same = not differs(claim, source[whole.start : whole.end], about=about)
        return _quote(source, whole, verified=is_same)
    if opening := _OPENING.match(claim):
        # "The handbook says: ..." is quoted like a sentence in quotation marks.
        span = find_quote(source, claim[opening.end() :])
        if span is not None and span.end - span.start >= MIN_VERBATIM_CHARACTERS:
            whole = _whole(span, spans)
            quoted = source[whole.start : whole.end]
            is_same = not adds(opening[0], quoted, about=about) and not differs(
                claim[opening.end() :], quoted, about=about
            )
            return _quote(source, whole, verified=is_same)
    return _best_sentences(claim, source, spans, about=about)


def _whole(span: Span, spans: Sequence[Span]) -> Span:
    """``span`` with the rest of its sentences, so that their conditions are read with it."""
    touched = [each for each in spans if each.start < span.end and span.start < each.end]
    whole = Span(min(span.start, touched[0].start), max(span.end, touched[-1].end))
    return whole if whole.end - whole.start <= MAX_QUOTE_CHARACTERS else span


def _best_sentences(
    claim: str, source: str, spans: Sequence[Span], *, about: str, may_verify: bool = True
) -> Quote:
    bags = words_of_sentences(source)
    wanted = set(terms(claim))
    count = sentences_with(source)
    weights = {word: 1 / (1 + count.get(word, 0)) for word in wanted}
    total = sum(weights.values())
    hits = [wanted & bag for bag in bags]
    found: list[tuple[float, int, int]] = []
    for i, hit in enumerate(hits):
        for last in (i, i + 1):
            if last >= len(spans):
                continue
            covered = hit if last == i else hit | hits[last]
            # Two sentences must earn their length.
            score = sum(weights[word] for word in covered) * (1.0 if last == i else 0.85)
            found.append((-score / total if total else 0.0, i, last))
    found.sort()
    for negated, i, last in found[:CANDIDATES] if may_verify else ():
        if -negated < SUPPORT:
            break
        quote = _quote(source, Span(spans[i].start, spans[last].end), verified=True)
        if not differs(claim, quote.text, about=about):
            return quote
    _, i, last = found[0]
    return _quote(source, Span(spans[i].start, spans[last].end), verified=False)


def _quote(source: str, span: Span, *, verified: bool) -> Quote:
    if span.end - span.start > MAX_QUOTE_CHARACTERS:
        cut = source.rfind(" ", span.start, span.start + MAX_QUOTE_CHARACTERS)
        span = Span(span.start, cut if cut > span.start else span.start + MAX_QUOTE_CHARACTERS)
    return Quote(source[span.start : span.end], span, verified)
