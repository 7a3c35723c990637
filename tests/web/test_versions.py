"""The document page as contributors use it: versions, parts, rest, chunks."""

from __future__ import annotations

import io

import pytest
from django.core.files.uploadedfile import SimpleUploadedFile
from django.db import transaction
from django.test import Client

from assistant.audit.models import AuditEvent
from assistant.documents import actions
from assistant.documents.actions import Upload
from assistant.documents.models import Document
from ingestion.models import IngestionJob, JobStatus
from tests.factories import make_collection, make_document, publish
from tests.web.conftest import TEXT, House, SignIn
from tests.web.test_batches import words


@pytest.fixture
def editor(house: House, signed_in: SignIn) -> Client:
    return signed_in(house.contributor)


def address(house: House, what: str = "") -> str:
    return f"/documents/{house.document.pk}/{what}"


def show(client: Client, path: str) -> str:
    response = client.get(path)
    assert response.status_code == 200
    return response.content.decode()


def replace(client: Client, house: House, content: bytes, name: str = "new.md") -> str:
    response = client.post(
        address(house, "replace/"), {"file": SimpleUploadedFile(name, content)}, follow=True
    )
    return response.content.decode()


def part_of(document: Document, path: str, *, status: str = JobStatus.QUEUED) -> Document:
    upload = Upload(
        content=io.BytesIO(path.encode()),
        filename=path.rpartition("/")[2],
        media_type="text/plain",
        path=path,
        parent_id=document.pk,
    )
    with transaction.atomic():
        version, _ = actions.store_version(document.collection_id, upload, actor=None)
        IngestionJob.objects.create(version=version, status=status, error_detail="Broken part.")
    found: Document = Document.objects.get(pk=version.document_id)
    return found


def test_replacing_keeps_the_old_version_until_the_new_one_is_ready(
    house: House, editor: Client
) -> None:
    text = words(replace(editor, house, b"The canteen opens at one."))
    assert "Taken as version 2." in text
    assert "opens at noon" in text
    assert "2 versions" in text
    assert "Next in line" in text
    newest = Document.objects.get(pk=house.document.pk).latest_version
    assert newest is not None
    assert newest.created_by == house.contributor
    publish(newest, "The canteen opens at one.")
    IngestionJob.objects.update(status=JobStatus.READY)
    text = words(show(editor, address(house)))
    assert "opens at one" in text
    assert "Version 2 Answers" in text
    assert "Version 1 Earlier" in text
    assert "every 2s" not in show(editor, address(house))


def test_a_file_that_cannot_be_taken_replaces_nothing(house: House, editor: Client) -> None:
    assert "The file is empty" in replace(editor, house, b"")
    assert "Nothing was changed" in replace(editor, house, TEXT.encode())
    response = editor.post(address(house, "replace/"), {}, follow=True)
    assert "Choose a file first." in response.content.decode()
    assert house.document.versions.count() == 1


def test_restoring_makes_a_new_version_of_old_bytes(house: House, editor: Client) -> None:
    replace(editor, house, b"The canteen opens at one.")
    body = {"action": "restore", "number": "1"}
    response = editor.post(address(house, "change/"), body, follow=True)
    text = words(response.content.decode())
    assert "Version 1 is being restored as version 3." in text
    assert "restored from 1" in text
    for number in ("9", "x", "-1", "9" * 30):
        body = {"action": "restore", "number": number}
        assert editor.post(address(house, "change/"), body).status_code == 404


def test_a_lost_original_cannot_be_restored_and_that_is_said(house: House, editor: Client) -> None:
    replace(editor, house, b"The canteen opens at one.")
    house.document.versions.filter(number=1).update(storage_key="originals/gone")
    body = {"action": "restore", "number": "1"}
    response = editor.post(address(house, "change/"), body, follow=True)
    assert "is lost" in response.content.decode()
    assert house.document.versions.count() == 2


