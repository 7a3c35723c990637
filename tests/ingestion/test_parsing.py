"""What each format's parser finds, on documents made here and on the shared odd files."""

from __future__ import annotations

import io
import random
import unicodedata
from pathlib import Path

import openpyxl
import pytest
from docx import Document as WordDocument
from pptx import Presentation

from ingestion import admission
from ingestion.elements import ElementKind, ParsedDocument
from ingestion.errors import FailureCode, IngestionError
from ingestion.parsing import parse_document
from ingestion.parsing_json import InvalidDocumentError, from_json, to_json
from ingestion.parsing_limits import Limits

LIMITS = Limits()


def parse(data: bytes | str, name: str, limits: Limits = LIMITS) -> ParsedDocument:
    raw = data.encode() if isinstance(data, str) else data
    media_type = admission.inspect_bytes(raw, filename=name, limits=limits)
    document = parse_document(raw, media_type=media_type, limits=limits)
    assert_promises(document)
    return document


def assert_promises(document: ParsedDocument) -> None:
    """What ingestion.elements says of every ParsedDocument."""
    assert unicodedata.is_normalized("NFC", document.text)
    assert "\0" not in document.text
    document.text.encode()
    position = 0
    for element in document.elements:
        assert document.text[position : element.char_start].strip() == ""
        assert document.text[element.char_start : element.char_end].strip()
        position = element.char_end
    assert position == len(document.text)
    for box in document.boxes:
        assert 0 <= box.x0 <= box.x1 <= 1 and 0 <= box.y0 <= box.y1 <= 1
        assert document.text[box.char_start : box.char_end].strip()
    assert from_json(to_json(document), max_characters=len(document.text)) == document


def shape(document: ParsedDocument) -> list[tuple[str, int, str]]:
    return [
        (e.kind.value, e.level, document.text[e.char_start : e.char_end]) for e in document.elements
    ]


MARKDOWN = """---
title: "From the front matter"
---
# Top

Intro with a [link](http://example.org), `code` and **bold**
on two lines:
- one
  - nested

    second paragraph of nested
- two

3. third
4. fourth

| A | B |
|---|---|
| 1 | x & y |
| 2 |   |

```python
def f():

    return 1
```

<details><summary>More</summary>Hidden words</details>
<script>alert(1)</script>

![a red duck](duck.png)
"""


def test_markdown() -> None:
    document = parse(MARKDOWN, "a.md")
    assert document.title == "From the front matter"
    assert shape(document) == [
        ("heading", 1, "Top"),
        ("paragraph", 0, "Intro with a link, code and bold on two lines:"),
        ("list_item", 0, "one"),
        ("list_item", 1, "nested"),
        ("paragraph", 0, "second paragraph of nested"),
        ("list_item", 0, "two"),
        ("list_item", 0, "3. third"),
        ("list_item", 0, "4. fourth"),
        ("table", 0, "A | B\n1 | x & y\n2 |"),
        ("code", 0, "def f():\n\n    return 1"),
        ("paragraph", 0, "More"),
        ("paragraph", 0, "Hidden words"),
        ("paragraph", 0, "a red duck"),
    ]


def test_html_keeps_content_and_drops_the_frame() -> None:
    document = parse(
        """<html><head><title>Leave policy</title><style>p{}</style></head><body>
        <nav><ul><li>Home</li></ul></nav><h1>Leave</h1>
        <p>Ten<br>days.&nbsp;It is in<b>dubit</b>able.</p><p hidden>unseen</p>
        <figure><figcaption>Caption stays</figcaption></figure>
        <table><tr><th>Kind</th><th>Days</th></tr><tr><td>H<sub>2</sub>O</td><td>1</td></tr></table>
        <table role="presentation"><tr><td><h2>Inside layout</h2><p>text</p></td></tr></table>
        <form><p>In a form</p><button>Send</button></form><script>x()</script>
        <footer>Imprint</footer></body></html>""",
        "a.html",
    )
    assert document.title == "Leave policy"
    assert [text for _, _, text in shape(document)] == [
        "Leave",
        "Ten days. It is indubitable.",
        "Caption stays",
        "Kind | Days\nH2O | 1",
        "Inside layout",
        "text",
        "In a form",
    ]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "latin-1"])
def test_text_in_any_encoding(encoding: str) -> None:
    text = "Die Prüfung für Überstunden läuft am Dienstag. Später gibt es Kaffee für alle."
    document = parse(f"{text}\n\nZweiter Absatz\nmit Umbruch.".encode(encoding), "a.txt")
    assert document.text == f"{text}\n\nZweiter Absatz mit Umbruch."


