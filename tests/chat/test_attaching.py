"""Files attached to a conversation: in its prompts and citations, and nowhere else for nobody."""

from __future__ import annotations

from typing import Any

import pytest
from asgiref.sync import sync_to_async
from django.db import transaction
from django.test import Client

from assistant.chat import actions, attaching, bundling
from assistant.chat.models import AnswerStatus, Conversation, Message
from assistant.documents.actions import create_private_collection
from assistant.documents.models import (
    Collection,
    Document,
    DocumentVersion,
    PageBoxes,
    PendingFileRemoval,
    VersionText,
)
from assistant.permissions.policy import collections_with_role
from assistant.permissions.roles import Role
from assistant.retrieval import search
from assistant.retrieval.models import Chunk
from assistant.retrieval.row_security import TABLES, reading_as
from assistant.users.models import User
from inference.fakes import FakeLLM, say
from ingestion.models import IngestionJob, JobStatus
from tests.chat.writing import generate, shown
from tests.factories import file_named, line_box, make_collection, make_document, make_user

pytestmark = pytest.mark.django_db(transaction=True)
TEXT = "The pilot in Oslo costs 4,200 kroner a month.\n\nIt ends in May."
WORDS = "The pilot in Oslo costs 4,200 kroner a month [1]."


@pytest.fixture
def owner() -> User:
    """Who also reads a collection with a text about something else."""
    user: User = make_user()
    collection = make_collection(readers=[user], name="Handbook")
    make_document(collection, title="Canteen", text="The canteen opens at noon.")
    return user


def conversation_with(user: User, **fields: Any) -> tuple[Conversation, Document]:
    """A conversation with one attached file, as the pipeline leaves it."""
    place = create_private_collection(name=attaching.NAME, owner=user)
    fields = {"title": "offer.md", "text": TEXT, "actor": user, **fields}
    document = make_document(place, **fields)
    IngestionJob.objects.filter(status=JobStatus.READY).update(finished_at=document.updated_at)
    return Conversation.objects.create(user=user, attachments=place), document


async def asked(conversation: Conversation, question: str) -> Message:
    def ask() -> Message:
        return actions.ask(conversation.pk, content=question, user=conversation.user)[1]

    answer = await sync_to_async(ask)()
    await generate(answer.pk)
    return await Message.objects.select_related("conversation__user").aget(pk=answer.pk)


async def test_it_is_in_the_prompt_whole_and_quoted_with_a_verified_citation(
    owner: User, fake_llm: FakeLLM
) -> None:
    fake_llm.scripts = [say(WORDS)]
    conversation, document = await sync_to_async(conversation_with)(owner)
    answer = await asked(conversation, "Summarise this.")
    prompt = fake_llm.requests[-1].messages[-1].content
    assert "kroner" in prompt
    assert "It ends in May." in prompt
    (citation,) = await shown(answer, "citations", user=owner)
    assert (citation.document_id, citation.verified) == (document.pk, True)
    assert citation.quote == TEXT[citation.locator.char_start : citation.locator.char_end]
    # In another conversation of the same person it is not there.
    other = await Conversation.objects.acreate(user=owner)
    await asked(other, "What does the pilot in Oslo cost a month?")
    assert "kroner" not in repr(fake_llm.requests[1:])


async def test_a_long_one_is_searched_and_leaves_room(
    owner: User, fake_llm: FakeLLM, settings: Any
) -> None:
    settings.SOURCE_TOKEN_BUDGET = 60
    pages = "\n\n".join(f"Page {n} is about nothing but the number {n}." for n in range(60))
    conversation, _ = await sync_to_async(conversation_with)(owner, text=f"{pages}\n\n{TEXT}")
    await asked(conversation, "What does the pilot in Oslo cost a month?")
    prompt = fake_llm.requests[-1].messages[-1].content
    assert "kroner" in prompt
    assert prompt.count("<passage ") < 10


async def test_a_question_waits_for_it_and_says_what_went_wrong(
    owner: User, fake_llm: FakeLLM, settings: Any
) -> None:
    conversation, _ = await sync_to_async(conversation_with)(owner, ready=False)
    settings.ATTACHMENT_WAIT_SECONDS = 0
    answer = await asked(conversation, "Summarise this.")
    assert (answer.status, answer.error_code) == (AnswerStatus.FAILED, "attachment_waiting")
    assert "offer.md" in answer.error_detail
    job = IngestionJob.objects.filter(version__document__collection=conversation.attachments_id)
    await job.aupdate(
        status=JobStatus.FAILED, error_detail="It has no text.", finished_at=answer.created_at
    )
    answer = await asked(conversation, "Summarise this.")
    assert answer.error_code == "attachment_failed"
    assert "“offer.md” could not be read: It has no text. Remove it" in answer.error_detail
    assert "<passages>" not in repr(fake_llm.requests)  # only a follow-up was rewritten


