"""Filters narrow inside the statement that ranks, and say by field what is wrong with them."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from django.core.exceptions import ValidationError

from assistant.documents.kinds import KINDS
from assistant.documents.models import Collection, Document, DocumentVersion
from assistant.retrieval import search
from assistant.users.models import User
from ingestion.admission import SUPPORTED
from tests.factories import make_collection, make_document, make_user

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("fake_embedder")]


@pytest.fixture
def reader() -> User:
    return make_user(email="reader@example.com")


@pytest.fixture
def mine(reader: User) -> Collection:
    return make_collection(readers=[reader])


def titles(user: User, **filters: Any) -> set[str]:
    found = search("canteen noon", user=user, filters=filters, limit=50)
    return {passage.title for passage in found.passages}


def add(collection: Collection, title: str, **fields: Any) -> Document:
    """A document whose metadata, path and upload time are set; other ``fields`` go to the maker."""
    changed = {name: fields.pop(name) for name in ("metadata", "path", "parent") if name in fields}
    uploaded: datetime | None = fields.pop("uploaded", None)
    document = make_document(collection, title=title, **fields)
    Document.objects.filter(pk=document.pk).update(**changed)
    if uploaded:
        DocumentVersion.objects.filter(document=document).update(created_at=uploaded)
    return document


def test_every_format_that_can_be_read_has_one_kind() -> None:
    named = [media_type for kind in KINDS for media_type in kind.media_types]
    assert sorted(named) == sorted(set(SUPPORTED.values()))


def test_by_type_in_human_names(mine: Collection, reader: User) -> None:
    add(mine, "Scan", media_type="application/pdf")
    add(mine, "List", media_type="text/csv")
    add(mine, "Page", media_type="text/html")
    assert titles(reader, types=["pdf"]) == {"Scan"}
    assert titles(reader, types=["table", "web"]) == {"List", "Page"}
    assert titles(reader, types=["table"], media_types=["application/pdf"]) == set()


def test_by_who_uploaded(mine: Collection, reader: User) -> None:
    ada = make_user(email="ada@example.com")
    add(mine, "Hers", actor=ada)
    add(mine, "Own", actor=reader)
    assert titles(reader, uploaded_by=["ADA@example.com"]) == {"Hers"}
    assert titles(reader, uploaded_by=["me"]) == {"Own"}
    assert titles(reader, uploaded_by=["nobody@example.com"]) == set()


def test_by_folder_with_what_lies_in_its_archives(mine: Collection, reader: User) -> None:
    archive = add(mine, "Archive", path="HR/Travel/all.zip")
    add(mine, "Member", path="inner/a.txt", parent=archive)
    add(mine, "Sibling", path="HR/Travelling/b.txt")
    add(mine, "Percent", path="HR/%/c.txt")
    assert titles(reader, folder="/HR/Travel/") == {"Archive", "Member"}
    assert titles(reader, folder="HR") == {"Archive", "Member", "Sibling", "Percent"}
    assert titles(reader, folder="HR/%") == {"Percent"}


def test_by_metadata(mine: Collection, reader: User) -> None:
    add(mine, "Flat", metadata={"team": "HR", "level": 2})
    add(mine, "Many", metadata={"team": ["IT", "HR"]})
    add(mine, "Deep", metadata={"team": {"HR": 1}})
    assert titles(reader, metadata={"team": "HR"}) == {"Flat", "Many"}
    assert titles(reader, metadata={"team": ["IT", "Law"]}) == {"Many"}
    assert titles(reader, metadata={"team": "HR", "level": 2}) == {"Flat"}


def test_the_date_a_document_bears(mine: Collection, reader: User) -> None:
    """Metadata before names before the upload; a bare year or month counts as far as it goes."""
    old = datetime(2019, 6, 1, tzinfo=UTC)
    add(mine, "Said", metadata={"date": "2025-03-10T08:00:00Z"}, uploaded=old)
    add(mine, "Year 2019", metadata={"year": 2025})
    add(mine, "Month", metadata={"date": "2025-12"})
    add(mine, "Named 2025", uploaded=old)
    add(mine, "Serial 20250001 x", uploaded=old)
    add(mine, "Uploaded", uploaded=datetime(2025, 12, 31, 23, 30, tzinfo=UTC))
    add(mine, "Broken", metadata={"date": "long ago"}, uploaded=old)
    year = {"dated_after": "2025-01-01", "dated_before": "2026-01-01"}
    assert titles(reader, **year) == {"Said", "Year 2019", "Month", "Named 2025", "Uploaded"}
    assert titles(reader, dated_after="2025-04-01", dated_before="2025-05-01") == {
        "Year 2019",
        "Named 2025",
    }
    assert titles(reader, dated_before="2020-01-01") == {"Serial 20250001 x", "Broken"}


def test_filters_show_nothing_of_what_is_hidden(mine: Collection, reader: User) -> None:
    hidden = make_collection()
    add(hidden, "Hidden", media_type="application/pdf", path="HR/x.pdf", metadata={"a": "b"})
    everything: list[dict[str, Any]] = [
        {"types": ["pdf"]},
        {"folder": "HR"},
        {"metadata": {"a": "b"}},
        {"dated_after": "1990-01-01"},
        {"uploaded_by": [make_user().email]},
    ]
    assert [titles(reader, **filters) for filters in everything] == [set()] * len(everything)


@pytest.mark.parametrize(
    ("filters", "field", "word"),
    [
        ({"colour": "red"}, "colour", "no filter 'colour'"),
        ({"types": ["pdf", "spreadsheet"]}, "types", "'spreadsheet' is none"),
        ({"types": "pdf"}, "types", "a list"),
        ({"document_ids": ["x"]}, "document_ids", "'x' is none"),
        ({"created_after": "soon"}, "created_after", "2026-01-31"),
        ({"dated_before": "0001-01-01"}, "dated_before", "2026-01-31"),
        ({"uploaded_by": [{}]}, "uploaded_by", "texts"),
        ({"folder": " / "}, "folder", "HR/Travel"),
        ({"folder": "a\0b"}, "folder", "NUL"),
        ({"metadata": ["a"]}, "metadata", "object"),
        ({"metadata": {"a": None}}, "metadata", "texts"),
    ],
)
def test_each_bad_filter_is_named(
    reader: User, filters: dict[str, Any], field: str, word: str
) -> None:
    with pytest.raises(ValidationError) as refused:
        search("canteen", user=reader, filters={**filters, "media_types": ["text/plain"]})
    assert list(refused.value.message_dict) == [field]
    assert word in refused.value.message_dict[field][0]
