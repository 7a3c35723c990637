"""Versions, parts, resting documents and the index's view of them."""

from __future__ import annotations

import io
from typing import Any
from uuid import uuid4

import pytest
from django.db import transaction

from assistant.audit.models import AuditEvent
from assistant.documents import actions
from assistant.documents.actions import Upload
from assistant.documents.models import Document
from assistant.retrieval.models import Embedding
from ingestion.models import IngestionJob
from tests.api.calls import JSON, problem
from tests.factories import (
    file_named,
    make_collection,
    make_document,
    make_user,
    publish,
)

pytestmark = pytest.mark.django_db
URL = "/api/v1/documents/"


@pytest.fixture
def ada(as_caller: Any) -> Any:
    return as_caller(make_user(name="Ada"))


@pytest.fixture
def handbook(collection: Any, ada: Any) -> Document:
    """Two versions; the second answers."""
    make_document(collection, text="At noon.", external_id="h", actor=ada.user)
    document = make_document(collection, text="At one.", external_id="h", actor=ada.user)
    assert document.latest_version is not None
    return document


def part_of(parent: Document, path: str) -> Document:
    upload = Upload(
        content=io.BytesIO(path.encode()),
        filename=path.rpartition("/")[2],
        media_type="text/plain",
        path=path,
        parent_id=parent.pk,
    )
    with transaction.atomic():
        version, _ = actions.store_version(parent.collection_id, upload, actor=None)
        IngestionJob.objects.create(version=version)
    found: Document = Document.objects.get(pk=version.document_id)
    return found


def test_versions_are_listed_newest_first(ada: Any, handbook: Document) -> None:
    newest, oldest = ada.with_token("read").get(f"{URL}{handbook.pk}/versions/").json()["results"]
    assert (newest["number"], newest["answering"], newest["status"]) == (2, True, "ready")
    assert (oldest["number"], oldest["answering"]) == (1, False)
    assert newest["created_by"] == "Ada"
    assert newest["restored_from"] is None
    assert newest["sha256"] != oldest["sha256"]


def test_an_older_version_is_restored_as_the_newest(ada: Any, handbook: Document) -> None:
    client = ada.with_token()
    answer = client.post(f"{URL}{handbook.pk}/versions/1/restore", {}, **JSON)
    assert answer.status_code == 202, answer.content
    body = answer.json()
    assert (body["version"], body["answering_version"], body["status"]) == (3, 2, "queued")
    rows = client.get(f"{URL}{handbook.pk}/versions/").json()["results"]
    assert rows[0]["restored_from"] == 1
    assert rows[0]["sha256"] == rows[2]["sha256"]
    third = Document.objects.get(pk=handbook.pk).latest_version
    assert third is not None
    publish(third, "At noon.")
    assert client.get(f"{URL}{handbook.pk}/").json()["answering_version"] == 3
    problem(client.post(f"{URL}{handbook.pk}/versions/9/restore", {}, **JSON), 404)
    handbook.versions.filter(number=2).update(storage_key="originals/gone")
    lost = client.post(f"{URL}{handbook.pk}/versions/2/restore", {}, **JSON)
    assert problem(lost, 409)["code"] == "lost"


def test_a_file_of_any_name_becomes_the_next_version(ada: Any, collection: Any) -> None:
    document = make_document(collection)  # without an external id
    client = ada.with_token()
    url = f"{URL}{document.pk}/versions/"
    answer = client.post(url, {"file": file_named("other.txt", b"Quite another text.")})
    assert answer.status_code == 202, answer.content
    body = answer.json()
    assert (body["id"], body["version"], body["filename"]) == (str(document.pk), 2, "other.txt")
    assert body["title"] == "Canteen"
    problem(client.post(url, {"file": file_named("empty.txt", b"")}), 400)
    problem(client.post(url, {}), 400)
    assert Document.objects.get(pk=document.pk).versions.count() == 2


