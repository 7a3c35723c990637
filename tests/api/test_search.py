"""``POST /api/v1/search/``."""

from __future__ import annotations

from typing import Any

import pytest

from inference.types import EngineError
from tests.api.calls import JSON, problem
from tests.factories import make_collection, make_document, make_user

pytestmark = pytest.mark.django_db
URL = "/api/v1/search/"


@pytest.fixture
def ada(as_caller: Any, fake_embedder: Any) -> Any:
    return as_caller(make_user())


@pytest.mark.parametrize("mode", ["hybrid", "vector", "keyword"])
def test_the_shape_of_a_result(ada: Any, mode: str) -> None:
    collection = make_collection(readers=[ada.user])
    document = make_document(
        collection,
        text="Badges are made at the desk.\n\nThe canteen opens at noon.",
        title="Office",
    )
    body = {"query": "canteen opens", "mode": mode, "limit": 1}
    answer = ada.with_token("read").post(URL, body, **JSON)
    assert answer.status_code == 200, answer.content
    (found,) = answer.json()["results"]
    assert found["text"] == "The canteen opens at noon."
    assert found["collection"] == str(collection.pk)
    assert found["document"] == {
        "id": str(document.pk),
        "external_id": None,
        "title": "Office",
        "version": 1,
        "version_id": str(document.current_version_id),
        "source_url": "",
        "collection": str(collection.pk),
    }
    assert (found["locator"]["char_start"], found["locator"]["char_end"]) == (30, 56)
    assert isinstance(found["score"], float)
    assert answer.json()["timings_ms"]["total"] >= 0


def test_only_what_the_caller_may_read_and_names(ada: Any) -> None:
    mine, other = (make_collection(readers=[ada.user]) for _ in range(2))
    hidden = make_collection()
    for collection in (mine, other, hidden):
        make_document(collection)
    client = ada.with_token("read")

    def where(**body: Any) -> set[str]:
        answer = client.post(URL, {"query": "canteen", **body}, **JSON)
        return {row["collection"] for row in answer.json()["results"]}

    assert where() == {str(mine.pk), str(other.pk)}
    assert where(collections=[str(mine.pk)]) == {str(mine.pk)}
    assert where(collections=None) == {str(mine.pk), str(other.pk)}
    assert where(collections=[]) == set()
    refused = client.post(
        URL, {"query": "canteen", "collections": [str(mine.pk), str(hidden.pk)]}, **JSON
    )
    absent = client.post(
        URL,
        {"query": "canteen", "collections": ["00000000-0000-4000-8000-000000000000"]},
        **JSON,
    )
    problem(refused, 404)
    assert refused.content == absent.content


def test_filters_narrow(ada: Any) -> None:
    collection = make_collection(readers=[ada.user])
    first, _ = (make_document(collection, title=title) for title in ("First", "Second"))
    client = ada.with_token("read")
    body = {"query": "canteen", "filters": {"document_ids": [str(first.pk)]}}
    titles = {r["document"]["title"] for r in client.post(URL, body, **JSON).json()["results"]}
    assert titles == {"First"}


@pytest.mark.parametrize(
    ("body", "word"),
    [
        ({}, "search for"),
        ({"query": "   "}, "search for"),
        ({"query": 7, "limit": 0}, "limit"),
        ({"query": "x", "limit": 101}, "limit"),
        ({"query": "x", "mode": "psychic"}, "mode"),
        ({"query": "x", "collections": ["no-id"]}, "collections"),
        ({"query": "x", "collections": "no-list"}, "collections"),
        ({"query": "x", "filters": {"colour": "red"}}, "colour"),
        ({"query": "x", "filters": {"document_ids": "no-list"}}, "document_ids"),
        ({"query": "x", "filters": {"document_ids": ["no-id"]}}, "no-id"),
        ({"query": "x", "filters": {"created_after": "yesterday"}}, "created_after"),
        ({"query": "x", "user": "eve@example.com"}, "user"),
    ],
)
def test_a_bad_request_is_refused_in_words(ada: Any, body: dict[str, Any], word: str) -> None:
    assert word in problem(ada.with_token("read").post(URL, body, **JSON), 400)["detail"]


@pytest.mark.parametrize(
    ("retryable", "status"), [(True, 503), (False, 502)], ids=["down", "misconfigured"]
)
def test_an_embedder_that_fails_is_said_so(
    ada: Any, fake_embedder: Any, retryable: bool, status: int
) -> None:
    make_document(make_collection(readers=[ada.user]))
    fake_embedder.error = EngineError("embedder_x", "The embedder says no.", retryable=retryable)
    answer = ada.with_token("read").post(URL, {"query": "canteen"}, **JSON)
    found = problem(answer, status)
    assert (found["code"], found["detail"]) == ("embedder_x", "The embedder says no.")
    assert ("Retry-After" in answer) is retryable


def test_unknown_names_are_ignored_for_clients_of_tomorrow(ada: Any) -> None:
    answer = ada.with_token("read").post(URL, {"query": "canteen", "colour": "red"}, **JSON)
    assert answer.status_code == 200


def test_a_bad_filter_is_named_by_field(ada: Any) -> None:
    body = {"query": "x", "filters": {"types": ["pdf", "parchment"], "since": "2025"}}
    errors = problem(ada.with_token("read").post(URL, body, **JSON), 400)["errors"]
    assert sorted(errors["filters"]) == ["since", "types"]
    assert "parchment" in errors["filters"]["types"][0]


def test_words_narrow_unless_told_not_to(ada: Any) -> None:
    mine = make_collection(readers=[ada.user])
    make_document(mine, title="Paper", media_type="application/pdf")
    make_document(mine, title="Page", media_type="text/html")
    client = ada.with_token("read")

    def found(**more: Any) -> tuple[set[str], Any]:
        body = {"query": "PDFs about the canteen", **more}
        answer = client.post(URL, body, **JSON).json()
        return {r["document"]["title"] for r in answer["results"]}, answer["understood"]

    titles, understood = found()
    assert titles == {"Paper"}
    assert understood["is_used"] is True
    (hint,) = understood["hints"]
    assert (hint["field"], hint["words"]) == ("type", "PDF only")
    assert found(understand=False) == ({"Paper", "Page"}, {"hints": [], "is_used": False})
    assert found(filters={"types": ["web"]})[0] == {"Page"}
