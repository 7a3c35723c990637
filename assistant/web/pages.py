"""Where a passage stands on the pages of the original, for the page view."""

from __future__ import annotations

import unicodedata
from typing import Any, Final

from ingestion.admission import BMP, GIF, JPEG, PDF, PNG, WEBP

DRAWABLE: Final = {PDF: "pdf"} | dict.fromkeys((PNG, JPEG, GIF, WEBP, BMP), "picture")
"""Media types whose pages a browser can draw, and how."""
_RIGHT_TO_LEFT: Final = frozenset({"R", "AL"})

Mark = tuple[int, float, float, float, float]
"""Page from 1, then left, top, right and bottom as fractions of its width and height."""


def marks_of(text: str, boxes: list[dict[str, Any]], passage: tuple[int, int]) -> list[Mark]:
    """The rectangles that show ``text[start:end]``.

    Boxes are known for lines; of a line that begins before the passage or goes on after it, the
    share of its characters is taken as the share of its width.
    """
    start, end = passage
    marks = []
    for box in boxes:
        first, last = box["char_start"], box["char_end"]
        if first >= end or last <= start:
            continue
        left, top, right, bottom = box["x0"], box["y0"], box["x1"], box["y1"]
        if _runs_right(text[first:last]):
            width = (right - left) / (last - first)
            right -= max(0, last - end) * width
            left += max(0, start - first) * width
        marks.append((box["page"], round(left, 4), top, round(right, 4), bottom))
    return marks


def _runs_right(line: str) -> bool:
    return not any(unicodedata.bidirectional(character) in _RIGHT_TO_LEFT for character in line)