def test_text_is_stored_normalised() -> None:
    assert parse("Cafe\u0301 co\u00adoperate\u200a\0!".replace("\0", ""), "a.txt").text == (
        "Café cooperate !"
    )


def test_csv_keeps_every_cell_as_written() -> None:
    document = parse("id;name;x\n007;NA;1.50\n008;null;None\n", "a.csv")
    (table,) = document.elements
    assert table.rows == (("id", "name", "x"), ("007", "NA", "1.50"), ("008", "null", "None"))
    assert document.text == "id | name | x\n007 | NA | 1.50\n008 | null | None"


def test_xlsx_sheets_are_pages() -> None:
    book = openpyxl.Workbook()
    first = book.active
    assert first is not None
    first.title = "Prices"
    first.append(["Price list 2026"])
    first.append(["item", "price"])
    first.append(["NA", 1.0])
    book.create_sheet("Staff").append(["name", "room"])
    buffer = io.BytesIO()
    book.save(buffer)
    document = parse(buffer.getvalue(), "a.xlsx")
    assert [(e.kind, e.page) for e in document.elements] == [
        (ElementKind.HEADING, 1),
        (ElementKind.PARAGRAPH, 1),
        (ElementKind.TABLE, 1),
        (ElementKind.HEADING, 2),
        (ElementKind.TABLE, 2),
    ]
    assert document.elements[2].rows == (("item", "price"), ("NA", "1"))
    assert document.page_count == 2


def test_docx_headings_lists_and_tables() -> None:
    word = WordDocument()
    word.core_properties.title = "Staff handbook"
    word.add_heading("Leave", 1)
    word.add_paragraph("Everybody has thirty days.")
    word.add_heading("Sick leave", 2)
    word.add_paragraph("Call in", style="List Bullet")
    table = word.add_table(rows=2, cols=2)
    for cell, text in zip(table._cells, ("Kind", "Days", "NA", "3"), strict=True):
        cell.text = text
    buffer = io.BytesIO()
    word.save(buffer)
    document = parse(buffer.getvalue(), "a.docx")
    assert document.title == "Staff handbook"
    assert shape(document) == [
        ("heading", 1, "Leave"),
        ("paragraph", 0, "Everybody has thirty days."),
        ("heading", 2, "Sick leave"),
        ("list_item", 0, "Call in"),
        ("table", 0, "Kind | Days\nNA | 3"),
    ]


def test_pptx_slides_are_pages_and_notes_are_read() -> None:
    deck = Presentation()
    for number in (1, 2):
        slide = deck.slides.add_slide(deck.slide_layouts[1])
        slide.shapes.title.text = f"Slide {number}"
        slide.placeholders[1].text_frame.text = f"Point {number}"
        slide.notes_slide.notes_text_frame.text = f"Say {number}"
    buffer = io.BytesIO()
    deck.save(buffer)
    document = parse(buffer.getvalue(), "a.pptx")
    assert document.page_count == 2
    texts = [(e.page, document.text[e.char_start : e.char_end]) for e in document.elements]
    assert {(1, "Slide 1"), (1, "Say 1"), (2, "Point 2"), (2, "Say 2")} <= set(texts)
    assert [e.level for e in document.elements if e.kind is ElementKind.HEADING] == [1, 1]


def test_email() -> None:
    document = parse(
        "From: Ann <ann@example.org>\nTo: Bob <bob@example.org>\nSubject: =?utf-8?q?Caf=C3=A9?=\n"
        "Date: Fri, 23 Dec 2022 12:08:48 -0600\nMIME-Version: 1.0\n"
        'Content-Type: multipart/mixed; boundary="b"\n\n--b\nContent-Type: text/plain\n\n'
        "Hello Bob.\n\n--b\nContent-Type: application/pdf\n"
        'Content-Disposition: attachment; filename="x.pdf"\n\nabc\n--b--\n',
        "a.eml",
    )
    assert document.title == "Café"
    assert document.text.startswith("Café\n\nFrom: Ann <ann@example.org>\n\nTo: Bob")
    assert document.text.endswith("Hello Bob.\n\nAttachments: x.pdf")
    assert "x.pdf" in document.warnings[0]


