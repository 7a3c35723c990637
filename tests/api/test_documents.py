"""Uploading, watching, fetching and deleting over REST."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from assistant.audit.models import AuditEvent
from assistant.documents.models import Document, DocumentVersion
from ingestion.models import IngestionJob, JobStatus
from tests.api.calls import JSON, problem
from tests.factories import file_named, make_collection, make_document, make_user

pytestmark = pytest.mark.django_db
URL = "/api/v1/documents/"
TEXT = b"# Canteen\n\nThe canteen opens at noon.\n"


def upload(client: Any, collection: Any, **fields: Any) -> Any:
    fields = {"file": file_named("canteen.md", TEXT), **fields}
    return client.post(URL, {"collection": str(collection.pk), **fields})


def test_an_upload_becomes_searchable(
    ada: Any, collection: Any, run_pipeline: Callable[[], None]
) -> None:
    client = ada.with_token()
    answer = upload(
        client,
        collection,
        external_id="facilities/canteen",
        title="The canteen",
        metadata=json.dumps({"team": "facilities"}),
        source_url="https://intranet.example.com/canteen",
    )
    assert answer.status_code == 202
    body = answer.json()
    assert body["status"] == "queued"
    assert body["external_id"] == "facilities/canteen"
    assert body["metadata"] == {"team": "facilities"}
    assert body["version"] == 1
    assert body["answering_version"] is None
    run_pipeline()
    body = client.get(f"{URL}{body['id']}/").json()
    assert (body["status"], body["error"]) == ("ready", None)
    assert body["chunks"] >= 1
    assert body["answering_version"] == 1
    found = client.post("/api/v1/search/", {"query": "When does the canteen open?"}, **JSON)
    (first, *_) = found.json()["results"]
    assert first["document"]["id"] == body["id"]
    assert first["document"]["external_id"] == "facilities/canteen"
    assert "noon" in first["text"]


def test_metadata_comes_back_as_it_was_sent(ada: Any, collection: Any) -> None:
    sent = {"serial": 2**70, "share": 0.1, "tags": ["ä", None, True], "of": {"1": "\u2028"}}
    client = ada.with_token()
    key = upload(client, collection, metadata=json.dumps(sent)).json()["id"]
    assert client.get(f"{URL}{key}/").json()["metadata"] == sent


def test_the_same_bytes_are_the_same_version_and_new_bytes_a_new_one(
    ada: Any, collection: Any
) -> None:
    client = ada.with_token()
    first = upload(client, collection, external_id="canteen").json()
    again = upload(client, collection, external_id="canteen").json()
    assert (again["id"], again["version"]) == (first["id"], 1)
    assert IngestionJob.objects.count() == 1
    other = file_named("canteen.md", b"# Canteen\n\nIt opens at one.\n")
    newer = upload(client, collection, external_id="canteen", file=other).json()
    assert (newer["id"], newer["version"]) == (first["id"], 2)


def test_without_external_id_every_upload_is_a_document(ada: Any, collection: Any) -> None:
    client = ada.with_token()
    assert upload(client, collection).json()["id"] != upload(client, collection).json()["id"]


def test_a_reader_may_not_upload_and_a_stranger_finds_nothing(as_caller: Any) -> None:
    reader, stranger = as_caller(make_user()), as_caller(make_user())
    collection = make_collection(readers=[reader.user])
    assert "contributor" in problem(upload(reader.with_token(), collection), 403)["detail"]
    hidden = upload(stranger.with_token(), collection)
    absent = stranger.with_token().post(
        URL,
        {"collection": "00000000-0000-4000-8000-000000000000", "file": file_named("a.md", TEXT)},
    )
    assert problem(hidden, 404) == problem(absent, 404)
    assert hidden.content == absent.content
    assert not Document.objects.exists()
    denied = AuditEvent.objects.filter(result="denied")
    assert denied.filter(actor_id=reader.user.pk).count() == 1
    assert denied.filter(actor_id=stranger.user.pk).count() == 2


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"file": ""}, "file"),
        ({"metadata": "{"}, "metadata"),
        ({"metadata": "[1]"}, "metadata"),
        ({"metadata": '{"a": NaN}'}, "metadata"),
        ({"metadata": '{"a": "\\u0000"}'}, "metadata"),
        ({"metadata": '{"a": 1, "a": 2}'}, "metadata"),
        ({"metadata": json.dumps({"a": "x" * 70_000})}, "metadata"),
        ({"source_url": "javascript:alert(1)"}, "source_url"),
        ({"title": "x" * 501}, "title"),
        ({"external_id": "x" * 501}, "external_id"),
        ({"external_id": "a\0b"}, "external_id"),
        ({"user": "eve@example.com"}, "user"),
        ({"id": "00000000-0000-4000-8000-000000000000"}, "id"),
    ],
)
def test_a_bad_field_is_named(
    ada: Any, collection: Any, fields: dict[str, Any], field: str
) -> None:
    assert field in problem(upload(ada.with_token(), collection, **fields), 400)["errors"]
    assert not Document.objects.exists()


def test_an_upload_is_a_form(ada: Any, collection: Any) -> None:
    answer = ada.with_token().post(URL, {"collection": str(collection.pk)}, **JSON)
    problem(answer, 415)


def test_a_batch_is_taken_item_by_item_in_order(
    ada: Any, collection: Any, run_pipeline: Callable[[], None]
) -> None:
    client = ada.with_token()
    documents: list[Any] = [
        {"external_id": "one", "title": "One", "text": "# One\n\nThe first text."},
        {"external_id": "two", "title": "Two", "text": ""},
        {"external_id": "three", "title": "Three", "text": "x", "media_type": "image/png"},
        "four",
        {"external_id": "five", "title": "Fünf", "text": "Grüße", "media_type": "text/plain"},
        {"external_id": "six", "text": "no title"},
    ]
    answer = client.post(
        f"{URL}batch/", {"collection": str(collection.pk), "documents": documents}, **JSON
    )
    assert answer.status_code == 202, answer.content
    results = answer.json()["results"]
    assert [row["external_id"] for row in results] == ["one", "two", "three", None, "five", "six"]
    assert ["id" in row for row in results] == [True, False, False, False, True, False]
    assert "empty" in results[1]["errors"]["text"][0]
    assert "media_type" in results[2]["errors"]
    assert "title" in results[5]["errors"]
    run_pipeline()
    assert set(Document.objects.values_list("external_id", flat=True)) == {"one", "five"}
    assert set(IngestionJob.objects.values_list("status", flat=True)) == {JobStatus.READY}


@pytest.mark.parametrize("documents", [[], [{}] * 501, "text", None])
def test_a_batch_has_one_to_five_hundred(ada: Any, collection: Any, documents: object) -> None:
    answer = ada.with_token().post(
        f"{URL}batch/", {"collection": str(collection.pk), "documents": documents}, **JSON
    )
    assert "documents" in problem(answer, 400)["errors"]


def test_a_batch_for_a_collection_of_others_is_404(ada: Any) -> None:
    body = {"collection": str(make_collection().pk), "documents": [{"external_id": "a"}]}
    problem(ada.with_token().post(f"{URL}batch/", body, **JSON), 404)


def test_the_list_and_its_filters(ada: Any, collection: Any) -> None:
    client = ada.with_token()
    other = make_collection(readers=[ada.user])
    canteen = make_document(collection, title="Canteen", external_id="f/1")
    parking = make_document(other, title="Parking", external_id="f/2", ready=False)
    make_document(make_collection(), title="Canteen of others")

    def ids(query: str = "") -> list[str]:
        return [row["id"] for row in client.get(f"{URL}?{query}").json()["results"]]

    assert ids() == [str(parking.pk), str(canteen.pk)]
    assert ids(f"collection={collection.pk}") == [str(canteen.pk)]
    assert ids("status=queued") == [str(parking.pk)]
    assert ids("q=CANT") == [str(canteen.pk)]
    assert ids("q=f%2F2") == [str(parking.pk)]
    assert ids("q=%25") == []
    problem(client.get(f"{URL}?collection={make_collection().pk}"), 404)
    problem(client.get(f"{URL}?status=lost"), 400)
    problem(client.get(f"{URL}?q=%00"), 400)


def test_the_list_costs_the_same_for_many(
    ada: Any, collection: Any, django_assert_num_queries: Any
) -> None:
    client = ada.with_token()
    make_document(collection)
    client.get(URL)  # notes the token's use
    with django_assert_num_queries(2) as few:
        client.get(URL)
    for _ in range(5):
        make_document(collection)
    with django_assert_num_queries(len(few)):
        client.get(URL)


@pytest.mark.parametrize(
    "name", ['a"b.md', "rückblick – 2026.md", "a;b.md", "‮gpj.md", "x" * 250 + ".md"]
)
def test_the_original_is_an_attachment_that_cannot_run(
    ada: Any, collection: Any, name: str
) -> None:
    document = make_document(collection, text="<script>alert(1)</script>", filename=name)
    answer = ada.with_token().get(f"{URL}{document.pk}/file")
    assert answer.status_code == 200
    assert b"".join(answer.streaming_content) == b"<script>alert(1)</script>"
    assert answer["Content-Type"] == "application/octet-stream"
    assert answer["Content-Disposition"].startswith("attachment; filename")
    assert answer["X-Content-Type-Options"] == "nosniff"
    assert answer["Content-Security-Policy"] == "sandbox; default-src 'none'"
    assert "no-store" in answer["Cache-Control"]
    assert "\u202e" not in answer["Content-Disposition"]


def test_the_original_of_a_version(ada: Any, collection: Any) -> None:
    client = ada.with_token()
    document = make_document(collection, text="first", external_id="a")
    make_document(collection, text="second", external_id="a", ready=False)
    url = f"{URL}{document.pk}/file"
    assert b"".join(client.get(url).streaming_content) == b"first"
    assert b"".join(client.get(f"{url}?version=2").streaming_content) == b"second"
    for version in ("3", "-1", "x", "99999999999999999999"):
        problem(client.get(f"{url}?version={version}"), 404)


def test_an_original_that_was_lost_is_said_so(ada: Any, collection: Any) -> None:
    document = make_document(collection)
    DocumentVersion.objects.update(storage_key="originals/gone")
    answer = ada.with_token().get(f"{URL}{document.pk}/file")
    assert problem(answer, 503)["code"] == "unavailable"
    assert answer["Retry-After"]


def test_a_deleted_document_answers_nothing(ada: Any, collection: Any, fake_embedder: Any) -> None:
    client = ada.with_token()
    document = make_document(collection)
    query = {"query": "When does the canteen open?"}
    assert client.post("/api/v1/search/", query, **JSON).json()["results"]
    assert client.delete(f"{URL}{document.pk}/").status_code == 204
    assert client.post("/api/v1/search/", query, **JSON).json()["results"] == []
    for path in ("", "file"):
        problem(client.get(f"{URL}{document.pk}/{path}"), 404)
    assert client.get(URL).json()["results"] == []
    assert Document.all_objects.filter(pk=document.pk).exists()  # a tombstone, without words


def test_retry_and_cancel(ada: Any, collection: Any) -> None:
    client = ada.with_token()
    document = make_document(collection, ready=False)
    problem(client.post(f"{URL}{document.pk}/retry"), 409)
    assert client.post(f"{URL}{document.pk}/cancel").json()["status"] == "cancelled"
    problem(client.post(f"{URL}{document.pk}/cancel"), 409)
    answer = client.post(f"{URL}{document.pk}/retry")
    assert (answer.status_code, answer.json()["status"]) == (202, "queued")
