from __future__ import annotations

from typing import Any
from urllib.parse import quote
from uuid import uuid4

import pytest
from django.core.files.uploadedfile import SimpleUploadedFile
from django.test import Client
from pytest_django import DjangoAssertNumQueries

from assistant.audit.models import AuditEvent
from assistant.documents.models import Collection, Document
from assistant.permissions.models import Grant
from assistant.permissions.roles import Role
from assistant.web.templatetags.ui import kind_of_file
from ingestion.admission import SUPPORTED
from ingestion.models import IngestionJob, JobStatus
from tests.factories import make_collection, make_document, make_user
from tests.web.conftest import House, SignIn

HTMX = {"HX-Request": "true"}


def page(client: Client, path: str, **query: Any) -> str:
    response = client.get(path, query)
    assert response.status_code == 200
    return response.content.decode()


def upload(client: Client, house: House, name: str, content: bytes, **fields: str) -> Any:
    return client.post(
        f"/library/{house.collection.pk}/upload/",
        {"file": SimpleUploadedFile(name, content), **fields},
        headers={"Accept": "application/json"},
    )


def test_the_library_lists_readable_collections_with_role_and_counts(
    house: House, signed_in: SignIn
) -> None:
    hidden = make_collection(name="Board minutes")
    make_document(house.collection, title="Second", ready=False)
    for user, words in (
        (house.reader, "You read"),
        (house.contributor, "You contribute"),
        (house.manager, "You manage it"),
        (make_user(is_superuser=True), "You manage it"),
    ):
        text = page(signed_in(user), "/library/")
        assert words in text
        assert "2 documents" in text
        assert "1 in work" in text
        assert (hidden.name in text) == user.is_superuser
    assert "Handbook" not in page(signed_in(house.stranger), "/library/")


def test_the_library_costs_the_same_for_more_collections(
    house: House, signed_in: SignIn, django_assert_max_num_queries: DjangoAssertNumQueries
) -> None:
    client = signed_in(house.reader)
    for _ in range(15):
        make_document(make_collection(readers=[house.reader]))
    with django_assert_max_num_queries(10):
        assert page(client, "/library/").count("collection-card") == 16


def test_creating_a_collection_makes_one_its_manager(house: House, signed_in: SignIn) -> None:
    client = signed_in(house.stranger)
    response = client.post("/library/", {"name": "Mine", "description": "For me"})
    made = Collection.objects.get(name="Mine")
    assert response["Location"] == f"/library/{made.pk}/"
    assert Grant.objects.get(collection=made).role == Role.MANAGER
    refused = client.post("/library/", {"name": " "})
    assert refused.status_code == 422
    assert "Give it a name." in refused.content.decode()


def test_what_people_see_depends_on_their_role(house: House, signed_in: SignIn) -> None:
    path = f"/library/{house.collection.pk}/"
    reader, contributor, manager = (
        page(signed_in(user), path) for user in (house.reader, house.contributor, house.manager)
    )
    assert "upload-zone" not in reader.split("</head>")[1]
    assert 'value="delete"' not in reader
    assert "<upload-zone" in contributor
    assert "/share/" not in contributor
    assert "/share/" in manager
    assert signed_in(house.stranger).get(path).status_code == 404


def test_absent_and_hidden_look_the_same(house: House, signed_in: SignIn) -> None:
    client = signed_in(house.stranger)
    hidden = client.get(f"/library/{house.collection.pk}/")
    absent = client.get(f"/library/{uuid4()}/")
    assert (hidden.status_code, absent.status_code) == (404, 404)
    assert hidden.content == absent.content


def test_upload_stores_a_document_and_the_same_path_again_is_a_new_version(
    house: House, signed_in: SignIn
) -> None:
    client = signed_in(house.contributor)
    first = upload(client, house, "leave.md", b"# Leave\n\nFour hours.", path="hr/leave.md")
    assert first.status_code == 202
    again = upload(client, house, "leave.md", b"# Leave\n\nFive hours.", path="hr/leave.md")
    other = upload(client, house, "leave.md", b"# Leave\n\nFour hours.", path="it/leave.md")
    assert again.json()["id"] == first.json()["id"] != other.json()["id"]
    document = Document.objects.get(pk=first.json()["id"])
    assert document.external_id == "hr/leave.md"
    assert document.latest_version is not None
    assert document.latest_version.number == 2


