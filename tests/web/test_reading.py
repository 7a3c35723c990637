from __future__ import annotations

from typing import Any

from assistant.web.reading import Block, Segment, blocks_of, part_with, parts_of


def element(kind: str, text: str, piece: str, **more: Any) -> dict[str, Any]:
    start = text.index(piece)
    return {"kind": kind, "char_start": start, "char_end": start + len(piece), **more}


def marked(blocks: list[Block]) -> list[str]:
    lines = [line for block in blocks for _, line in block.lines]
    lines += [cell for block in blocks for row in block.rows for cell in row]
    return [segment.text for line in lines for segment in line if segment.is_marked]


TEXT = "Leave\n\nYou earn 4 hours.\n\nfirst\n\nsecond\n\nName | Days\nAnna | 12"
ELEMENTS = [
    element("heading", TEXT, "Leave", level=1, page=1),
    element("paragraph", TEXT, "You earn 4 hours.", page=1),
    element("list_item", TEXT, "first", page=2),
    element("list_item", TEXT, "second", level=1, page=2),
    element(
        "table", TEXT, "Name | Days\nAnna | 12", rows=[["Name", "Days"], ["Anna", "12"]], page=2
    ),
]


def test_elements_become_blocks_with_pages_and_lists() -> None:
    blocks = blocks_of(TEXT, ELEMENTS, None)
    assert [(block.kind, block.page_mark) for block in blocks] == [
        ("heading", 1),
        ("paragraph", None),
        ("list", 2),
        ("table", None),
    ]
    assert [(level, line[0].text) for level, line in blocks[2].lines] == [
        (0, "first"),
        (1, "second"),
    ]
    assert blocks[0].tag == "h2"
    assert marked(blocks) == []


def test_a_passage_across_blocks_is_marked_in_each_and_first_once() -> None:
    start, end = TEXT.index("4 hours"), TEXT.index("second") + 3
    blocks = blocks_of(TEXT, ELEMENTS, (start, end))
    assert marked(blocks) == ["4 hours.", "first", "sec"]
    segments = [s for block in blocks for _, line in block.lines for s in line]
    assert [s.text for s in segments if s.is_first] == ["4 hours."]
    assert Segment("You earn ") in segments


def test_a_passage_in_a_table_marks_its_cells() -> None:
    start = TEXT.index("Anna")
    assert marked(blocks_of(TEXT, ELEMENTS, (start, len(TEXT)))) == ["Anna", "12"]
    assert marked(blocks_of(TEXT, ELEMENTS, (TEXT.index("12"), len(TEXT)))) == ["12"]


def test_a_table_whose_text_is_written_otherwise_is_drawn_without_marks() -> None:
    rows = [["Name", "Days"], ["Berta", "12"]]
    table = element("table", TEXT, "Name | Days\nAnna | 12", rows=rows)
    blocks = blocks_of(TEXT, [table], (0, len(TEXT)))
    assert marked(blocks) == []
    assert [cell[0].text for cell in blocks[0].rows[1]] == ["Berta", "12"]


def test_a_table_without_cells_is_shown_as_text() -> None:
    table = element("table", TEXT, "Name | Days\nAnna | 12", rows=[])
    assert blocks_of(TEXT, [table], None)[0].kind == "code"


def test_a_long_document_is_cut_between_elements_and_loses_none() -> None:
    elements = [
        {"kind": "paragraph", "char_start": i * 10_000, "char_end": (i + 1) * 10_000}
        for i in range(50)
    ]
    parts = parts_of(elements)
    assert len(parts) > 5
    assert [index for part in parts for index in range(part.first, part.last)] == list(range(50))
    assert part_with(parts, elements, 495_000) == parts[-1]
    assert part_with(parts, elements, 0) == parts[0]
    assert part_with(parts, elements, 10**9) == parts[-1]


def test_one_huge_element_is_one_part() -> None:
    elements = [{"kind": "code", "char_start": 0, "char_end": 500_000}]
    assert len(parts_of(elements)) == 1
    assert len(parts_of([])) == 1
