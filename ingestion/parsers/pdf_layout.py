"""Lines of PDF pages to paragraphs, headings and list items. Pure functions over geometry."""

from __future__ import annotations

import re
import statistics
from collections import Counter
from collections.abc import Iterator
from itertools import pairwise
from typing import Final

from ingestion.elements import ElementKind
from ingestion.parsers.blocks import Block, LineBox
from ingestion.parsers.pdf_lines import PdfLine
from ingestion.parsers.pdf_tables import split_tables

_BULLET: Final = re.compile(r"^(?:[•●○▪■◦‣⁃∙·–—*-]|\uf0b7|\uf0a7)\s+(?=\S)")
_NUMBERED: Final = re.compile(r"^(?:\(?\d{1,3}[.)]|\(?[a-zA-Z][.)]|\([ivx]{1,5}\))\s+\S")
_DIGITS: Final = re.compile(r"\d+")
_PAGE_NUMBER: Final = re.compile(
    r"^\W*(?:page|seite|p\.)?\s*\d{1,5}\s*(?:(?:of|von|/)\s*\d{1,5})?\W*$", re.IGNORECASE
)
_SENTENCE_END: Final = (".", "!", "?", ":", ";", "。", "！", "？")
_MARGIN: Final = 0.09
_MIN_PAGES_FOR_MARGINS: Final = 4
_HEADING_RATIO: Final = 1.15
_MAX_HEADING_CHARACTERS: Final = 200
_MAX_HEADING_LEVELS: Final = 4


def blocks_from_lines(
    pages: list[list[PdfLine]], outline: dict[tuple[int, str], int]
) -> list[Block]:
    """Blocks of all pages in pdfium's reading order; no Block spans two pages.

    ``outline`` maps (page from 1, bookmark in lower case) to its level: a paragraph with exactly
    that text is a heading of that level. Larger print makes the other headings.
    """
    margins = _repeated_margins(pages)
    body = _body_size(pages)
    levels = _heading_levels(pages, body)
    blocks: list[Block] = []
    for number, lines in enumerate(pages, start=1):
        kept = [line for line in lines if not _is_margin(line, margins)]
        for part in split_tables(kept or lines, number):
            if isinstance(part, Block):
                blocks.append(part)
            else:
                blocks.extend(_page_blocks(part, number, outline, levels))
    return blocks


def _page_blocks(
    lines: list[PdfLine], page: int, outline: dict[tuple[int, str], int], levels: dict[float, int]
) -> Iterator[Block]:
    leading = _typical_leading(lines)
    right = max((line.box.x1 for line in lines if line.box), default=1.0)
    group: list[PdfLine] = []
    for line in lines:
        if group and _starts_block(group, line, leading, right, levels):
            yield _block(group, page, outline, levels)
            group = []
        group.append(line)
    if group:
        yield _block(group, page, outline, levels)


def _starts_block(
    group: list[PdfLine], line: PdfLine, leading: float, right: float, levels: dict[float, int]
) -> bool:
    previous = group[-1]
    if previous.hyphenated:
        return False
    if _BULLET.match(line.text) or _NUMBERED.match(line.text):
        return True
    if _level(previous, levels) != _level(line, levels):
        return True
    if line.begins is not None:
        return line.begins
    if previous.box is None or line.box is None:
        return False
    step = line.box.y1 - previous.box.y1
    height = max(previous.box.y1 - previous.box.y0, line.box.y1 - line.box.y0, 1e-6)
    if step < -0.5 * height:  # up again: the next column
        return (not previous.text.endswith(_SENTENCE_END) and line.text[:1].isupper()) or (
            previous.text.endswith(_SENTENCE_END)
        )
    if step < 0.5 * height:  # beside it: a cell of the same row
        return False
    if leading and step > max(1.35 * leading, 1.1 * height):
        return True
    # A line that ends a sentence well before the right edge ends a paragraph.
    return previous.text.endswith(_SENTENCE_END) and previous.box.x1 < right - 0.15


