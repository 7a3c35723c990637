"""Tables and columns in PDF pages."""

from __future__ import annotations

from ingestion.elements import ElementKind
from tests.ingestion.test_parsing import make_pdf, parse, shape

Piece = tuple[float, float, float, str]
COLUMNS = (72, 220, 330, 450)
ROWS = (
    ("Room", "Seats", "Screen", "Floor"),
    ("Elbe", "12", "yes", "first"),
    ("Weser", "8", "", "second"),
    ("Main with view", "40", "yes", "third"),
)
LEFT = (
    "The harbour was built in nineteen hun-",
    "dred and four on land that the city had",
    "bought from three farmers for this end.",
    "Ships of all nations have called there.",
)
RIGHT = (
    "Today it handles nine million tonnes of",
    "goods a year, half of them in containers",
    "that leave the quay by train at night to",
    "reach the shops of the inland by morning.",
)


def grid(top: float) -> list[Piece]:
    return [
        (x, top - 16 * number, 10, text)
        for number, row in enumerate(ROWS)
        for x, text in zip(COLUMNS, row, strict=True)
        if text
    ]


def test_cells_below_one_another_are_a_table_with_the_place_of_each() -> None:
    before = [(72.0, 740.0, 10.0, "These are the rooms that can be booked by everybody.")]
    after = [(72.0, 560.0, 10.0, "Ask at the desk for a key when you need one early.")]
    document = parse(make_pdf([[*before, *grid(700), *after]]), "a.pdf")
    kinds = [element.kind for element in document.elements]
    assert kinds == [ElementKind.PARAGRAPH, ElementKind.TABLE, ElementKind.PARAGRAPH]
    table = document.elements[1]
    assert table.rows == ROWS
    assert "Weser | 8 | | second" in document.text.replace("|  |", "| |")
    shown = {
        document.text[box.char_start : box.char_end]: box
        for box in document.boxes
        if table.char_start <= box.char_start < table.char_end
    }
    assert set(shown) == {cell for row in ROWS for cell in row if cell}
    for row in ROWS:
        for x, cell in zip(COLUMNS, row, strict=True):
            if cell:
                assert abs(shown[cell].x0 * 612 - x) < 3


def test_two_columns_of_text_are_read_one_after_the_other() -> None:
    pieces: list[Piece] = [
        (x, 700 - 14 * number, 10, line)
        for number in range(4)
        for x, line in ((72, LEFT[number]), (320, RIGHT[number]))
    ]
    document = parse(make_pdf([pieces]), "a.pdf")
    assert all(kind != "table" for kind, _, _ in shape(document))
    text = " ".join(document.text.split())
    assert "nineteen hundred and four on land that the city had bought from three" in text
    assert text.index("called there.") < text.index("Today it handles")
    assert "containers that leave the quay by train" in text


def test_a_form_with_labels_is_not_torn_apart() -> None:
    pieces = [(72.0, 700.0, 10.0, "Name:"), (200.0, 700.0, 10.0, "Ann Example")]
    document = parse(make_pdf([pieces]), "a.pdf")
    assert shape(document) == [("paragraph", 0, "Name: Ann Example")]
