"""Parts of a document before they are laid out in one text, and the laying out."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Any, Final

from ingestion.attachments import Attachment
from ingestion.elements import Box, Element, ElementKind, ParsedDocument
from ingestion.errors import FailureCode, IngestionError

SEPARATOR: Final = "\n\n"
CELL_SEPARATOR: Final = " | "
MAX_TABLE_CELLS: Final = 200_000
_MAX_TITLE: Final = 300
_MAX_HEADING: Final = 500

# Soft hyphen, byte order mark, lone surrogates and control characters other than tab and newline.
_UNWANTED: Final = re.compile(
    "[\x00-\x08\x0e-\x1f\x7f-\x84\x86-\x9f\u00ad\ufeff\ufffe\uffff\ud800-\udfff]"
)
_LINE_ENDS: Final = re.compile("\r\n?|[\x0b\x0c\x85\u2028\u2029]")
_TRAILING_SPACE: Final = re.compile(r"[^\S\n]+$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class LineBox:
    """Where one line of a Block is on its page: ``line[i]`` of the Block's lines.

    Fractions of the page, origin top left, as in ingestion.elements.Box.
    """

    x0: float
    y0: float
    x1: float
    y1: float


@dataclass(frozen=True, slots=True)
class Block:
    """An Element before its place in the text is known.

    ``text`` is raw. ``lines`` are (start, end, box) offsets into ``text`` where a page layout is
    known; a Block with lines must hold text that ``clean`` does not change.
    """

    kind: ElementKind
    text: str = ""
    level: int = 0
    page: int | None = None
    rows: tuple[tuple[str, ...], ...] = ()
    lines: tuple[tuple[int, int, LineBox], ...] = ()


@dataclass(slots=True)
class Extraction:
    """What a format's parser hands over. ``page_count`` is None where there are no pages.

    ``attachments`` are the files inside with their raw names, read only when they are wanted.
    ``heading_is_title``: without a ``title``, a top heading that comes first is the title.
    """

    blocks: Iterable[Block]
    parser: str
    title: str = ""
    page_count: int | None = None
    warnings: list[str] = field(default_factory=list)
    metadata: dict[str, Any] = field(default_factory=dict)
    heading_is_title: bool = True
    attachments: Iterable[Attachment] = ()


def attach(extraction: Extraction, attachments: list[Attachment]) -> Extraction:
    """Adds files inside the document, and their names to its text."""
    names = [name for attachment in attachments if (name := clean(attachment.name))]
    if not attachments:
        return extraction
    listing = Block(ElementKind.PARAGRAPH, "Attachments: " + ", ".join(names))
    extraction.blocks = [*extraction.blocks, listing]
    extraction.attachments = attachments
    return extraction


def clean(text: str) -> str:
    """NFC without characters that cannot be stored or seen; whitespace runs become one space."""
    return " ".join(unicodedata.normalize("NFC", _UNWANTED.sub("", text)).split())


def clean_verbatim(text: str) -> str:
    """Like ``clean``, but lines and indentation stay: for code."""
    text = _UNWANTED.sub("", _LINE_ENDS.sub("\n", text))
    text = _TRAILING_SPACE.sub("", unicodedata.normalize("NFC", text))
    return text.strip("\n").expandtabs(4)


def clean_rows(rows: Iterable[Iterable[str]]) -> tuple[tuple[str, ...], ...]:
    """Cells cleaned; rows and trailing columns that are empty throughout are dropped."""
    cleaned = [tuple(clean(cell) for cell in row) for row in rows]
    cleaned = [row for row in cleaned if any(row)]
    width = max((index + 1 for row in cleaned for index, cell in enumerate(row) if cell), default=0)
    return tuple(row[:width] + ("",) * (width - len(row)) for row in cleaned)


def lay_out(extraction: Extraction, *, media_type: str, max_characters: int) -> ParsedDocument:
    """Joins the Blocks with blank lines and records where each one came to lie.

    Raises IngestionError: no_text, too_much_text.
    """
    parts: list[str] = []
    elements: list[Element] = []
    boxes: list[Box] = []
    position = cells = 0
    for block in extraction.blocks:
        element, text = _settle(block, position + len(SEPARATOR) if parts else 0)
        if not text:
            continue
        cells += sum(len(row) for row in element.rows)
        if cells > MAX_TABLE_CELLS:  # the text still has every row
            element = replace(element, rows=())
        position = element.char_end
        if position > max_characters:
            raise IngestionError(FailureCode.TOO_MUCH_TEXT, limit=f"{max_characters:,} characters")
        parts.append(text)
        elements.append(element)
        boxes.extend(
            Box(
                block.page or 1,
                element.char_start + start,
                element.char_start + end,
                *(round(min(1.0, max(0.0, edge)), 4) for edge in (box.x0, box.y0, box.x1, box.y1)),
            )
            for start, end, box in block.lines
        )
    if not elements:
        raise IngestionError(FailureCode.NO_TEXT)
    text = SEPARATOR.join(parts)
    title = clean(extraction.title)
    if not title and extraction.heading_is_title:
        title = _first_heading(text, elements)
    return ParsedDocument(
        text=text,
        elements=tuple(elements),
        title=title[:_MAX_TITLE],
        page_count=extraction.page_count,
        boxes=tuple(boxes),
        media_type=media_type,
        parser=extraction.parser,
        warnings=tuple(clean(warning) for warning in extraction.warnings),
        metadata=extraction.metadata,
    )


def _settle(block: Block, start: int) -> tuple[Element, str]:
    kind, level, rows = block.kind, block.level, block.rows
    if kind is ElementKind.TABLE:
        rows = clean_rows(rows)
        text = "\n".join(CELL_SEPARATOR.join(row).strip() for row in rows)
    elif kind is ElementKind.CODE:
        text = clean_verbatim(block.text)
        text = text if text.strip() else ""
    elif block.lines:
        text = block.text
    else:
        text = clean(block.text)
    if kind is ElementKind.HEADING:
        level = min(max(level, 1), 9)
        if len(text) > _MAX_HEADING:  # a paragraph dressed as a heading
            kind, level = ElementKind.PARAGRAPH, 0
    element = Element(kind, start, start + len(text), level=level, page=block.page, rows=rows)
    return element, text


def _first_heading(text: str, elements: list[Element]) -> str:
    """The document's top heading when it comes before any other text."""
    first = elements[0]
    if first.kind is ElementKind.HEADING and first.level == 1:
        return text[first.char_start : first.char_end]
    return ""
