"""What people see of an upload: one page for it, failures by reason, twins, what holds it up."""

from __future__ import annotations

from typing import Any
from uuid import UUID, uuid4

import pytest
from django.core.files.uploadedfile import SimpleUploadedFile

from assistant.documents.models import Document
from ingestion import workers
from ingestion.models import IngestionJob, JobStatus, WorkerSign
from tests.factories import make_collection, make_document
from tests.web.conftest import TEXT, House, SignIn
from tests.web.markup import Elements
from tests.web.test_library import HTMX, page, upload

BATCH = UUID("8a5c3b0e-62ba-4e43-9c8f-1d6fd1a5d0aa")


def in_batch(house: House, status: str = "queued", **values: Any) -> Document:
    document = make_document(house.collection, title=f"File {uuid4()}", ready=False)
    IngestionJob.objects.filter(version__document=document).update(
        batch=BATCH, status=status, **values
    )
    return document


def failed(house: House, code: str = "no_text", detail: str = "No <b>text</b>.") -> Document:
    return in_batch(house, "failed", error_code=code, error_detail=detail)


def address(house: House, batch: UUID = BATCH) -> str:
    return f"/library/{house.collection.pk}/uploads/{batch}/"


def words(html: str) -> str:
    return " ".join(Elements(html).text.split())


def test_files_of_one_drop_share_a_page(house: House, signed_in: SignIn) -> None:
    client = signed_in(house.contributor)
    for path in ("hr/a.md", "hr/b.md"):
        answer = upload(client, house, path[3:], path.encode(), path=path, batch=str(BATCH))
        assert answer.status_code == 202
    text = page(client, address(house))
    assert "0 of 2 files done" in words(text)
    assert "2 waiting" in words(text)
    assert "not measured yet" in words(text)
    assert "every 2s" in text
    table = page(client, f"/library/{house.collection.pk}/", batch=str(BATCH))
    assert table.count('id="row-') == 2
    assert "hr/" in words(table)
    assert "Only files of one upload" in words(table)
    assert address(house) in table  # among the recent ones


def test_a_plain_form_makes_a_batch_too(house: House, signed_in: SignIn) -> None:
    files = [SimpleUploadedFile("a.md", b"# A"), SimpleUploadedFile("b.md", b"# B")]
    signed_in(house.contributor).post(f"/library/{house.collection.pk}/upload/", {"file": files})
    (batch,) = set(IngestionJob.objects.exclude(batch=None).values_list("batch", flat=True))
    assert batch is not None
    assert "0 of 2 files" in words(page(signed_in(house.contributor), address(house, batch)))


def test_failures_are_gathered_by_reason(house: House, signed_in: SignIn) -> None:
    for _ in range(3):
        failed(house)
    failed(house, "password_protected", "It has a password.")
    client = signed_in(house.contributor)
    text = page(client, address(house))
    assert text.count("No &lt;b&gt;text&lt;/b&gt;.") == 1
    assert "No text found 3 files" in words(text)
    assert "Password protected 1 file" in words(text)
    assert "every 2s" not in text
    response = client.post(
        f"{address(house)}change/", {"action": "retry", "code": "no_text"}, headers=HTMX
    )
    assert "Retrying 3 files." in response.content.decode()
    assert "<html" not in response.content.decode()
    states = IngestionJob.objects.filter(batch=BATCH).values_list("status", flat=True)
    assert sorted(states) == ["failed", "queued", "queued", "queued"]
    client.post(f"{address(house)}change/", {"action": "retry"})
    client.post(f"{address(house)}change/", {"action": "cancel"})
    assert set(states.all()) == {JobStatus.CANCELLED}
    assert client.post(f"{address(house)}change/", {"action": "x"}).status_code == 400


