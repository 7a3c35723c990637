"""What a parser finds in a file. No Django here: the sandboxed child imports it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from enum import StrEnum
from typing import Any


class ElementKind(StrEnum):
    """What role a piece of text plays in its document."""

    HEADING = "heading"
    PARAGRAPH = "paragraph"
    LIST_ITEM = "list_item"
    TABLE = "table"
    CODE = "code"


@dataclass(frozen=True, slots=True)
class Box:
    """A rectangle on a page that shows ``[char_start, char_end)`` of the document's text.

    ``page`` counts from 1; coordinates are fractions (0 to 1) of the page's width and height,
    origin top left.
    """

    page: int
    char_start: int
    char_end: int
    x0: float
    y0: float
    x1: float
    y1: float


@dataclass(frozen=True, slots=True)
class Element:
    """One piece of a document; ``text[char_start:char_end]`` of ParsedDocument is its text.

    ``level`` is the heading level from 1 (headings) or nesting depth from 0 (list items).
    ``page`` counts from 1 where the format has pages (for xlsx the sheet, for pptx the slide).
    ``rows`` holds the cells of a table, header row first.
    """

    kind: ElementKind
    char_start: int
    char_end: int
    level: int = 0
    page: int | None = None
    rows: tuple[tuple[str, ...], ...] = ()


@dataclass(frozen=True, slots=True)
class ParsedDocument:
    """The stored text of a version and where its parts are.

    ``text`` is NFC, has no NUL and no lone surrogates, and joins the elements with blank lines;
    ``title`` is the document's own title when it has one, else "".
    """

    text: str
    elements: tuple[Element, ...]
    title: str = ""
    page_count: int | None = None
    boxes: tuple[Box, ...] = ()
    media_type: str = ""
    parser: str = ""
    warnings: tuple[str, ...] = ()
    metadata: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ChunkDraft:
    """A piece of a document that fits the embedding model's window together with its context.

    ``text == document.text[char_start:char_end]``. ``embed_text`` is what is embedded: title,
    heading path and text. ``page`` is the page of its first character.
    """

    ordinal: int
    text: str
    embed_text: str
    char_start: int
    char_end: int
    heading_path: tuple[str, ...] = ()
    page: int | None = None


def as_rows(parts: Sequence[Element] | Sequence[Box]) -> list[dict[str, Any]]:
    """As stored: one JSON object for each. ``dataclasses.asdict`` copies every cell, at 10 times
    the cost."""
    if not parts:
        return []
    names = [each.name for each in fields(parts[0])]
    return [{name: getattr(part, name) for name in names} for part in parts]
