"""A ParsedDocument to pieces that fit the embedding model's window. Pure functions.

The text is cut into units that are not split without need (sentences, table rows, code lines),
units are packed into sections (what stands under one heading), small neighbouring sections share a
chunk. Tokens are counted once over the whole text; a last check by the model's own tokenizer on
what is really embedded splits the rare piece that still does not fit.
"""

from __future__ import annotations

import re
import zlib
from bisect import bisect_left
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

from inference.types import TokenCounter
from ingestion.elements import ChunkDraft, Element, ElementKind, ParsedDocument

SPECIAL_TOKENS: Final = 2
"""Tokens that a model adds around every text: [CLS] and [SEP], or their likes."""

PATH_SEPARATOR: Final = " > "
_MARGIN: Final = 2  # tokens that joining context and text may add
_CONTEXT_SHARE: Final = 4  # context takes at most a quarter of the window
_TINY_SHARE: Final = 4  # sections below a quarter of the target look for company
_DOUBT_SHARE: Final = 10  # a chunk with less than a tenth of the window to spare is counted again
_COUNTING_PIECE: Final = 200_000
# How often, on average, the start of a paragraph or of a tiny section ends a run.
_ELEMENTS_A_RUN: Final = 24
_SECTIONS_A_RUN: Final = 4
_ANCHOR_CHARACTERS: Final = 80
_SENTENCE: Final = re.compile(
    r"""[.!?…]+["'”’»)\]]*\s+(?=["'“‘«(\[]*[^\sa-z])|[。！？]+["”’」』）]*|\n+"""
)
_ABBREVIATION: Final = re.compile(
    r"(?:\b(?:[A-Za-z]|Mr|Mrs|Ms|Dr|Prof|St|No|Nr|vs|etc|cf|Fig|Inc|Ltd|Co|approx|ca|bzw|e\.g|i\.e"
    r"|z\.B|u\.a|d\.h))\.\s+$"
)


_Path = tuple[tuple[int, int], ...]


@dataclass(frozen=True, slots=True)
class _Unit:
    """A stretch of text that stays whole if it can; ``tokens`` without special tokens.

    ``element_start`` is where its element begins. ``header_end`` is set on the rows of a table
    after the first and is where its first row, the header, ends.
    """

    start: int
    end: int
    tokens: int
    page: int | None
    element_start: int
    header_end: int = 0
    is_heading: bool = False


@dataclass(slots=True)
class _Section:
    """Units under one heading, the heading's own first. ``path`` is the headings' offsets."""

    path: _Path
    units: list[_Unit] = field(default_factory=list)

    @property
    def tokens(self) -> int:
        return sum(unit.tokens for unit in self.units)

    @property
    def is_heading_only(self) -> bool:
        return all(unit.is_heading for unit in self.units)


def chunk_document(
    document: ParsedDocument,
    *,
    title: str,
    tokens: TokenCounter,
    window: int,
    target: int | None = None,
    overlap: int = 0,
) -> list[ChunkDraft]:
    """Chunks in order; together they cover every non-space character of ``document.text``.

    ``window`` is what the model reads, special tokens included, less what a passage prefix takes;
    every ``embed_text`` fits it. ``target`` is the size aimed at, in tokens of text, by default
    as much as fits. ``overlap`` is the number of tokens of whole sentences that a chunk repeats
    from the one before in the same section. Raises ValueError for a window below 32.
    """
    if window < 32:
        raise ValueError(f"a window of {window} tokens leaves no room for text")
    return _Chunker(document, title, tokens, window, target, overlap).run()