def _block(
    group: list[PdfLine], page: int, outline: dict[tuple[int, str], int], levels: dict[float, int]
) -> Block:
    text = ""
    lines: list[tuple[int, int, LineBox]] = []
    for index, line in enumerate(group):
        shown = line.text
        if index == 0 and len(group[0].text) > 2:
            shown = _BULLET.sub("", shown)
        if index and not group[index - 1].hyphenated:
            text += " "
        elif index and shown[:1].isupper():  # a hyphen that belongs to the word: "Anglo-Saxon"
            text += "-"
        start = len(text)
        text += shown
        if line.words:
            cut = len(line.text) - len(shown)  # the bullet
            lines += [
                (start + max(0, a - cut), start + b - cut, box)
                for a, b, box in line.words
                if b > cut
            ]
        elif line.box is not None:
            lines.append((start, len(text), line.box))
    level = outline.get((page, text.lower()), 0) or _group_level(group, text, levels)
    if level:
        return Block(ElementKind.HEADING, text, level=level, page=page, lines=tuple(lines))
    first = group[0].text
    is_item = bool(_BULLET.match(first) or _NUMBERED.match(first))
    kind = ElementKind.LIST_ITEM if is_item else ElementKind.PARAGRAPH
    return Block(kind, text, page=page, lines=tuple(lines))


def _group_level(group: list[PdfLine], text: str, levels: dict[float, int]) -> int:
    level = _level(group[0], levels)
    if not level or len(group) > 3 or len(text) > _MAX_HEADING_CHARACTERS:
        return 0
    has_words = sum(character.isalpha() for character in text) >= 2
    return level if has_words else 0


def _level(line: PdfLine, levels: dict[float, int]) -> int:
    return levels.get(round(line.size), 0)


def _body_size(pages: list[list[PdfLine]]) -> float:
    """The font height that most characters have, in whole points; 0 when unknown."""
    sizes: Counter[int] = Counter()
    for lines in pages:
        for line in lines:
            if line.size:
                sizes[round(line.size)] += len(line.text)
    return float(sizes.most_common(1)[0][0]) if sizes else 0.0


def _heading_levels(pages: list[list[PdfLine]], body: float) -> dict[float, int]:
    """Level by font height: the largest print is 1. Empty where print says nothing."""
    if not body:
        return {}
    weights: Counter[int] = Counter()
    total = 0
    for lines in pages:
        for line in lines:
            total += len(line.text)
            if line.size > _HEADING_RATIO * body:
                weights[round(line.size)] += len(line.text)
    if sum(weights.values()) > 0.3 * total:  # slides and posters: large print is the text
        return {}
    return {
        float(size): min(level, _MAX_HEADING_LEVELS)
        for level, size in enumerate(sorted(weights, reverse=True), start=1)
    }


def _typical_leading(lines: list[PdfLine]) -> float:
    steps = [
        below.box.y1 - above.box.y1
        for above, below in pairwise(lines)
        if above.box and below.box and below.box.y1 > above.box.y1 + 0.002
    ]
    return statistics.median_low(steps) if len(steps) >= 3 else 0.0


def _repeated_margins(pages: list[list[PdfLine]]) -> frozenset[str]:
    """Running heads and feet: the same text, numbers aside, at the edge of most pages."""
    filled = sum(bool(lines) for lines in pages)
    if filled < _MIN_PAGES_FOR_MARGINS:
        return frozenset()
    seen: Counter[str] = Counter()
    for lines in pages:
        seen.update({_margin_key(line) for line in lines if _in_margin(line)})
    return frozenset(key for key, count in seen.items() if key and count >= 0.6 * filled)


def _is_margin(line: PdfLine, margins: frozenset[str]) -> bool:
    if not margins or not _in_margin(line):
        return False
    return _margin_key(line) in margins


def _margin_key(line: PdfLine) -> str:
    return "#" if _PAGE_NUMBER.match(line.text) else _DIGITS.sub("#", line.text.lower())


def _in_margin(line: PdfLine) -> bool:
    return line.box is not None and (line.box.y1 < _MARGIN or line.box.y0 > 1 - _MARGIN)
