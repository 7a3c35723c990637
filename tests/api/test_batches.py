"""Uploads that were sent together, and chosen documents: totals, reasons, retry and cancel."""

from __future__ import annotations

from typing import Any
from uuid import UUID, uuid4

import pytest

from assistant.audit.models import AuditEvent
from assistant.documents.models import Document
from assistant.permissions.roles import Role
from ingestion import workers
from ingestion.models import IngestionJob, JobStatus
from tests.api.calls import JSON, problem
from tests.factories import file_named, make_collection, make_document, make_user

pytestmark = pytest.mark.django_db
URL = "/api/v1/batches/"
DOCUMENTS = "/api/v1/documents/"


def in_batch(collection: Any, batch: UUID, status: str = "queued", **values: Any) -> Document:
    document = make_document(collection, ready=False)
    IngestionJob.objects.filter(version__document=document).update(
        batch=batch, status=status, **values
    )
    return document


def statuses(*documents: Document) -> list[str]:
    return [IngestionJob.objects.get(version__document=d).status for d in documents]


def test_uploads_of_one_batch_are_counted_together(ada: Any, collection: Any) -> None:
    workers.sign("worker@test", workers.queues())
    client, batch = ada.with_token(), uuid4()
    for name in ("a.md", "b.md"):
        answer = client.post(
            DOCUMENTS,
            {
                "collection": str(collection.pk),
                "file": file_named(name, f"# {name}".encode()),
                "batch": str(batch),
                "path": f"../hr\\{name}",
            },
        )
        assert answer.status_code == 202, answer.content
        assert answer.json()["batch"] == str(batch)
        assert answer.json()["path"] == f"hr/{name}"
    sent = {"external_id": "c", "title": "C", "text": "Text."}
    body = {"collection": str(collection.pk), "documents": [sent], "batch": str(batch)}
    assert client.post(f"{DOCUMENTS}batch/", body, **JSON).json()["batch"] == str(batch)
    make_document(collection, ready=False)
    answer = client.get(f"{URL}{batch}/")
    assert answer.status_code == 200, answer.content
    found = answer.json()
    assert found["totals"] == {
        "all": 3, "queued": 3, "parsing": 0, "embedding": 0, "ready": 0, "failed": 0,
        "cancelled": 0,
    }  # fmt: skip
    assert found["failures"] == []
    assert found["eta_seconds"] is None
    assert found["workers"]["running"] is True
    assert set(found["workers"]["last_sign_seconds"]) == {"default", "embed", "parse"}
    listed = client.get(f"{DOCUMENTS}?batch={batch}&q=hr%2Fb").json()["results"]
    assert [row["path"] for row in listed] == ["hr/b.md"]


def test_a_batch_that_names_none_gets_one(ada: Any, collection: Any) -> None:
    client = ada.with_token()
    sent = {"external_id": "c", "title": "C", "text": "Text."}
    body = {"collection": str(collection.pk), "documents": [sent]}
    batch = client.post(f"{DOCUMENTS}batch/", body, **JSON).json()["batch"]
    assert client.get(f"{URL}{batch}/").json()["totals"]["all"] == 1
    problem(client.post(f"{DOCUMENTS}batch/", {**body, "batch": "x"}, **JSON), 400)


def test_failures_are_grouped_by_reason_and_retried_by_it(ada: Any, collection: Any) -> None:
    client, batch = ada.with_token(), uuid4()
    blank = [
        in_batch(collection, batch, "failed", error_code="no_text", error_detail="No text.")
        for _ in range(2)
    ]
    big = in_batch(
        collection, batch, "failed", error_code="too_many_pages", error_detail="It has 9 pages."
    )
    bigger = in_batch(
        collection, batch, "failed", error_code="too_many_pages", error_detail="It has 10 pages."
    )
    third = in_batch(collection, batch, "failed", error_code="no_text", error_detail="No text.")
    groups = client.get(f"{URL}{batch}/").json()["failures"]
    assert [(g["code"], g["count"]) for g in groups] == [("no_text", 3), ("too_many_pages", 2)]
    assert groups[0]["detail"] == "No text."
    assert {d["id"] for d in groups[0]["documents"]} == {str(d.pk) for d in [*blank, third]}
    details = {d["id"]: d["detail"] for d in groups[1]["documents"]}
    assert details == {str(big.pk): "It has 9 pages.", str(bigger.pk): "It has 10 pages."}
    answer = client.post(f"{URL}{batch}/retry", {"code": "no_text"}, **JSON)
    assert (answer.status_code, answer.json()) == (202, {"changed": 3})
    assert statuses(*blank, big) == ["queued", "queued", "failed"]
    assert client.post(f"{URL}{batch}/retry", {}, **JSON).json() == {"changed": 2}
    assert client.post(f"{URL}{batch}/cancel", {}, **JSON).json() == {"changed": 5}
    assert client.get(f"{URL}{batch}/").json()["totals"]["cancelled"] == 5


def test_a_batch_shows_what_one_contributes_to_and_nothing_else(
    ada: Any, collection: Any, as_caller: Any
) -> None:
    batch, other = uuid4(), make_collection(contributors=[ada.user])
    mine = in_batch(collection, batch)
    in_batch(other, batch)
    foreign = in_batch(make_collection(), batch)
    read_only = in_batch(make_collection(readers=[ada.user]), batch)
    client = ada.with_token()
    assert client.get(f"{URL}{batch}/").json()["totals"]["all"] == 2
    one = client.get(f"{URL}{batch}/?collection={collection.pk}").json()
    assert one["totals"]["all"] == 1
    assert client.post(f"{URL}{batch}/cancel", {}, **JSON).json() == {"changed": 2}
    assert statuses(mine, foreign, read_only) == ["cancelled", "queued", "queued"]
    hidden = client.get(f"{URL}{batch}/?collection={foreign.collection_id}")
    assert hidden.content == client.get(f"{URL}{uuid4()}/").content
    problem(hidden, 404)
    problem(client.get(f"{URL}{batch}/?collection={read_only.collection_id}"), 403)
    problem(client.get(f"{URL}{batch}/?collection=x"), 400)
    problem(as_caller(make_user()).with_token().get(f"{URL}{batch}/"), 404)


