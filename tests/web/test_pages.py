"""Marks on the pages of an original."""

from __future__ import annotations

from typing import Any

from assistant.web.pages import marks_of

TEXT = "First line here\nsecond line here\n\nשורה שלישית"


def box(page: int, line: str, top: float) -> dict[str, Any]:
    start = TEXT.index(line)
    return {
        "page": page,
        "char_start": start,
        "char_end": start + len(line),
        "x0": 0.1,
        "y0": top,
        "x1": 0.1 + 0.02 * len(line),
        "y1": round(top + 0.02, 4),
    }


BOXES = [
    box(1, "First line here", 0.1),
    box(1, "second line here", 0.2),
    box(2, "שורה שלישית", 0.1),
]


def passage(first: str, last: str) -> tuple[int, int]:
    return TEXT.index(first), TEXT.index(last) + len(last)


def test_a_passage_within_a_line_takes_its_share_of_the_line() -> None:
    assert marks_of(TEXT, BOXES, passage("line", "line")) == [(1, 0.22, 0.1, 0.3, 0.12)]


def test_a_passage_over_lines_ends_within_the_last() -> None:
    assert marks_of(TEXT, BOXES, passage("here", "second")) == [
        (1, 0.32, 0.1, 0.4, 0.12),
        (1, 0.1, 0.2, 0.22, 0.22),
    ]


def test_a_line_from_right_to_left_is_marked_whole() -> None:
    assert marks_of(TEXT, BOXES, passage("שורה", "שורה")) == [(2, 0.1, 0.1, 0.32, 0.12)]


def test_without_boxes_nothing_is_marked() -> None:
    assert marks_of(TEXT, [], (0, len(TEXT))) == []
