"""ParsedDocument to JSON and back. The reader trusts nothing: its input comes from the child."""

from __future__ import annotations

import json
import math
import unicodedata
from typing import Any, Final

from ingestion.elements import Box, Element, ElementKind, ParsedDocument

_FIELDS: Final = frozenset(
    [
        "text",
        "elements",
        "title",
        "page_count",
        "boxes",
        "media_type",
        "parser",
        "warnings",
        "metadata",
    ]
)
_KINDS: Final = frozenset(kind.value for kind in ElementKind)
_MAX_PAGE: Final = 1_000_000
_MAX_LEVEL: Final = 1_000
_MAX_WARNINGS: Final = 100
_MAX_SHORT: Final = 2_000
_MAX_METADATA: Final = 50


class InvalidDocumentError(ValueError):
    """What the child sent is not a document; the message names the field."""


def to_json(document: ParsedDocument) -> bytes:
    """Compact UTF-8. Elements and boxes are arrays in the order of their dataclass's fields."""
    return json.dumps(
        {
            "text": document.text,
            "elements": [
                [e.kind.value, e.char_start, e.char_end, e.level, e.page, e.rows]
                for e in document.elements
            ],
            "title": document.title,
            "page_count": document.page_count,
            "boxes": [
                [b.page, b.char_start, b.char_end, b.x0, b.y0, b.x1, b.y1] for b in document.boxes
            ],
            "media_type": document.media_type,
            "parser": document.parser,
            "warnings": document.warnings,
            "metadata": document.metadata,
        },
        ensure_ascii=False,
        separators=(",", ":"),
        allow_nan=False,
    ).encode()


def from_json(data: bytes, *, max_characters: int) -> ParsedDocument:
    """The document, with every promise of ParsedDocument checked.

    Raises InvalidDocumentError: wrong fields or types, text that is not NFC or holds NUL or
    surrogates, offsets that overlap, go backwards or leave the text, a table whose rows are not
    cells, coordinates outside the page.
    """
    try:
        raw = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise InvalidDocumentError("not JSON") from error
    _require(isinstance(raw, dict) and raw.keys() == _FIELDS, "fields")
    text = _storable(raw["text"], "text", limit=max_characters)
    page_count = _optional_int(raw["page_count"], "page_count", 0, _MAX_PAGE)
    return ParsedDocument(
        text=text,
        elements=_elements(raw["elements"], text),
        title=_storable(raw["title"], "title", limit=_MAX_SHORT),
        page_count=page_count,
        boxes=_boxes(raw["boxes"], len(text)),
        media_type=_storable(raw["media_type"], "media_type", limit=_MAX_SHORT),
        parser=_storable(raw["parser"], "parser", limit=_MAX_SHORT),
        warnings=_warnings(raw["warnings"]),
        metadata=_metadata(raw["metadata"]),
    )


def _require(condition: bool, field: str) -> None:
    if not condition:
        raise InvalidDocumentError(field)


def _storable(value: Any, field: str, *, limit: int) -> str:
    _require(isinstance(value, str) and len(value) <= limit, field)
    text: str = value
    _require("\0" not in text and unicodedata.is_normalized("NFC", text), field)
    try:
        text.encode()
    except UnicodeEncodeError as error:  # a lone surrogate
        raise InvalidDocumentError(field) from error
    return text


def _int(value: Any, field: str, low: int, high: int) -> int:
    _require(type(value) is int and low <= value <= high, field)
    number: int = value
    return number


def _optional_int(value: Any, field: str, low: int, high: int) -> int | None:
    return None if value is None else _int(value, field, low, high)


def _fraction(value: Any) -> float:
    _require(type(value) in (int, float) and math.isfinite(value) and 0 <= value <= 1, "boxes")
    return float(value)


def _elements(value: Any, text: str) -> tuple[Element, ...]:
    _require(isinstance(value, list) and bool(value), "elements")
    elements = []
    position = 0
    for item in value:
        _require(isinstance(item, list) and len(item) == 6, "elements")
        kind, start, end, level, page, rows = item
        _require(isinstance(kind, str) and kind in _KINDS, "elements.kind")
        start = _int(start, "elements.char_start", position, len(text))
        end = _int(end, "elements.char_end", start + 1, len(text))
        _require(not text[position:start].strip(), "elements.char_start")  # nothing between them
        position = end
        elements.append(
            Element(
                ElementKind(kind),
                start,
                end,
                level=_int(level, "elements.level", 0, _MAX_LEVEL),
                page=_optional_int(page, "elements.page", 1, _MAX_PAGE),
                rows=_rows(rows, limit=len(text) + 1),
            )
        )
    _require(position == len(text), "elements.char_end")
    return tuple(elements)


def _rows(value: Any, *, limit: int) -> tuple[tuple[str, ...], ...]:
    _require(isinstance(value, list), "elements.rows")
    rows = []
    for row in value:
        _require(isinstance(row, list), "elements.rows")
        rows.append(tuple(_storable(cell, "elements.rows", limit=limit) for cell in row))
    return tuple(rows)


def _boxes(value: Any, length: int) -> tuple[Box, ...]:
    _require(isinstance(value, list), "boxes")
    boxes = []
    for item in value:
        _require(isinstance(item, list) and len(item) == 7, "boxes")
        page, start, end, *edges = item
        start = _int(start, "boxes.char_start", 0, length)
        boxes.append(
            Box(
                _int(page, "boxes.page", 1, _MAX_PAGE),
                start,
                _int(end, "boxes.char_end", start + 1, length),
                *map(_fraction, edges),
            )
        )
    return tuple(boxes)


def _warnings(value: Any) -> tuple[str, ...]:
    _require(isinstance(value, list) and len(value) <= _MAX_WARNINGS, "warnings")
    return tuple(_storable(item, "warnings", limit=_MAX_SHORT) for item in value)


def _metadata(value: Any) -> dict[str, Any]:
    """Short names to short strings or lists of them."""
    _require(isinstance(value, dict) and len(value) <= _MAX_METADATA, "metadata")
    metadata: dict[str, Any] = {}
    for key, item in value.items():
        name = _storable(key, "metadata", limit=100)
        if isinstance(item, list):
            _require(len(item) <= _MAX_WARNINGS, "metadata")
            metadata[name] = [_storable(part, "metadata", limit=_MAX_SHORT) for part in item]
        else:
            metadata[name] = _storable(item, "metadata", limit=_MAX_SHORT)
    return metadata