def test_without_a_worker_the_batch_and_its_documents_say_so(ada: Any, collection: Any) -> None:
    batch = uuid4()
    document = in_batch(collection, batch)
    client = ada.with_token()
    found = client.get(f"{URL}{batch}/").json()["workers"]
    assert (found["running"], found["code"]) == (False, "no_worker")
    assert "Nothing is lost" in found["detail"]
    shown = client.get(f"{DOCUMENTS}{document.pk}/").json()
    assert shown["blocked"]["code"] == "no_worker"
    assert (shown["status"], shown["error"]) == ("queued", None)
    workers.sign("worker@test", workers.queues())
    shown = client.get(f"{DOCUMENTS}{document.pk}/").json()
    assert shown["blocked"] is None
    assert shown["queue"] == {"ahead": 0, "eta_seconds": None}
    assert shown["stage"] == "Waiting next in line"


def test_the_place_counts_hidden_files_and_tells_nothing_else(ada: Any, collection: Any) -> None:
    workers.sign("worker@test", workers.queues())
    make_document(make_collection(), title="Merger", ready=False)
    document = make_document(collection, ready=False)
    answer = ada.with_token().get(f"{DOCUMENTS}{document.pk}/")
    assert answer.json()["queue"]["ahead"] == 1
    assert b"Merger" not in answer.content


def test_a_document_that_waits_for_its_next_attempt_has_no_error_yet(
    ada: Any, collection: Any
) -> None:
    workers.sign("worker@test", workers.queues())
    document = make_document(collection, ready=False)
    IngestionJob.objects.update(
        attempts=1, error_code="internal", error_detail="Something went wrong. Wait."
    )
    shown = ada.with_token().get(f"{DOCUMENTS}{document.pk}/").json()
    assert shown["error"] is None
    assert shown["next_attempt"]["attempt"] == 2
    assert shown["next_attempt"]["error"]["code"] == "internal"


@pytest.mark.parametrize(
    ("address", "status", "before", "after"),
    [("retry", 202, "failed", "queued"), ("cancel", 200, "queued", "cancelled")],
)
def test_chosen_documents_are_changed_one_by_one(
    ada: Any, collection: Any, address: str, status: int, before: str, after: str
) -> None:
    chosen = in_batch(collection, uuid4(), before)
    done = make_document(collection)
    read_only = in_batch(make_collection(readers=[ada.user]), uuid4(), before)
    foreign = in_batch(make_collection(), uuid4(), before)
    ids = [str(d.pk) for d in (chosen, done, read_only, foreign)] + [str(uuid4())]
    answer = ada.with_token().post(f"{DOCUMENTS}{address}", {"documents": ids}, **JSON)
    assert answer.status_code == status, answer.content
    results = answer.json()["results"]
    assert [row["id"] for row in results] == ids
    assert results[0]["status"] == after
    assert [row["problem"]["status"] for row in results[1:]] == [409, 403, 404, 404]
    assert results[3]["problem"] == results[4]["problem"]
    assert statuses(chosen, read_only, foreign) == [after, before, before]
    assert AuditEvent.objects.filter(result="denied").count() == 3


@pytest.mark.parametrize("documents", [[], ["x"], "x", None, [str(uuid4())] * 501])
def test_choosing_needs_a_list_of_ids(ada: Any, documents: Any) -> None:
    for address in ("retry", "cancel"):
        answer = ada.with_token().post(f"{DOCUMENTS}{address}", {"documents": documents}, **JSON)
        assert "documents" in problem(answer, 400)["errors"]


def test_the_same_bytes_elsewhere_are_named_only_to_who_may_read_there(
    ada: Any, collection: Any
) -> None:
    text = b"# Canteen\n\nThe canteen opens at noon.\n"
    client, hidden = ada.with_token(), make_collection()

    def upload(name: str) -> Any:
        sent = {"collection": str(collection.pk), "file": file_named(name, text)}
        answer = client.post(DOCUMENTS, {**sent, "external_id": name})
        assert answer.status_code == 202
        return answer.json()

    make_document(hidden, text=text.decode())
    assert upload("a.md")["duplicate_of"] is None
    Document.objects.filter(external_id="a.md").delete()
    shared = make_collection(everyone=Role.READER, name="Shared")
    twin = make_document(shared, text=text.decode(), title="Twin", ready=False)
    expected = {"id": str(twin.pk), "title": "Twin", "collection": str(shared.pk)}
    assert upload("b.md")["duplicate_of"] == expected
    assert upload("b.md")["duplicate_of"] == expected
    sent = {"external_id": "c", "title": "C", "text": text.decode()}
    body = {"collection": str(collection.pk), "documents": [sent]}
    (row,) = client.post(f"{DOCUMENTS}batch/", body, **JSON).json()["results"]
    assert row["duplicate_of"] == expected
    make_document(shared, text="Something else.", title="Twin", external_id="t")
    IngestionJob.objects.filter(version__document=twin).update(status=JobStatus.FAILED)
    twin.delete()
    assert upload("d.md")["duplicate_of"]["collection"] == str(collection.pk)