def make_pdf(pages: list[list[tuple[float, float, float, str]]], rotate: int = 0) -> bytes:
    """A PDF whose pages (612 x 792) show (x, y from the bottom, size, text)."""
    objects = [b"<</Type/Catalog/Pages 2 0 R>>", b""]
    kids = []
    font = b"<</Type/Font/Subtype/Type1/BaseFont/Helvetica/Encoding/WinAnsiEncoding>>"
    for lines in pages:
        content = b"".join(
            b"BT /F %g Tf %g %g Td (%s) Tj ET\n" % (size, x, y, text.encode("cp1252"))
            for x, y, size, text in lines
        )
        number = len(objects) + 1
        kids.append(b"%d 0 R" % number)
        objects.append(
            b"<</Type/Page/Parent 2 0 R/MediaBox[0 0 612 792]/Rotate %d/Contents %d 0 R"
            b"/Resources<</Font<</F %s>>>>>>" % (rotate, number + 1, font)
        )
        objects.append(b"<</Length %d>>stream\n%sendstream" % (len(content), content))
    objects[1] = b"<</Type/Pages/Count %d/Kids[%s]>>" % (len(pages), b" ".join(kids))
    out = b"%PDF-1.4\n"
    offsets = []
    for number, body in enumerate(objects, start=1):
        offsets.append(len(out))
        out += b"%d 0 obj%s endobj\n" % (number, body)
    xref = b"".join(b"%010d 00000 n \n" % offset for offset in offsets)
    size = len(objects) + 1
    trailer = b"trailer<</Size %d/Root 1 0 R>>\nstartxref\n%d\n%%%%EOF" % (size, len(out))
    return out + b"xref\n0 %d\n0000000000 65535 f \n" % size + xref + trailer


PAGE = [
    (72.0, 700.0, 24.0, "Annual report"),
    (72.0, 660.0, 11.0, "The company was founded in nineteen hundred and has since then made"),
    (72.0, 646.0, 11.0, "many good things. It has an inter-"),
    (72.0, 632.0, 11.0, "national business."),
    (72.0, 590.0, 11.0, "A second paragraph follows after a gap and ends here."),
]


def test_pdf_paragraphs_headings_and_boxes() -> None:
    document = parse(make_pdf([PAGE]), "a.pdf")
    kinds = [(e.kind, e.page) for e in document.elements]
    assert kinds == [
        (ElementKind.HEADING, 1),
        (ElementKind.PARAGRAPH, 1),
        (ElementKind.PARAGRAPH, 1),
    ]
    assert "made many good things. It has an international business." in document.text
    heading = document.boxes[0]
    assert document.text[heading.char_start : heading.char_end] == "Annual report"
    assert 0.10 < heading.x0 < 0.13 and 72 / 792 < heading.y0 < heading.y1 < 98 / 792
    shown = [document.text[box.char_start : box.char_end] for box in document.boxes]
    assert shown[3] == "national business."


@pytest.mark.parametrize(
    ("rotate", "across", "down"),
    [(0, 0.118, 0.116), (90, 0.884, 0.118), (180, 0.882, 0.884), (270, 0.116, 0.882)],
)
def test_pdf_boxes_follow_the_page_as_shown(rotate: int, across: float, down: float) -> None:
    """The first letter stands at 72 points from the left and 700 from the bottom, unrotated."""
    (box,) = parse(make_pdf([[(72.0, 700.0, 12.0, "I")]], rotate), "a.pdf").boxes
    assert box.x0 - 0.01 <= across <= box.x1 + 0.01
    assert box.y0 - 0.01 <= down <= box.y1 + 0.01


def test_pdf_running_heads_go_and_page_numbers_with_them() -> None:
    pages = [
        [
            (72.0, 760.0, 9.0, "ACME handbook"),
            (72.0, 500.0, 11.0, f"Words of page {n}."),
            (300.0, 30.0, 9.0, f"{n}"),
        ]
        for n in range(1, 7)
    ]
    document = parse(make_pdf(pages), "a.pdf")
    assert document.text == "\n\n".join(f"Words of page {n}." for n in range(1, 7))
    assert document.page_count == 6


def test_pdf_pages_that_are_blank_are_no_fault() -> None:
    document = parse(make_pdf([PAGE, [], PAGE, [], []]), "a.pdf")
    assert document.warnings == () and document.page_count == 5


@pytest.mark.parametrize(
    ("data", "limits", "code"),
    [
        (make_pdf([[], []]), LIMITS, FailureCode.NO_TEXT),
        (make_pdf([PAGE] * 3), Limits(max_pages=2), FailureCode.TOO_MANY_PAGES),
        (make_pdf([PAGE] * 3), Limits(max_characters=100), FailureCode.TOO_MUCH_TEXT),
        (b"%PDF-1.4\ngarbage", LIMITS, FailureCode.CORRUPT_FILE),
    ],
)
def test_pdf_refusals(data: bytes, limits: Limits, code: FailureCode) -> None:
    with pytest.raises(IngestionError) as caught:
        parse(data, "a.pdf", limits)
    assert caught.value.code is code