def test_the_filter_for_failed_files_gathers_them_too(house: House, signed_in: SignIn) -> None:
    failed(house)
    failed(house)
    path = f"/library/{house.collection.pk}/"
    text = page(signed_in(house.contributor), path, status="failed")
    assert "Failed (2)" in text
    assert "No text found 2 files" in words(text)
    assert "No text found" not in words(page(signed_in(house.reader), path, status="failed"))
    assert "No text found" not in words(page(signed_in(house.contributor), path))
    other = failed(house, "internal", "Ours.")
    response = signed_in(house.contributor).post(
        f"{path}documents/change/",
        {"action": "retry-failed", "code": "no_text", "status": "failed"},
        headers=HTMX,
    )
    assert "Retrying 2 documents." in response.content.decode()
    assert list(
        IngestionJob.objects.filter(status="failed").values_list("version__document", flat=True)
    ) == [other.pk]


def test_only_contributors_see_uploads(house: House, signed_in: SignIn) -> None:
    in_batch(house)
    assert signed_in(house.reader).get(address(house)).status_code == 403
    assert signed_in(house.stranger).get(address(house)).status_code == 404
    client = signed_in(house.contributor)
    assert client.get(address(house, uuid4())).status_code == 404
    other = make_collection(contributors=[house.contributor])
    assert client.get(f"/library/{other.pk}/uploads/{BATCH}/").status_code == 404
    assert address(house) not in page(signed_in(house.reader), f"/library/{house.collection.pk}/")


def test_waiting_reads_differently_from_standing_still(house: House, signed_in: SignIn) -> None:
    in_batch(house)
    last = in_batch(house)
    client = signed_in(house.contributor)
    path = f"/library/{house.collection.pk}/"
    assert "Behind 1 other" in words(page(client, path))
    assert "Waiting" in words(page(client, path))
    assert "Nothing moves" not in page(client, path)
    WorkerSign.objects.all().delete()
    for shown in (path, "/library/", address(house), f"/documents/{last.pk}/"):
        text = words(page(client, shown))
        assert text.count("No worker is running.") == 1, shown
    assert "No worker" in words(page(client, path))
    assert "Behind 1 other" not in words(page(client, path))
    assert "Nothing moves" not in page(signed_in(house.reader), path)
    workers.sign("worker@test", workers.queues())
    IngestionJob.objects.filter(version__document=last).update(
        attempts=1, error_code="internal", error_detail="It broke. Wait."
    )
    text = words(page(client, path))
    assert "Trying again" in text
    assert "(attempt 2 of 3): It broke." in text


def test_without_a_broker_the_page_says_so(
    house: House, signed_in: SignIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    in_batch(house)
    WorkerSign.objects.all().delete()
    monkeypatch.setattr(workers, "broker_answers", lambda: False)
    text = words(page(signed_in(house.contributor), f"/library/{house.collection.pk}/"))
    assert "The message queue cannot be reached" in text


def test_the_same_file_elsewhere_is_named_only_to_who_may_read_it(
    house: House, signed_in: SignIn
) -> None:
    client = signed_in(house.contributor)
    make_document(make_collection(name="Board"), text="Secret bytes.", title="Merger")
    hidden = upload(client, house, "a.md", b"Secret bytes.")
    assert hidden.json()["twin"] is None
    open_text = TEXT.encode()
    twin = upload(client, house, "b.md", open_text).json()["twin"]
    assert twin == {
        "words": "The same file is in “Handbook” as “Canteen”.",
        "url": f"/documents/{house.document.pk}/",
    }
    response = client.post(
        f"/library/{house.collection.pk}/upload/",
        {"file": SimpleUploadedFile("c.md", open_text)},
        follow=True,
    )
    assert "c.md: The same file is in" in response.content.decode()


def test_names_and_folders_are_searched(house: House, signed_in: SignIn) -> None:
    client = signed_in(house.contributor)
    upload(client, house, "a.md", b"# A", path="people/leave/a.md")
    text = page(client, f"/library/{house.collection.pk}/", q="people/le")
    assert text.count('id="row-') == 1
    assert "people/leave/" in words(text)