@pytest.mark.parametrize(
    ("name", "content", "status", "code", "advice"),
    [
        ("empty.md", b"", 422, "empty_file", "upload it again"),
        ("tool.exe", b"MZ\x90\x00", 422, "unsupported_type", "Save the document as one of"),
        ("report.pdf", b"plain words", 422, "type_mismatch", "Rename the file"),
        ("big.txt", b"a" * (5 * 1024 * 1024 + 1), 413, "too_large", "Split it"),
    ],
)
def test_a_refused_file_says_what_to_do_and_leaves_nothing(
    house: House,
    signed_in: SignIn,
    name: str,
    content: bytes,
    status: int,
    code: str,
    advice: str,
) -> None:
    before = Document.all_objects.count()
    response = upload(signed_in(house.contributor), house, name, content)
    assert response.status_code == status
    assert response.json()["code"] == code
    assert advice in response.json()["detail"]
    assert Document.all_objects.count() == before


def test_a_full_disk_is_said_in_words(
    house: House, signed_in: SignIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*args: object, **kwargs: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("assistant.documents.storage.save_original", full)
    response = upload(signed_in(house.contributor), house, "a.md", b"# A")
    assert response.status_code == 507
    assert "disk may be full" in response.json()["detail"]
    assert "No space" not in response.content.decode()


def test_a_form_without_script_uploads_several_files(house: House, signed_in: SignIn) -> None:
    client = signed_in(house.contributor)
    files = [SimpleUploadedFile("a.md", b"# A"), SimpleUploadedFile("b.exe", b"MZ\x90")]
    response = client.post(f"/library/{house.collection.pk}/upload/", {"file": files}, follow=True)
    text = response.content.decode()
    assert "b.exe: Files of this kind" in text
    assert Document.objects.filter(collection=house.collection, external_id="a.md").exists()


def test_a_reader_may_not_upload_and_the_attempt_is_recorded(
    house: House, signed_in: SignIn
) -> None:
    response = upload(signed_in(house.reader), house, "a.md", b"# A")
    assert response.status_code == 403
    event = AuditEvent.objects.get(action="document.upload", result="denied")
    assert (event.actor_id, event.collection_id) == (house.reader.pk, house.collection.pk)


def test_the_table_polls_only_while_something_is_unfinished(
    house: House, signed_in: SignIn
) -> None:
    path = f"/library/{house.collection.pk}/documents/"
    client = signed_in(house.reader)
    assert "every 2s" not in page(client, path)
    working = make_document(house.collection, title="Second", ready=False)
    assert "every 2s" in page(client, path)
    assert working.latest_version is not None
    IngestionJob.objects.filter(version=working.latest_version).update(
        status=JobStatus.EMBEDDING, stage_done=3, stage_total=9
    )
    text = page(client, path)
    assert "Indexing 3 of 9" in text
    assert 'value="3" max="9"' in " ".join(text.split())


def test_a_failure_is_shown_with_its_reason(house: House, signed_in: SignIn) -> None:
    IngestionJob.objects.update(
        status=JobStatus.FAILED, error_code="no_text", error_detail="No <b>text</b> was found."
    )
    text = page(signed_in(house.reader), f"/library/{house.collection.pk}/")
    assert "No &lt;b&gt;text&lt;/b&gt; was found." in text
    assert "1 failed" in text


def test_filters_and_pages(house: House, signed_in: SignIn) -> None:
    for number in range(51):
        make_document(house.collection, title=f"Guide {number:02}", ready=False)
    client = signed_in(house.reader)
    path = f"/library/{house.collection.pk}/"
    first = page(client, path)
    assert "1 to 50 of 52" in " ".join(first.split())
    assert "51 to 52 of 52" in " ".join(page(client, path, page="2").split())
    assert page(client, path, q="guide 07").count('id="row-') == 1
    ready = page(client, path, status="ready")
    assert ready.count('id="row-') == 1
    assert "Canteen" in ready
    assert "Nothing matches" in page(client, path, q="no such name")
    assert page(client, path, status="' OR 1=1", page="x").count('id="row-') == 50


def test_the_table_costs_the_same_for_more_rows(
    house: House, signed_in: SignIn, django_assert_max_num_queries: DjangoAssertNumQueries
) -> None:
    client = signed_in(house.contributor)
    for _ in range(20):
        make_document(house.collection, ready=False)
    with django_assert_max_num_queries(13):
        assert page(client, f"/library/{house.collection.pk}/documents/").count('id="row-') == 21


@pytest.mark.parametrize(
    ("action", "before", "after"),
    [
        ("retry", JobStatus.FAILED, JobStatus.QUEUED),
        ("cancel", JobStatus.PARSING, JobStatus.CANCELLED),
        ("retry", JobStatus.READY, JobStatus.READY),
    ],
)
def test_jobs_are_changed_in_bulk(
    house: House, signed_in: SignIn, action: str, before: str, after: str
) -> None:
    second = make_document(house.collection, title="Second", ready=False)
    IngestionJob.objects.update(status=before)
    response = signed_in(house.contributor).post(
        f"/library/{house.collection.pk}/documents/change/",
        {"action": action, "documents": [house.document.pk, second.pk]},
        headers=HTMX,
    )
    assert response.status_code == 200
    assert "<document-table" in response.content.decode()
    assert set(IngestionJob.objects.values_list("status", flat=True)) == {after}


def test_deleting_in_bulk_takes_only_documents_of_this_collection(
    house: House, signed_in: SignIn
) -> None:
    elsewhere = make_document(make_collection(contributors=[house.contributor]))
    foreign = make_document(make_collection())
    response = signed_in(house.contributor).post(
        f"/library/{house.collection.pk}/documents/change/",
        {
            "action": "delete",
            "documents": [house.document.pk, elsewhere.pk, foreign.pk, uuid4(), "x"],
        },
    )
    assert response.status_code == 302
    assert set(Document.objects.values_list("pk", flat=True)) == {elsewhere.pk, foreign.pk}


def test_changing_needs_the_contributor_role(house: House, signed_in: SignIn) -> None:
    body = {"action": "delete", "documents": [house.document.pk]}
    path = f"/library/{house.collection.pk}/documents/change/"
    assert signed_in(house.reader).post(path, body).status_code == 403
    assert signed_in(house.stranger).post(path, body).status_code == 404
    assert Document.objects.filter(pk=house.document.pk).exists()
    unknown = signed_in(house.contributor).post(path, {"action": "explode"})
    assert unknown.status_code == 400


def test_renaming_and_deleting_a_collection(house: House, signed_in: SignIn) -> None:
    path = f"/library/{house.collection.pk}/"
    manager = signed_in(house.manager)
    for user in (house.reader, house.contributor):
        assert signed_in(user).post(f"{path}settings/", {"name": "x"}).status_code == 403
        assert signed_in(user).post(f"{path}delete/", {"confirm": "Handbook"}).status_code == 403
    manager.post(f"{path}settings/", {"name": "Rules", "description": "All of them"})
    house.collection.refresh_from_db()
    assert (house.collection.name, house.collection.description) == ("Rules", "All of them")
    wrong = manager.post(f"{path}delete/", {"confirm": "Handbook"})
    assert wrong.status_code == 422
    assert "Nothing was deleted" in wrong.content.decode()
    assert manager.post(f"{path}delete/", {"confirm": "Rules"})["Location"] == "/library/"
    assert not Collection.objects.filter(pk=house.collection.pk).exists()


@pytest.mark.parametrize("field", ["q", "status", "batch", "page"])
def test_senseless_filters_are_no_fault_of_ours(
    house: House, signed_in: SignIn, field: str
) -> None:
    client = signed_in(house.contributor)
    for value in ("\0", "\ud800", "x" * 10_000, "-1", "9" * 40):
        path = f"/library/{house.collection.pk}/documents/?{field}={quote(value, errors='replace')}"
        assert client.get(path).status_code == 200, repr(value)


def test_senseless_forms_are_no_fault_of_ours(house: House, signed_in: SignIn) -> None:
    client = signed_in(house.contributor)
    change = f"/library/{house.collection.pk}/documents/change/"
    body = {"action": "retry-failed", "code": "a\0b", "q": "\0"}
    assert client.post(change, body).status_code == 302
    taken = upload(client, house, "a.md", b"# A", path="x\0/\n/a.md", batch="no\0uuid")
    assert taken.status_code == 202
    document = Document.objects.get(pk=taken.json()["id"])
    assert (document.path, document.external_id) == ("x/a.md", "x/\n/a.md")


def test_every_kind_of_file_has_a_name() -> None:
    assert [kind for kind in SUPPORTED.values() if kind_of_file(kind) == kind] == []
