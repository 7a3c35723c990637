"""Markdown, HTML and plain text on their fast path: what the tree means, and what it costs."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from ingestion.elements import ElementKind
from ingestion.parsers.html import blocks_from_html
from ingestion.parsers.markup import parse_markdown
from ingestion.parsers.plain import blocks_from_text

ROOT = Path(__file__).resolve().parents[2]
H, P, L, T, C = (
    ElementKind.HEADING,
    ElementKind.PARAGRAPH,
    ElementKind.LIST_ITEM,
    ElementKind.TABLE,
    ElementKind.CODE,
)


def html(text: str) -> list[tuple[object, ...]]:
    """Kind, level and words of each block; rows of a table."""
    return [
        (block.kind, block.rows) if block.rows else (block.kind, block.level, words(block.text))
        for block in blocks_from_html(text)[1]
    ]


def words(text: str) -> str:
    return " ".join(text.split())


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        # what a browser breaks into lines is one paragraph, unless there is an empty line
        ("<p>12 Main St<br>Springfield</p>", [(P, 0, "12 Main St Springfield")]),
        ("one<br><br>two", [(P, 0, "one"), (P, 0, "two")]),
        ("<div>a <b>b</b>c<p>d</div>e", [(P, 0, "a bc"), (P, 0, "d"), (P, 0, "e")]),
        ("<h2>A <em>b</em></h2><p>,</p>x", [(H, 2, "A b"), (P, 0, "x")]),
        # lists: depth, numbers, and paragraphs after the first
        (
            "<ol start=3><li><p>a</p><p>more</p><ul><li>b</ul><li value=9>c<li>d</ol>",
            [
                (L, 0, "3. a"),
                (P, 0, "more"),
                (L, 1, "b"),
                (L, 0, "9. c"),
                (L, 0, "10. d"),
            ],
        ),
        ("<ul><li><pre>x = 1</pre>text</ul>", [(C, 0, "x = 1"), (L, 0, "text")]),
        # tables: caption, spans, what only arranges a page
        (
            "<table><caption>Fees</caption><tr><th>a<th>b<tr><td rowspan=2>x<td>1<tr><td>2</table>",
            [(P, 0, "Fees"), (T, (("a", "b"), ("x", "1"), ("x", "2")))],
        ),
        (
            "<table><tr><th colspan=2>a<th>b<tr><td>1<td>2<td>3</table>",
            [(T, (("a", "", "b"), ("1", "2", "3")))],
        ),
        ("<table><tr><td><h1>A</h1>b<td>c</table>", [(H, 1, "A"), (P, 0, "b"), (P, 0, "c")]),
        ("<table><tr><td>only<tr><td>one column</table>", [(P, 0, "only"), (P, 0, "one column")]),
        (
            "<table><tr><th>k<td><table><tr><th>x<td>y</table></table>",
            [(T, (("k", "x y"),))],
        ),
        # what nobody sees
        ("<nav>menu</nav><p hidden>x</p><p style='display: none'>y</p>z", [(P, 0, "z")]),
        ("<footer>site</footer><article>a<footer>b</footer></article>", [(P, 0, "a"), (P, 0, "b")]),
        ("see <img alt='the plan' src=http://x> now", [(P, 0, "see the plan now")]),
        ("<!-- only a comment -->", []),
    ],
)
def test_html(source: str, expected: list[tuple[object, ...]]) -> None:
    assert html(source) == expected


def test_deep_nesting_and_wide_spans_are_survived() -> None:
    assert html("<div>" * 5_000 + "deep" + "</div>" * 5_000)[-1:] in ([], [(P, 0, "deep")])
    rows = html("<table><tr><th rowspan=65000 colspan=65000>a<tr><td>b</table>")[0][1]
    assert isinstance(rows, tuple)
    assert len(rows) == 2
    assert max(map(len, rows)) <= 51


def test_markdown_is_commonmark_with_tables() -> None:
    source = (
        "---\ntitle: The plan\n---\nIntro ~~old~~ <b>new</b>\n\n- a\n  - b\n\n1) c\n\n"
        "| x | y |\n|---|---|\n| 1 | *2* |\n\n```py\nif x:\n    y\n```\n\nSub\n---\n"
    )
    extraction = parse_markdown(source.encode())
    assert extraction.title == "The plan"
    found = [(b.kind, b.level, words(b.text), b.rows) for b in extraction.blocks]
    assert found == [
        (P, 0, "Intro new", ()),
        (L, 0, "a", ()),
        (L, 1, "b", ()),
        (L, 0, "1. c", ()),
        (T, 0, "", (("x", "y"), ("1", "2"))),
        (C, 0, "if x: y", ()),
        (H, 2, "Sub", ()),
    ]


def test_plain_text_has_list_items_and_joined_lines() -> None:
    wrapped = "The first line of this paragraph is about\nas long as the second line beside it is."
    blocks = blocks_from_text(f"{wrapped}\n\n• one\n- two\n3. three\n\n-5 degrees\n\nx")
    assert [(block.kind, block.text) for block in blocks] == [
        (P, wrapped.replace("\n", " ")),
        (L, "one"),
        (L, "two"),
        (L, "3. three"),
        (P, "-5 degrees"),
        (P, "x"),
    ]


def test_the_process_for_text_stays_small() -> None:
    """A fork costs what the process has mapped: 400 MB with unstructured, 30 without."""
    code = (
        "import sys; from ingestion import parsing; parsing.preload('text'); "
        "print(*{m.partition('.')[0] for m in sys.modules})"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    loaded = set(done.stdout.split())
    assert "lxml" in loaded
    assert not loaded & {"unstructured", "numpy", "pandas", "openpyxl", "spacy", "django"}