class _Chunker:
    def __init__(
        self,
        document: ParsedDocument,
        title: str,
        tokens: TokenCounter,
        window: int,
        target: int | None,
        overlap: int,
    ) -> None:
        self._document = document
        self._text = document.text
        self._counter = tokens
        self._room = window - SPECIAL_TOKENS
        self._context_room = window // _CONTEXT_SHARE
        self._target = min(target or self._room, self._room)
        self._overlap = min(overlap, self._target // 3)
        self._title = self._cut(" ".join(title.split()), self._context_room // 2)
        self._starts = self._token_starts()
        self._contexts: dict[tuple[str, ...], tuple[str, int]] = {}

    def run(self) -> list[ChunkDraft]:
        drafts: list[ChunkDraft] = []
        for group in self._groups(self._sections()):
            path = _common_path(group)
            units = [unit for section in group for unit in section.units]
            for run in self._runs(units):
                for piece in self._pack(run, path):
                    for fitted in self._fitted(piece, path):
                        drafts.append(self._draft(len(drafts), fitted, path))
        return drafts

    # Counting

    def _token_starts(self) -> list[int]:
        """Start of every token of the text, counted piece by piece at element borders."""
        starts: list[int] = []
        begin = 0
        for element in self._document.elements:
            if element.char_end - begin >= _COUNTING_PIECE:
                starts += self._count_piece(begin, element.char_end)
                begin = element.char_end
        starts += self._count_piece(begin, len(self._text))
        return starts

    def _count_piece(self, begin: int, end: int) -> list[int]:
        return [begin + start for start, _ in self._counter.offsets(self._text[begin:end])]

    def _tokens(self, start: int, end: int) -> int:
        return bisect_left(self._starts, end) - bisect_left(self._starts, start)

    def _cut(self, text: str, limit: int) -> str:
        """The start of ``text`` that has at most ``limit`` tokens."""
        offsets = self._counter.offsets(text)
        return text if len(offsets) <= limit else text[: offsets[limit][0]].rstrip()

    # Units

    def _units(self, element: Element) -> list[_Unit]:
        start, end = element.char_start, element.char_end
        is_heading = element.kind is ElementKind.HEADING
        header_end = 0
        if element.kind in (ElementKind.TABLE, ElementKind.CODE):
            spans = _line_spans(self._text, start, end)
            if element.kind is ElementKind.TABLE and len(spans) > 1:
                header_end = spans[0][1]
        else:
            spans = [(start, end)] if is_heading else _sentence_spans(self._text, start, end)
        return [
            _Unit(
                a,
                b,
                max(1, self._tokens(a, b)),
                element.page,
                start,
                header_end if a > start else 0,
                is_heading,
            )
            for span in spans
            for a, b in self._hard_split(*span)
        ]

    def _hard_split(self, start: int, end: int) -> Iterator[tuple[int, int]]:
        """A unit too long for any chunk is cut between words, or within one if it must be."""
        limit = max(8, self._room - self._context_room - _MARGIN)
        while self._tokens(start, end) > limit:
            cut = self._starts[bisect_left(self._starts, start) + limit]
            space = max(self._text.rfind(" ", start, cut), self._text.rfind("\n", start, cut))
            if space > start + (cut - start) // 2:
                cut = space + 1
            if cut <= start:  # several tokens begin at one character
                cut = start + 1
            yield start, cut
            start = cut
        if start < end:
            yield start, end

    # Sections

    def _sections(self) -> list[_Section]:
        sections: list[_Section] = []
        stack: list[tuple[int, tuple[int, int]]] = []
        for element in self._document.elements:
            if element.kind is ElementKind.HEADING:
                while stack and stack[-1][0] >= element.level:
                    stack.pop()
                stack.append((element.level, (element.char_start, element.char_end)))
                sections.append(_Section(tuple(span for _, span in stack)))
            elif not sections:
                sections.append(_Section(()))
            sections[-1].units.extend(self._units(element))
        return sections

    def _groups(self, sections: list[_Section]) -> Iterator[list[_Section]]:
        """Sections that share chunks: tiny ones with siblings, headings with what follows."""
        tiny = self._target // _TINY_SHARE
        pending: list[_Section] = []
        total = 0
        for section in sections:
            size = section.tokens
            anchored = total >= tiny and self._is_anchor(section.units[0], _SECTIONS_A_RUN)
            if pending and not anchored and self._belong(pending, section, total, size, tiny):
                pending.append(section)
                total += size
                continue
            if pending:
                yield pending
            pending, total = [section], size
        if pending:
            yield pending

    def _belong(
        self, pending: list[_Section], section: _Section, total: int, size: int, tiny: int
    ) -> bool:
        # A chapter's heading never ends the chunk of the chapter before.
        if len(section.path) < len(pending[0].path) or (
            section.path[: len(pending[0].path) - 1] != pending[0].path[:-1]
        ):
            return False
        if all(part.is_heading_only for part in pending):
            return True  # however long what follows is: packing splits it
        fits = total + size <= self._target - self._context_room // 2
        return fits and (total < tiny or size < tiny)

    # Runs

    def _runs(self, units: list[_Unit]) -> Iterator[list[_Unit]]:
        """A long section in stretches that are packed by themselves.

        Where one ends follows from the paragraph that begins there, not from what came before, as
        in content-defined chunking (Muthitacharoen et al. 2001, "A low-bandwidth network file
        system"): a changed page of a new version then changes the chunks around it and leaves all
        others, and their vectors, as they were.
        """
        run: list[_Unit] = []
        size = 0
        for unit in units:
            starts_element = unit.start == unit.element_start and not unit.is_heading
            after_heading = bool(run) and run[-1].is_heading
            if (
                size >= self._target
                and starts_element
                and not after_heading
                and self._is_anchor(unit, _ELEMENTS_A_RUN)
            ):
                yield run
                run, size = [], 0
            run.append(unit)
            size += unit.tokens
        if run:
            yield run

    def _is_anchor(self, unit: _Unit, one_in: int) -> bool:
        start = self._text[unit.start : unit.start + _ANCHOR_CHARACTERS]
        return zlib.crc32(start.encode()) % one_in == 0

    # Packing

    def _pack(self, units: list[_Unit], path: _Path) -> Iterator[list[_Unit]]:
        """Consecutive runs of units of about equal size that fit beside their context."""
        room = self._room - self._context(self._names(path))[1] - _MARGIN
        room = min(room, self._target)
        remaining = sum(unit.tokens for unit in units)
        goal = _even_share(remaining, room)
        current: list[_Unit] = []
        size = 0
        for index, unit in enumerate(units):
            extra = self._header_tokens(unit) if not current else 0
            ends_well = size >= goal and not units[index - 1].is_heading
            if current and (size + unit.tokens > room or ends_well):
                carried: list[_Unit] = []
                while len(current) > 1 and current[-1].is_heading:  # goes with its text
                    carried.insert(0, current.pop())
                yield current
                current = carried or self._overlapping(current, unit, room)
                extra = self._header_tokens(current[0] if current else unit)
                size = sum(part.tokens for part in current)
                goal = _even_share(remaining + size, room)
            current.append(unit)
            size += unit.tokens + extra
            remaining -= unit.tokens
        if current:
            yield current

    def _overlapping(self, previous: list[_Unit], unit: _Unit, room: int) -> list[_Unit]:
        kept: list[_Unit] = []
        size = 0
        for part in reversed(previous[1:]):
            size += part.tokens
            if size > self._overlap or size + unit.tokens > room or part.is_heading:
                break
            kept.insert(0, part)
        return kept

    def _header_tokens(self, unit: _Unit) -> int:
        if not unit.header_end:
            return 0
        tokens = self._tokens(unit.element_start, unit.header_end)
        return tokens if tokens <= self._context_room else 0

    def _fitted(self, units: list[_Unit], path: _Path) -> Iterator[list[_Unit]]:
        """The check that counts: what is embedded, by the model's own tokenizer."""
        if self._surely_fits(units, path) or (
            self._counter.count(self._embed_text(units, path)) <= self._room
        ):
            yield units
            return
        if len(units) > 1:
            middle = len(units) // 2
            halves = [units[:middle], units[middle:]]
        else:
            halves = [[part] for part in self._halves(units[0])]
        for half in halves:
            yield from self._fitted(half, path)

    def _surely_fits(self, units: list[_Unit], path: _Path) -> bool:
        """Whether the tokens that were counted once leave so much room that none is in doubt.

        Counting again costs as much as counting did. What begins or ends within a word is in
        doubt: a tokenizer may take a long word as one token and its half as many.
        """
        start, end = units[0].start, units[-1].end
        if not all(self._is_between_words(at) for at in (start, end)):
            return False
        tokens = self._tokens(start, end) + self._header_tokens(units[0])
        tokens += self._context(self._names(path))[1]
        return tokens + self._room // _DOUBT_SHARE + _MARGIN <= self._room

    def _is_between_words(self, at: int) -> bool:
        return (
            not 0 < at < len(self._text)
            or " " in (self._text[at - 1], self._text[at])
            or ("\n" in (self._text[at - 1], self._text[at]))
        )

    def _halves(self, unit: _Unit) -> tuple[_Unit, _Unit]:
        middle = (unit.start + unit.end) // 2
        space = self._text.find(" ", middle, unit.end - 1)
        cut = space + 1 if space >= 0 else middle
        if cut <= unit.start or cut >= unit.end:
            raise ValueError("the context alone fills the model's window")
        return tuple(  # type: ignore[return-value]
            _Unit(a, b, self._tokens(a, b), unit.page, unit.element_start, unit.header_end)
            for a, b in ((unit.start, cut), (cut, unit.end))
        )

    # Drafts

    def _draft(self, ordinal: int, units: list[_Unit], path: _Path) -> ChunkDraft:
        start, end = self._span(units)
        return ChunkDraft(
            ordinal=ordinal,
            text=self._text[start:end],
            embed_text=self._embed_text(units, path),
            char_start=start,
            char_end=end,
            heading_path=self._names(path),
            page=units[0].page,
        )

    def _span(self, units: list[_Unit]) -> tuple[int, int]:
        start, end = units[0].start, units[-1].end
        text = self._text[start:end]
        return start + len(text) - len(text.lstrip()), end - len(text) + len(text.rstrip())

    def _embed_text(self, units: list[_Unit], path: _Path) -> str:
        start, end = self._span(units)
        text = self._text[start:end]
        above = tuple(span for span in path if not start <= span[0] < end)
        parts = [self._context(self._names(above))[0]]
        if self._header_tokens(units[0]):
            parts.append(self._text[units[0].element_start : units[0].header_end].rstrip())
        return "\n".join(part for part in (*parts, text) if part)

    def _names(self, path: _Path) -> tuple[str, ...]:
        return tuple(self._text[start:end] for start, end in path)

    def _context(self, path: tuple[str, ...]) -> tuple[str, int]:
        """Title and headings in front of a chunk, and their tokens: at most a quarter of all.

        The heading nearest to the text is worth most, so what does not fit is dropped from the
        top.
        """
        if path in self._contexts:
            return self._contexts[path]
        names = [name for name in path if name.casefold() != self._title.casefold()]
        while names and self._context_tokens(names) > self._context_room:
            if len(names) == 1:
                used = self._context_tokens([])
                names = [self._cut(names[0], max(1, self._context_room - used - _MARGIN))]
                break
            names.pop(0)
        context = self._context_text(names)
        self._contexts[path] = context, self._counter.count(context)
        return self._contexts[path]

    def _context_text(self, names: list[str]) -> str:
        return "\n".join(part for part in (self._title, PATH_SEPARATOR.join(names)) if part)

    def _context_tokens(self, names: list[str]) -> int:
        return self._counter.count(self._context_text(names))


def _common_path(sections: list[_Section]) -> _Path:
    """Headings above every text of the group; sections that are only a heading do not count."""
    paths = [section.path for section in sections if not section.is_heading_only]
    if not paths:
        paths = [sections[-1].path]
    common = paths[0]
    for path in paths[1:]:
        same = 0
        while same < min(len(common), len(path)) and common[same] == path[same]:
            same += 1
        common = common[:same]
    return common


def _even_share(tokens: int, room: int) -> int:
    """Size of each chunk when ``tokens`` are spread over as few chunks as possible."""
    room = max(1, room)
    chunks = -(-tokens // room)
    return -(-tokens // max(1, chunks))


def _line_spans(text: str, start: int, end: int) -> list[tuple[int, int]]:
    """Lines with the newlines that end them."""
    spans = []
    while start < end:
        newline = text.find("\n", start, end)
        stop = end if newline < 0 else newline + 1
        spans.append((start, stop))
        start = stop
    return spans


def _sentence_spans(text: str, start: int, end: int) -> list[tuple[int, int]]:
    """Sentences with the space after them. Linear: each character is looked at once or twice."""
    spans = []
    begin = start
    for match in _SENTENCE.finditer(text, start, end):
        stop = match.end()
        if _ABBREVIATION.search(text, max(begin, stop - 12), stop):
            continue
        if stop > begin:
            spans.append((begin, stop))
            begin = stop
    if begin < end:
        spans.append((begin, end))
    return spans
