"""The stored text of a version as blocks for the document view, with one passage marked."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, Literal

CELL_SEPARATOR = " | "
PART_CHARACTERS = 60_000


@dataclass(frozen=True, slots=True)
class Segment:
    """A stretch of text; ``is_first`` is true for the first marked one of the document."""

    text: str
    is_marked: bool = False
    is_first: bool = False


Line = tuple[Segment, ...]


@dataclass(slots=True)
class Block:
    """One thing to draw. ``lines`` holds one Line, the items of a list, or nothing for a table."""

    kind: Literal["heading", "paragraph", "list", "table", "code"]
    level: int = 0
    lines: list[tuple[int, Line]] = field(default_factory=list)
    rows: list[list[Line]] = field(default_factory=list)
    page_mark: int | None = None

    @property
    def line(self) -> Line:
        """Of everything but lists and tables."""
        return self.lines[0][1]

    @property
    def tag(self) -> str:
        """The page's own title is h1, so the document's headings start at h2."""
        return f"h{min(self.level + 1, 6)}"


@dataclass(frozen=True, slots=True)
class Part:
    """A stretch of a long document: elements ``[first, last)``, numbered from 1."""

    number: int
    first: int
    last: int


def parts_of(elements: list[dict[str, Any]]) -> list[Part]:
    """Cut after every PART_CHARACTERS characters, between elements; at least one part."""
    cuts = [0]
    begun = 0
    for index, element in enumerate(elements):
        if element["char_end"] - begun > PART_CHARACTERS and index > cuts[-1]:
            cuts.append(index)
            begun = element["char_start"]
    cuts.append(len(elements))
    return [Part(number, *span) for number, span in enumerate(pairwise(cuts), start=1)]


def part_with(parts: list[Part], elements: list[dict[str, Any]], offset: int) -> Part:
    """The part in which the character at ``offset`` stands."""
    return next(
        (p for p in parts if p.last and elements[p.last - 1]["char_end"] > offset), parts[-1]
    )


def blocks_of(
    text: str, elements: Iterable[Mapping[str, Any]], passage: tuple[int, int] | None
) -> list[Block]:
    """Elements as blocks, list items gathered into lists, pages announced where they change."""
    marker = _Marker(text, passage)
    blocks: list[Block] = []
    page: int | None = None
    for element in elements:
        block = _block(marker, element)
        if (number := element.get("page")) and number != page:
            page = block.page_mark = number
        last = blocks[-1] if blocks else None
        if last and last.kind == block.kind == "list" and block.page_mark is None:
            last.lines += block.lines
        else:
            blocks.append(block)
    return blocks


class _Marker:
    """Cuts slices of the text at the borders of the passage."""

    def __init__(self, text: str, passage: tuple[int, int] | None) -> None:
        self._text = text
        self._passage = passage
        self._is_found = False

    def line(self, start: int, end: int) -> Line:
        return tuple(self._segments(start, end))

    def slice(self, start: int, end: int) -> str:
        return self._text[start:end]

    def _segments(self, start: int, end: int) -> Iterator[Segment]:
        begin, stop = self._passage or (end, end)
        begin, stop = max(start, begin), min(end, stop)
        if begin >= stop:
            yield Segment(self._text[start:end])
            return
        if start < begin:
            yield Segment(self._text[start:begin])
        yield Segment(self._text[begin:stop], is_marked=True, is_first=not self._is_found)
        self._is_found = True
        if stop < end:
            yield Segment(self._text[stop:end])


def _block(marker: _Marker, element: Mapping[str, Any]) -> Block:
    start, end, level = element["char_start"], element["char_end"], element.get("level", 0)
    match element["kind"]:
        case "heading":
            return Block("heading", level=level, lines=[(0, marker.line(start, end))])
        case "list_item":
            return Block("list", lines=[(min(level, 3), marker.line(start, end))])
        case "table" if element.get("rows"):
            return Block("table", rows=_rows(marker, start, end, element["rows"]))
        case "code" | "table":
            return Block("code", lines=[(0, marker.line(start, end))])
    return Block("paragraph", lines=[(0, marker.line(start, end))])


def _rows(marker: _Marker, start: int, end: int, rows: list[list[str]]) -> list[list[Line]]:
    """Cells by their place in the text, which joins cells with " | " and rows with a newline."""
    drawn: list[list[Line]] = []
    at = start
    for row in rows:
        cells: list[Line] = []
        for cell in row:
            if marker.slice(at, at + len(cell)) != cell:  # another writer: draw without marks
                return [[(Segment(cell),) for cell in row] for row in rows]
            cells.append(marker.line(at, at + len(cell)) if cell else ())
            at += len(cell) + len(CELL_SEPARATOR)
        at += 1 - len(CELL_SEPARATOR)
        drawn.append(cells)
    return drawn if at - 1 <= end else [[(Segment(cell),) for cell in row] for row in rows]