@pytest.mark.usefixtures("fake_embedder")
def test_nobody_else_reaches_it_by_any_way(owner: User) -> None:
    conversation, document = conversation_with(owner)
    root, colleague = make_user(is_superuser=True), make_user()
    for user in (owner, root, colleague):
        assert conversation.attachments_id not in collections_with_role(user, Role.READER)
        for model in (
            Collection,
            Document,
            DocumentVersion,
            VersionText,
            PageBoxes,
            IngestionJob,
        ):
            rows = model.objects.for_user(user)
            path = model.collection_path
            assert not rows.filter(**{path: conversation.attachments_id}).exists()
        assert "Oslo" not in repr(search("pilot Oslo kroner", user=user, limit=50).passages)
        with pytest.raises(Collection.DoesNotExist):
            search("pilot", user=user, collections=[conversation.attachments_id])  # type: ignore[list-item]
        for path in ("", "/settings", "/share"):
            client = signed_in(user)
            assert client.get(f"/library/{conversation.attachments_id}{path}/").status_code == 404
        assert attaching.NAME not in client.get("/library/").content.decode()
        for url in ("collections/", "documents/"):
            assert (
                str(conversation.attachments_id)
                not in client.get(f"/api/v1/{url}").content.decode()
            )
    for user, status in ((owner, 200), (root, 404), (colleague, 404)):
        client = signed_in(user)
        for url in (f"/documents/{document.pk}/", f"/api/v1/documents/{document.pk}/file"):
            assert client.get(url).status_code == status
    page = signed_in(owner).get(f"/documents/{document.pk}/?start=0&end=9").content.decode()
    assert "<mark" in page
    assert f"/c/{conversation.pk}/" in page
    assert f"/library/{conversation.attachments_id}/" not in page


def test_the_second_net_knows_it_too(owner: User) -> None:
    conversation, _ = conversation_with(owner, boxes=[line_box(1, 0, 45)])
    place = conversation.attachments_id
    assert place is not None
    root, colleague = make_user(is_superuser=True), make_user()
    for user, seen in ((owner, True), (root, False), (colleague, False)):
        with transaction.atomic(), reading_as(user):
            assert Collection.objects.filter(pk=place).exists() is seen
            assert Document.objects.filter(collection=place).exists() is seen
            assert VersionText.objects.filter(version__document__collection=place).exists() is seen
            assert PageBoxes.objects.filter(version__document__collection=place).exists() is seen
            assert Chunk.objects.filter(collection=place).exists() is seen
    assert len(TABLES) == 7
    other = Collection.objects.exclude(pk=place).get()
    with transaction.atomic(), reading_as(root):
        assert Collection.objects.filter(pk=other.pk).exists()


async def test_managers_and_superusers_see_nothing_of_it_in_how_an_answer_was_made(
    owner: User, fake_llm: FakeLLM
) -> None:
    fake_llm.scripts = [say(WORDS)]
    conversation, _ = await sync_to_async(conversation_with)(owner)
    answer = await asked(conversation, "What does the pilot cost?")

    def seen_by(user: User) -> Any:
        bundle = bundling.bundle_for(user, answer.pk)
        return bundling.account_of(bundle, user=user) if bundle else None

    root, colleague = await sync_to_async(lambda: (make_user(is_superuser=True), make_user()))()
    assert await sync_to_async(seen_by)(colleague) is None
    account = await sync_to_async(seen_by)(root)
    assert (account.is_withheld, account.text, account.prompt) == (True, "", None)
    assert "offer.md" not in repr(account.sources)
    bundle = await sync_to_async(bundling.bundle_for)(owner, answer.pk)
    assert bundle is not None
    assert "kroner" in (await bundling.replay(bundle, user=owner)).passages[0]["text"]
    assert "kroner" not in repr((await bundling.replay(bundle, user=root)).passages)


async def test_it_goes_with_its_conversation_and_takes_its_answers_along(
    owner: User, fake_llm: FakeLLM
) -> None:
    fake_llm.scripts = [say(WORDS)]
    conversation, document = await sync_to_async(conversation_with)(owner)
    answer = await asked(conversation, "What does the pilot cost?")
    await sync_to_async(attaching.detach)(conversation, document, user=owner)
    assert await shown(answer, "text", user=owner) == ""
    conversation, document = await sync_to_async(conversation_with)(owner)
    await PendingFileRemoval.objects.all().adelete()
    await sync_to_async(actions.delete_conversation)(conversation, user=owner)
    assert not await Document.all_objects.filter(pk=document.pk).aexists()
    assert not await Collection.objects.filter(pk=document.collection_id).aexists()
    assert not await Chunk.objects.filter(document_id=document.pk).aexists()
    assert await PendingFileRemoval.objects.acount() == 1


def test_files_come_through_the_door_of_ingestion_over_the_api(owner: User, settings: Any) -> None:
    settings.MAX_ATTACHMENTS = 1
    conversation = Conversation.objects.create(user=owner)
    url = f"/api/v1/conversations/{conversation.pk}/attachments/"
    client = signed_in(owner)
    taken = client.post(url, {"file": file_named("offer.md", TEXT.encode())})
    assert (taken.status_code, taken.json()["status"]) == (202, "queued")
    again = client.post(url, {"file": file_named("offer.md", b"Another text.")})
    assert again.json()["id"] == taken.json()["id"]
    assert again.json()["version"] == 2
    assert [row["id"] for row in client.get(url).json()["results"]] == [taken.json()["id"]]
    refused = client.post(url, {"file": file_named("second.md", TEXT.encode())})
    assert refused.status_code == 400
    assert "At most 1 files" in refused.json()["detail"]
    empty = client.post(url, {"file": file_named("offer.md", b"")})
    assert (empty.status_code, empty.json()["code"]) == (400, "empty_file")
    assert signed_in(make_user(is_superuser=True)).get(url).status_code == 404
    assert client.delete(f"{url}{taken.json()['id']}/").status_code == 204
    assert client.get(url).json()["results"] == []
    assert client.get(f"/api/v1/documents/{taken.json()['id']}/").status_code == 404


def signed_in(user: User) -> Client:
    client = Client()
    client.force_login(user)
    return client