@pytest.mark.usefixtures("fake_embedder")
def test_a_disabled_document_stays_and_answers_nothing(ada: Any, collection: Any) -> None:
    client, document = ada.with_token(), make_document(collection)
    query = {"query": "When does the canteen open?"}
    assert client.post("/api/v1/search/", query, **JSON).json()["results"]
    assert client.post(f"{URL}{document.pk}/disable", {}, **JSON).json()["disabled"] is True
    assert client.post("/api/v1/search/", query, **JSON).json()["results"] == []
    assert client.get(f"{URL}{document.pk}/").json()["status"] == "ready"
    rows = client.get(f"{URL}{document.pk}/versions/").json()["results"]
    assert rows[0]["answering"] is False
    assert client.post(f"{URL}{document.pk}/enable", {}, **JSON).json()["disabled"] is False
    assert client.post("/api/v1/search/", query, **JSON).json()["results"]


def test_parts_name_their_parent_and_are_counted(ada: Any, collection: Any) -> None:
    client = ada.with_token()
    mail = make_document(collection, title="Mail")
    plan = part_of(mail, "attachments/plan.txt")
    part_of(mail, "attachments/rules.txt")
    assert client.get(f"{URL}{mail.pk}/").json()["children"] == 2
    shown = client.get(f"{URL}{plan.pk}/").json()
    assert (shown["parent"], shown["path"]) == (str(mail.pk), "attachments/plan.txt")
    assert shown["children"] == 0
    listed = client.get(f"{URL}?parent={mail.pk}").json()["results"]
    assert {row["path"] for row in listed} == {"attachments/plan.txt", "attachments/rules.txt"}
    assert client.get(f"{URL}?parent={uuid4()}").json()["results"] == []
    problem(client.get(f"{URL}?parent=x"), 400)
    assert client.delete(f"{URL}{mail.pk}/").status_code == 204
    problem(client.get(f"{URL}{plan.pk}/"), 404)


def test_chunks_are_for_contributors(ada: Any, collection: Any, as_caller: Any) -> None:
    text = "First paragraph.\n\nSecond paragraph.\n\nThird paragraph."
    document = make_document(collection, text=text, title="Guide")
    client = ada.with_token("read")
    page = client.get(f"{URL}{document.pk}/chunks/?limit=2").json()
    first, second = page["results"]
    assert (first["ordinal"], first["text"], first["context"]) == (0, "First paragraph.", "Guide")
    assert text[second["char_start"] : second["char_end"]] == second["text"]
    assert first["has_vector"] is True
    assert first["tokens"] > 2
    rest = client.get(page["next"]).json()
    assert [row["ordinal"] for row in rest["results"]] == [2]
    assert rest["next"] is None
    Embedding.objects.filter(chunk__ordinal=2).delete()
    (third,) = client.get(f"{URL}{document.pk}/chunks/?start=2").json()["results"]
    assert third["has_vector"] is False
    for query in ("limit=0", "limit=x", "start=-1", "start=99999999999", "limit=201"):
        problem(client.get(f"{URL}{document.pk}/chunks/?{query}"), 400)
    problem(client.get(f"{URL}{document.pk}/chunks/?version=7"), 404)
    reader = as_caller(make_user())
    document = make_document(make_collection(readers=[reader.user]))
    hidden = reader.with_token().get(f"{URL}{document.pk}/chunks/")
    absent = reader.with_token().get(f"{URL}{uuid4()}/chunks/")
    assert problem(hidden, 404) == problem(absent, 404)


def test_changes_are_recorded(ada: Any, handbook: Document) -> None:
    client = ada.with_token()
    client.post(f"{URL}{handbook.pk}/disable", {}, **JSON)
    client.post(f"{URL}{handbook.pk}/versions/1/restore", {}, **JSON)
    done = AuditEvent.objects.filter(actor_id=ada.user.pk).values_list("action", flat=True)
    assert {"document.disable", "document.upload"} <= set(done)
