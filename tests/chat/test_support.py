from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from django.core.exceptions import ValidationError
from django.test import Client

from assistant.audit.models import AuditEvent
from assistant.chat import abstaining, actions
from assistant.chat.models import Conversation, Message, OpenQuestion
from assistant.chat.presenting import present
from assistant.documents.models import DocumentVersion
from assistant.permissions.models import Grant
from assistant.users.models import User
from assistant.web.answers import AnswerView, view_of
from inference.fakes import FakeEmbedder, FakeLLM, say
from inference.prompts import NO_ANSWER
from inference.types import EngineError
from tests.chat.writing import generate, shown
from tests.factories import make_collection, make_document, make_turn, make_user

pytestmark = pytest.mark.django_db(transaction=True)
LEAVE = "Annual leave for employees is 30 days a year.\n\nThe canteen opens at noon."

OLD_LEAVE = (
    "Written by the people desk of the Hamburg office for everybody who works there by contract."
    " Annual leave for employees is 28 days a year. Ask your team lead before you book a flight."
)


@pytest.fixture
def manager() -> User:
    return make_user()


@pytest.fixture
def reader(manager: User) -> User:
    user = make_user()
    collection = make_collection(readers=[user], managers=[manager], name="Handbook")
    make_document(collection, title="Leave rules", text=LEAVE)
    return user


def asked(user: User, text: str = "How many days of annual leave?") -> Message:
    return actions.ask(Conversation.objects.create(user=user).pk, content=text, user=user)[1]


async def generated(user: User, text: str = "How many days of annual leave?") -> Message:
    answer = await sync_to_async(asked)(user, text)
    await generate(answer.pk)
    return await Message.objects.select_related("conversation__user").aget(pk=answer.pk)


async def viewed(answer: Message, *, user: User) -> AnswerView:
    return await sync_to_async(lambda: view_of(present(answer, user=user)))()


def bases(answer: Message) -> list[tuple[str, str]]:
    return [(answer.text[s["start"] : s["end"]], s["basis"]) for s in answer.support["sentences"]]


async def test_each_sentence_says_what_it_stands_on(reader: User, fake_llm: FakeLLM) -> None:
    fake_llm.scripts = [
        say(
            "Annual leave for employees is 30 days a year. [1] The canteen opens at noon every day."
            " Bears hibernate quietly inside mountain caves."
        )
    ]
    answer = await generated(reader)
    assert [basis for _, basis in bases(answer)] == ["verified", "similar", "none"]
    html = (await viewed(answer, user=reader)).html
    assert html.count("no source found") == 1
    assert "caves.<span" in html


async def test_without_the_embedder_nothing_is_marked(
    reader: User, fake_llm: FakeLLM, fake_embedder: FakeEmbedder, monkeypatch: pytest.MonkeyPatch
) -> None:
    def write(request: Any) -> Any:
        fake_embedder.error = EngineError("embedder_unavailable", "Gone.", retryable=True)
        return say("Bears hibernate quietly inside mountain caves.")

    fake_llm.write = write
    answer = await generated(reader)
    assert answer.status == "done"
    assert answer.support["sentences"] == []


async def test_sources_that_differ_are_said_with_their_dates(
    reader: User, fake_llm: FakeLLM
) -> None:
    collection = await sync_to_async(lambda: Grant.objects.get(user=reader).collection)()
    old = await sync_to_async(make_document)(collection, title="Leave rules", text=OLD_LEAVE)
    await DocumentVersion.objects.filter(document=old).aupdate(
        created_at=datetime(2024, 5, 2, tzinfo=UTC)
    )

    def write(request: Any) -> Any:
        number = next(s.number for s in request.sources if "30 days" in s.text)
        return say(f"Annual leave for employees is 30 days a year [{number}].")

    fake_llm.write = write
    answer = await generated(reader)
    [conflict] = answer.support["conflicts"]
    assert (conflict["values"], conflict["unit"]) == (["30", "28"], "day")
    assert conflict["dated"][1] == "2024-05-02"
    view = await viewed(answer, user=reader)
    assert view.conflicts[0].other_dated.year == 2024
    cards = await shown(answer, "read_sources", user=reader)
    assert {card.dated.year for card in cards if card.dated} >= {2024}


async def test_a_superseded_source_is_said(reader: User, fake_llm: FakeLLM) -> None:
    collection = await sync_to_async(lambda: Grant.objects.get(user=reader).collection)()
    make = sync_to_async(make_document)
    await make(collection, title="Pay", text="Pay comes on Friday.", external_id="pay")
    fake_llm.scripts = [say("Pay comes on Friday [1].")]
    answer = await generated(reader, "When comes pay?")
    await make(collection, title="Pay", text="Pay comes on Monday.", external_id="pay")
    cards = await shown(answer, "read_sources", user=reader)
    assert [card.is_superseded for card in cards if card.title == "Pay"] == [True]