def test_pdf_progress_counts_pages() -> None:
    seen: list[tuple[int, int]] = []
    parse_document(
        make_pdf([PAGE] * 3),
        media_type=admission.PDF,
        limits=LIMITS,
        on_progress=lambda done, total: seen.append((done, total)),
    )
    assert seen == [(1, 3), (2, 3), (3, 3)]


def test_every_odd_file_ends_well(shared_data: Path) -> None:
    """Either a document that keeps every promise or a failure with a sentence."""
    codes: dict[str, str] = {}
    for path in sorted((shared_data / "files" / "files").iterdir()):
        try:
            parse(path.read_bytes(), path.name)
            codes[path.name] = "ok"
        except IngestionError as error:
            assert error.detail.endswith(".")
            codes[path.name] = error.code
    assert sum(code == "ok" for code in codes.values()) >= 90
    assert not {FailureCode.PARSE_CRASHED, FailureCode.INTERNAL} & set(codes.values())
    passwords = [name for name, code in codes.items() if code == "password_protected"]
    assert len(passwords) >= 9


@pytest.mark.parametrize("name", ["a.md", "a.html", "a.eml", "a.pdf", "a.docx", "a.csv", "a.rtf"])
def test_mutations_never_escape_as_other_exceptions(name: str) -> None:
    word = WordDocument()
    word.add_heading("Leave", 1)
    buffer = io.BytesIO()
    word.save(buffer)
    seeds = {
        "a.md": MARKDOWN.encode(),
        "a.html": b"<table><tr><td>x</td></tr></table><ol><li>a<li>b</ol>",
        "a.eml": b"From: a@b\nSubject: x\nContent-Type: text/html\n\n<p>hi</p>",
        "a.pdf": make_pdf([PAGE, PAGE]),
        "a.docx": buffer.getvalue(),
        "a.csv": b'a,b\n1,"2\n3"\n',
        "a.rtf": b"{\\rtf1\\ansi hello\\par world}",
    }
    chance = random.Random(7)
    for _ in range(15 if name == "a.rtf" else 60):
        data = bytearray(seeds[name])
        for _ in range(chance.randint(1, 20)):
            data[chance.randrange(len(data))] = chance.randrange(256)
        mutant = bytes(data[: chance.randint(1, len(data))] if chance.random() < 0.3 else data)
        try:
            parse(mutant, name)
        except IngestionError as error:
            assert error.code in FailureCode


def test_unstructured_patch_stays_effective(monkeypatch: pytest.MonkeyPatch) -> None:
    """The pinned version still goes through the one name that is patched, and loads no model."""
    from unstructured.nlp import tokenize
    from unstructured.partition.text import partition_text

    from ingestion.parsers import unstructured_engine

    monkeypatch.setattr(tokenize, "_load_spacy_model", lambda: pytest.fail("loaded a model"))
    monkeypatch.setattr(tokenize, "_install_spacy_model", lambda: pytest.fail("downloads"))
    pipeline: object = tokenize._get_nlp()
    assert pipeline is unstructured_engine._PIPELINE
    elements = partition_text(text="Some plain narrative text of several words.", languages=[""])
    assert elements[0].text.startswith("Some")


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b'"char', b'"chr'),
        (b'["paragraph",0,', b'["paragraph",1,'),
        (b'["paragraph",0,5', b'["paragraph",0,6'),
        (b'["paragraph",0,5', b'["paragraph",0,-5'),
        (b'["paragraph",0,5', b'["paragraph",0,true'),
        (b'"paragraph"', b'"rm -rf"'),
        (b'"text":"words"', b'"text":"w\\u0000rds"'),
        (b'"text":"words"', b'"text":"w\\ud800rds"'),
        (b'"text":"words"', b'"text":"we\\u0301ds"'),
        (b'"warnings":[]', b'"warnings":[1]'),
        (b'"metadata":{', b'"metadata":{"x":{"y":1},'),
        (b'"boxes":[]', b'"boxes":[[1,0,5,0,0,1.5,1]]'),
        (b'"boxes":[]', b'"boxes":[[1,0,9,0,0,1,1]]'),
        (b'"boxes":[]', b'"boxes":[[0,0,5,0,0,1,1]]'),
        (b'"boxes":[]', b'"boxes":[[1,0,5,NaN,0,1,1]]'),
        (b'"page_count":null', b'"page_count":"1"'),
        (b'"title":""', b'"title":"","extra":1'),
        (b"{", b"["),
    ],
)
def test_answers_of_a_hostile_child_are_refused(old: bytes, new: bytes) -> None:
    good = to_json(parse("words", "a.txt"))
    bad = good.replace(old, new, 1)
    if bad == good:
        bad = good[:-1]
    with pytest.raises(InvalidDocumentError):
        from_json(bad, max_characters=100)
    assert from_json(good, max_characters=100).text == "words"
