from __future__ import annotations

import io
from typing import Any
from uuid import uuid4

import pytest
from django.db import transaction
from django.test import Client

from assistant.documents import actions
from assistant.documents.actions import Upload
from assistant.documents.models import DocumentVersion, VersionText
from ingestion.models import IngestionJob, JobStatus
from tests.factories import make_collection, make_document, publish
from tests.web.conftest import TEXT, House, SignIn


def show(client: Client, house: House, **query: Any) -> str:
    response = client.get(f"/documents/{house.document.pk}/", query)
    assert response.status_code == 200
    return response.content.decode()


def second_version(house: House, text: str, *, ready: bool = True) -> DocumentVersion:
    upload = Upload(
        content=io.BytesIO(text.encode()),
        filename="canteen.md",
        media_type="text/markdown",
        external_id=house.document.external_id,
    )
    with transaction.atomic():
        version, _ = actions.store_version(house.collection.pk, upload, actor=house.manager)
        IngestionJob.objects.create(version=version, status=JobStatus.READY if ready else "failed")
    if ready:
        publish(version, text)
    return version


@pytest.fixture
def named(house: House) -> House:
    house.document.external_id = "canteen.md"
    house.document.save()
    return house


def test_the_text_is_shown_with_its_version_and_original(house: House, signed_in: SignIn) -> None:
    text = show(signed_in(house.reader), house)
    assert "The canteen opens at noon." in text
    assert f"/api/v1/documents/{house.document.pk}/file?version=1" in text
    assert "1 (current)" in text
    assert "<mark" not in text


@pytest.mark.parametrize(
    ("start", "end"),
    [("5", "5"), ("9", "3"), ("-1", "4"), ("x", "y"), ("", "4"), ("9" * 40, "9" * 41)],
)
def test_a_senseless_passage_is_no_passage(
    house: House, signed_in: SignIn, start: str, end: str
) -> None:
    assert "<mark" not in show(signed_in(house.reader), house, start=start, end=end)


def test_a_passage_is_cut_at_the_end_of_the_text(house: House, signed_in: SignIn) -> None:
    start = TEXT.index("It closes")
    text = show(signed_in(house.reader), house, start=start, end=10**9)
    assert '<mark id="passage" tabindex="-1">It closes at three.</mark>' in text


def test_an_old_version_says_that_there_is_a_newer_one(named: House, signed_in: SignIn) -> None:
    old = named.document.current_version
    assert old is not None
    second_version(named, "The canteen opens at one.")
    client = signed_in(named.reader)
    for which in (str(old.pk), "1"):
        text = show(client, named, v=which)
        assert "This is version 1." in text
        assert "opens at noon" in text
    assert "opens at one" in show(client, named)


def test_a_failed_newer_version_does_not_hide_the_text(named: House, signed_in: SignIn) -> None:
    version = second_version(named, "broken", ready=False)
    client = signed_in(named.reader)
    assert "opens at noon" in show(client, named)
    assert "could not be read" in show(client, named, v=version.number)


def test_versions_of_other_documents_are_not_found(house: House, signed_in: SignIn) -> None:
    foreign = make_document(make_collection()).current_version
    sibling = make_document(house.collection, text="Other.").current_version
    assert foreign is not None
    assert sibling is not None
    client = signed_in(house.reader)
    for which in (foreign.pk, sibling.pk, uuid4(), "7", "latest", "9" * 40):
        response = client.get(f"/documents/{house.document.pk}/", {"v": str(which)})
        assert response.status_code == 404, which


def test_strangers_see_nothing(house: House, signed_in: SignIn) -> None:
    client = signed_in(house.stranger)
    hidden = client.get(f"/documents/{house.document.pk}/")
    assert hidden.status_code == 404
    assert hidden.content == client.get(f"/documents/{uuid4()}/").content


def test_while_it_is_read_the_page_says_so(house: House, signed_in: SignIn) -> None:
    waiting = make_document(house.collection, ready=False)
    client = signed_in(house.reader)
    assert "Waiting…" in client.get(f"/documents/{waiting.pk}/").content.decode()


def test_a_long_document_opens_at_the_part_with_the_passage(
    house: House, signed_in: SignIn
) -> None:
    pieces = [f"Paragraph {number}. " + "word " * 1000 for number in range(60)]
    text, elements, at = "\n\n".join(pieces), [], 0
    for piece in pieces:
        elements.append({"kind": "paragraph", "char_start": at, "char_end": at + len(piece)})
        at += len(piece) + 2
    VersionText.objects.update(text=text, elements=elements)
    start = text.index("Paragraph 50.")
    client = signed_in(house.reader)
    shown = show(client, house, start=start, end=start + 13)
    assert '<mark id="passage" tabindex="-1">Paragraph 50.</mark>' in shown
    assert "Paragraph 1." not in shown
    assert len(shown) < 200_000
    assert "Paragraph 1." in show(client, house, part=1)
    assert "Paragraph 1." in show(client, house, part=999)
