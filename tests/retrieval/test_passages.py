"""Where passages stand on the pages of their document."""

from __future__ import annotations

import pytest
from django.db import connection
from django.db.migrations.executor import MigrationExecutor
from django.test.utils import CaptureQueriesContext

from assistant.documents.models import PageBoxes
from assistant.retrieval import search
from tests.factories import line_box, make_collection, make_document, make_user

LINES = ("The canteen opens at noon.", "It closes at two.", "Nobody cooks on Sunday.")
TEXT = "\n\n".join(LINES)
STARTS = [TEXT.index(line) for line in LINES]
BOXES = [
    line_box(page, start, start + len(line))
    for page, start, line in zip((1, 1, 2), STARTS, LINES, strict=True)
]


@pytest.mark.django_db
@pytest.mark.usefixtures("fake_embedder")
def test_a_passage_has_the_boxes_of_its_own_lines() -> None:
    reader = make_user()
    make_document(make_collection(readers=[reader]), text=TEXT, boxes=BOXES)
    with CaptureQueriesContext(connection) as queries:
        passages = search("canteen", user=reader, limit=10).passages
    assert {p.text: [(b.page, b.char_start) for b in p.locator.boxes] for p in passages} == {
        line: [(page, start)] for line, page, start in zip(LINES, (1, 1, 2), STARTS, strict=True)
    }

    # Of a book, text and lines of all pages would be read for each of its passages.
    assert not [query for query in queries if "documents_versiontext" in query["sql"]]


@pytest.mark.django_db(transaction=True)
@pytest.mark.usefixtures("fake_embedder")
def test_boxes_of_whole_versions_are_split_by_page() -> None:
    """The migration, there and back."""
    make_document(make_collection(), text=TEXT, boxes=BOXES)
    make_document(make_collection(), text="Nothing to see.")
    before = list(PageBoxes.objects.order_by("page").values("version", "page", "boxes"))
    MigrationExecutor(connection).migrate(
        [("documents", "0005_private_collections"), ("retrieval", "0010_readable_collections")]
    )
    try:
        with connection.cursor() as cursor:
            cursor.execute("SELECT boxes <> '[]' FROM documents_versiontext ORDER BY 1")
            assert cursor.fetchall() == [(False,), (True,)]
    finally:
        MigrationExecutor(connection).migrate(
            [("documents", "0006_page_boxes"), ("retrieval", "0011_page_boxes")]
        )
    rows = PageBoxes.objects.order_by("page")
    assert list(rows.values("version", "page", "boxes")) == before
    assert [(row.char_start, row.char_end) for row in rows] == [
        (0, BOXES[1]["char_end"]),
        (STARTS[2], BOXES[2]["char_end"]),
    ]
