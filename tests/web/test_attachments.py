"""The composer: files that come with a question, and the model that is to answer."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from assistant import engines
from assistant.chat.models import Conversation, Message
from assistant.documents.models import Collection, Document
from ingestion.models import IngestionJob, JobStatus
from tests.factories import file_named
from tests.web.conftest import House, SignIn

HTMX = {"HX-Request": "true"}


@pytest.fixture(autouse=True)
def nobody_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("assistant.chat.actions.start", lambda _: None)


@pytest.fixture
def two_models(settings: Any) -> Iterator[None]:
    settings.LLM_MODELS = [{"name": "Thorough", "model": "big"}]
    engines.reset()
    yield
    settings.LLM_MODELS = []
    engines.reset()


def test_a_file_comes_with_a_question_and_is_listed_until_it_is_removed(
    house: House, signed_in: SignIn
) -> None:
    client = signed_in(house.reader)
    body = {"content": "When does it end?", "files": [file_named("offer.md", b"It ends in May.")]}
    assert client.post("/", body, headers=HTMX).status_code == 200
    conversation = Conversation.objects.get(user=house.reader)
    document = Document.objects.get(collection=conversation.attachments_id)
    url = f"/c/{conversation.pk}/"
    text = client.get(url).content.decode()
    assert "offer.md" in text
    assert "A question waits until the files are read." in text
    IngestionJob.objects.filter(version__document=document).update(
        status=JobStatus.FAILED, error_detail="It has no text."
    )
    text = client.get(f"{url}attachments/").content.decode()
    assert "It has no text. Remove it to ask on." in text
    assert "every 2s" not in text
    removed = client.post(f"{url}attachments/{document.pk}/delete/", headers=HTMX)
    assert "offer.md" not in removed.content.decode()
    assert client.get(f"/documents/{document.pk}/").status_code == 404
    # A document of the library is no attachment.
    assert client.post(f"{url}attachments/{house.document.pk}/delete/").status_code == 404


def test_two_files_of_one_name_are_two_and_one_that_comes_again_is_a_version(
    house: House, signed_in: SignIn
) -> None:
    client = signed_in(house.reader)
    files = [file_named("scan.md", b"One."), file_named("scan.md", b"Two.")]
    client.post("/", {"content": "What?", "files": files})
    attached = Document.objects.exclude(collection=house.collection)
    assert attached.count() == 2
    Message.objects.update(status="done")
    thread = f"/c/{Conversation.objects.get().pk}/"
    client.post(thread, {"content": "And now?", "files": [file_named("scan.md", b"Three.")]})
    assert sorted(each.latest_version.number for each in attached) == [1, 2]


def test_a_file_that_is_refused_is_named_and_leaves_nothing(
    house: House, signed_in: SignIn
) -> None:
    body = {"content": "When?", "files": [file_named("empty.md", b"")]}
    refused = signed_in(house.reader).post("/", body, headers=HTMX)
    assert refused.status_code == 422
    assert "empty.md: The file is empty" in refused.content.decode()
    assert not Conversation.objects.exists()
    assert not Collection.objects.exclude(pk=house.collection.pk).exists()


@pytest.mark.usefixtures("two_models")
def test_the_model_can_be_chosen_where_there_is_a_choice(house: House, signed_in: SignIn) -> None:
    client = signed_in(house.reader)
    assert '<option value="Thorough">' in client.get("/").content.decode()
    client.post("/", {"content": "When?", "model": "Thorough"})
    conversation = Conversation.objects.get(user=house.reader)
    assert Message.objects.get(role=Message.Role.ANSWER).model == "Thorough"
    text = client.get(f"/c/{conversation.pk}/").content.decode()
    assert '<option value="Thorough" selected>' in text
    refused = client.post("/", {"content": "When?", "model": "other"}, headers=HTMX)
    assert "There is no model" in refused.content.decode()


def test_with_one_model_nothing_is_to_be_chosen(house: House, signed_in: SignIn) -> None:
    assert 'name="model"' not in signed_in(house.reader).get("/").content.decode()