def test_disabled_is_seen_everywhere_and_undone(
    house: House, editor: Client, signed_in: SignIn
) -> None:
    editor.post(address(house, "change/"), {"action": "disable"})
    assert "Disabled. It answers nothing since" in words(show(editor, address(house)))
    assert "Version 1 Current" in words(show(editor, address(house)))
    assert "Disabled" in words(show(editor, f"/library/{house.collection.pk}/"))
    assert "opens at noon" in show(signed_in(house.reader), address(house))
    editor.post(address(house, "change/"), {"action": "enable"})
    assert "Disabled" not in words(show(editor, address(house)))


def test_retry_cancel_and_delete_from_the_page(house: House, editor: Client) -> None:
    replace(editor, house, b"The canteen opens at one.")
    for action, status in (("cancel", "cancelled"), ("retry", "queued"), ("retry", "queued")):
        editor.post(address(house, "change/"), {"action": action})
        job = IngestionJob.objects.get(version__number=2)
        assert job.status == status
    assert editor.post(address(house, "change/"), {"action": "x"}).status_code == 400
    response = editor.post(address(house, "change/"), {"action": "delete"})
    assert response["Location"] == f"/library/{house.collection.pk}/"
    assert editor.get(address(house)).status_code == 404


def test_readers_see_versions_and_change_nothing(
    house: House, editor: Client, signed_in: SignIn
) -> None:
    replace(editor, house, b"The canteen opens at one.")
    reader = signed_in(house.reader)
    text = show(reader, address(house))
    assert "2 versions" in text
    for word in ("Replace", "Restore", "Disable", "What is indexed"):
        assert word not in words(text), word
    assert 'value="delete"' not in text
    for what, body in (("change/", {"action": "disable"}), ("replace/", {})):
        assert reader.post(address(house, what), body).status_code == 403
        assert signed_in(house.stranger).post(address(house, what), body).status_code == 404
    assert AuditEvent.objects.filter(result="denied", actor_id=house.reader.pk).count() == 2


def test_a_container_lists_its_parts_and_a_part_names_its_container(
    house: House, editor: Client
) -> None:
    plan = part_of(house.document, "attachments/plan.txt")
    part_of(house.document, "attachments/broken.txt", status=JobStatus.FAILED)
    text = words(show(editor, address(house)))
    assert "2 parts" in text
    assert "attachments/plan.txt Waiting" in text
    assert "attachments/broken.txt Failed Broken part." in text
    shown = show(editor, f"/documents/{plan.pk}/")
    assert f'href="{address(house)}"' in shown
    assert "replace-document" not in shown
    table = words(show(editor, f"/library/{house.collection.pk}/"))
    assert "in Canteen · attachments/" in table


def test_the_page_costs_the_same_for_many_parts_and_versions(
    house: House, editor: Client, django_assert_max_num_queries: object
) -> None:
    for number in range(12):
        part_of(house.document, f"{number}.txt")
    for number in range(6):
        replace(editor, house, f"Version {number}".encode())
    with django_assert_max_num_queries(28):  # type: ignore[operator]
        show(editor, address(house))


def test_what_is_indexed_is_shown_to_contributors_alone(
    house: House, editor: Client, signed_in: SignIn
) -> None:
    text = words(show(editor, address(house, "chunks/")))
    assert "3 chunks" in text
    assert "The canteen opens at noon." in text
    assert "characters 15 to 41" in text
    assert text.count("Vector") == 3
    rest = show(editor, address(house, "chunks/?start=2"))
    assert "closes at three" in rest
    assert "opens at noon" not in rest
    assert "Nothing is indexed" in show(editor, address(house, "chunks/?start=99"))
    assert editor.get(address(house, "chunks/?v=7")).status_code == 404
    hidden = signed_in(house.reader).get(address(house, "chunks/"))
    assert hidden.status_code == 404
    foreign = make_document(make_collection(readers=[house.contributor]))
    assert editor.get(f"/documents/{foreign.pk}/chunks/").status_code == 404