async def test_support_is_withheld_with_the_text(reader: User, fake_llm: FakeLLM) -> None:
    fake_llm.scripts = [say("Annual leave for employees is 30 days a year [1].")]
    answer = await generated(reader)
    assert await shown(answer, "support", user=reader)
    await Grant.objects.filter(user=reader).adelete()
    assert await shown(answer, "support", user=reader) == {}


async def test_abstaining_says_what_was_searched(
    reader: User, fake_llm: FakeLLM, settings: Any
) -> None:
    settings.NOT_FOUND_TEXT = "Nothing in {documents}. Ask the people desk."
    fake_llm.scripts = [say(NO_ANSWER)]
    answer = await generated(reader)
    assert answer.abstained
    assert answer.text == "Nothing in 1 document. Ask the people desk."
    searched = await shown(answer, "searched", user=reader)
    assert [each["name"] for each in searched["collections"]] == ["Handbook"]
    assert (searched["documents"], searched["query"]) == (1, "How many days of annual leave?")
    await Grant.objects.filter(user=reader).adelete()
    assert (await shown(answer, "searched", user=reader))["collections"] == []


async def test_who_has_nothing_to_read_is_told_what_to_do(reader: User, fake_llm: FakeLLM) -> None:
    await Grant.objects.filter(user=reader).adelete()
    answer = await generated(reader)
    assert answer.abstained
    assert "Make one in the library" in answer.text
    empty = await sync_to_async(make_collection)(managers=[reader])
    answer = await generated(reader)
    assert "no ready documents" in answer.text
    assert "library" in answer.text
    assert empty.name not in answer.text


async def test_a_manager_notes_a_question_for_all_managers(
    reader: User, manager: User, fake_llm: FakeLLM
) -> None:
    fake_llm.scripts = [say(NO_ANSWER)]
    answer = await generated(manager)

    def check() -> None:
        browser = Client()
        browser.force_login(manager, backend="django.contrib.auth.backends.ModelBackend")
        page = browser.get(f"/answers/{answer.pk}/").content.decode()
        assert "Note it as an open question" in page
        assert "to the managers" not in page
        url = f"/answers/{answer.pk}/send/"
        noted = browser.post(url, headers={"HX-Request": "true"}).content.decode()
        assert 'href="/questions/"' in noted
        assert "How many days" in browser.get("/questions/").content.decode()

    await sync_to_async(check)()


async def test_a_question_goes_to_the_managers_and_nobody_else(
    reader: User, manager: User, fake_llm: FakeLLM
) -> None:
    fake_llm.scripts = [say(NO_ANSWER)]
    answer = await generated(reader)

    def check() -> None:
        stranger, browser = make_user(), Client()
        make_collection(managers=[stranger])
        browser.force_login(reader, backend="django.contrib.auth.backends.ModelBackend")
        page = browser.get(f"/answers/{answer.pk}/").content.decode()
        assert "Send the question to the managers" in page
        assert "Closest, but not an answer" in page
        for _ in range(2):
            browser.post(f"/answers/{answer.pk}/send/", headers={"HX-Request": "true"})
        [sent] = OpenQuestion.objects.all()
        assert not OpenQuestion.objects.for_user(stranger).exists()
        assert not OpenQuestion.objects.for_user(reader).exists()
        browser.force_login(manager, backend="django.contrib.auth.backends.ModelBackend")
        page = browser.get("/questions/").content.decode()
        assert "How many days of annual leave?" in page
        assert reader.display_name in page
        browser.post(f"/questions/{sent.pk}/", {"status": "answered"})
        sent.refresh_from_db()
        assert (sent.status, sent.closed_by) == ("answered", manager)
        actions_done = set(AuditEvent.objects.values_list("action", flat=True))
        assert {"question.send", "question.close"} <= actions_done
        # A manager who is none any more sees it no more.
        Grant.objects.filter(user=manager).delete()
        assert not OpenQuestion.objects.for_user(manager).exists()

    await sync_to_async(check)()


def test_sending_has_its_limits(reader: User, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(abstaining, "SENT_PER_DAY", 1)
    conversation = Conversation.objects.create(user=reader)
    searched = {"collections": [str(Grant.objects.get(user=reader).collection_id)]}
    answers = [
        make_turn(conversation, abstained=abstained, searched=searched)
        for abstained in (True, True, False)
    ]
    first = abstaining.send_question(answers[0], user=reader)
    assert abstaining.send_question(answers[0], user=reader) == first
    with pytest.raises(ValidationError, match="today"):
        abstaining.send_question(answers[1], user=reader)
    with pytest.raises(ValidationError, match="has an answer"):
        abstaining.send_question(answers[2], user=reader)
    OpenQuestion.objects.update(created_at=first.created_at - timedelta(days=2))
    Grant.objects.filter(user=reader).delete()
    with pytest.raises(ValidationError, match="read any more"):
        abstaining.send_question(answers[1], user=reader)
