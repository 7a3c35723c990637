"""Titles and follow-ups: after the answer, not in its way, and gone with its sources."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from asgiref.sync import sync_to_async

from assistant.chat import actions, presenting, queueing, suggesting
from assistant.chat.models import Conversation, Message
from assistant.permissions.models import Grant
from assistant.users.models import User
from inference.fakes import FakeLLM, Step, say
from inference.types import EngineError, GenerationRequest
from tests.chat.writing import generate
from tests.factories import make_collection, make_document, make_user

pytestmark = pytest.mark.django_db(transaction=True)
TEXT = "Annual leave is thirty days a year."
QUESTION = "How many days of annual leave?"
FOLLOW_UPS = "1. Can leave be carried over?\n- Who approves annual leave?\nWhat about part-time?"


@pytest.fixture
def reader() -> User:
    user: User = make_user()
    make_document(make_collection(readers=[user]), title="Handbook", text=TEXT)
    return user


def model(
    *, title: str | EngineError = "Days of annual leave", follow_ups: str = FOLLOW_UPS
) -> Callable[[GenerationRequest], list[Step]]:
    def write(request: GenerationRequest) -> list[Step]:
        task = request.messages[0].content
        if "You name a conversation" in task:
            return [title] if isinstance(title, EngineError) else say(title)
        if "could ask next" in task:
            return say(follow_ups)
        return say(f"{TEXT[:-1]} [1].")

    return write


async def answered(reader: User, *, question: str = QUESTION, title: str = "") -> Message:
    """An answer that has ended, without what comes after it."""

    def ask() -> Message:
        conversation = actions.create_conversation(user=reader, title=title)
        return actions.ask(conversation.pk, content=question, user=reader)[1]

    answer = await sync_to_async(ask)()
    await generate(answer.pk)
    return answer


async def suggested(answer: Message) -> Message:
    await suggesting.suggest(answer.pk)
    return await Message.objects.select_related("conversation").aget(pk=answer.pk)


async def test_a_title_and_follow_ups_come_after_the_answer(
    reader: User, fake_llm: FakeLLM
) -> None:
    fake_llm.write = model()
    answer = await answered(reader)
    before = await Message.objects.select_related("conversation").aget(pk=answer.pk)
    assert (before.conversation.title, before.follow_ups) == (QUESTION, None)
    asked = len(fake_llm.requests)
    found = await suggested(answer)
    assert found.conversation.title == "Days of annual leave"
    assert found.conversation.title_by == Conversation.TitleBy.MODEL
    assert found.follow_ups == [
        "Can leave be carried over?",
        "Who approves annual leave?",
        "What about part-time?",
    ]
    titling, following = fake_llm.requests[asked:]
    assert "thirty" not in repr(titling.messages)  # nothing of a source
    assert "thirty" in repr(following.messages)
    assert titling.cache_salt == following.cache_salt is not None
    await suggested(answer)
    assert len(fake_llm.requests) == asked + 2


async def test_a_title_of_ones_own_stays(reader: User, fake_llm: FakeLLM) -> None:
    fake_llm.write = model()
    given = await suggested(await answered(reader, title="Mine"))
    assert given.conversation.title == "Mine"
    answer = await answered(reader)
    stored = await Conversation.objects.aget(messages=answer)
    await sync_to_async(actions.rename_conversation)(stored, title=QUESTION, user=reader)
    assert (await suggested(answer)).conversation.title == QUESTION
    # Also when it is given while the model writes another.
    await suggesting._store_title(stored.pk, "Of the model")
    await stored.arefresh_from_db()
    assert stored.title == QUESTION


@pytest.mark.parametrize("title", ["", "One\nTwo", "x" * 81, "See https://evil.example"])
async def test_what_is_no_title_leaves_the_question_cut_off(
    reader: User, fake_llm: FakeLLM, title: str
) -> None:
    fake_llm.write = model(title=title)
    found = await suggested(await answered(reader))
    assert found.conversation.title == QUESTION
    assert len(found.follow_ups or []) == 3


async def test_a_model_that_fails_costs_nothing_but_the_suggestions(
    reader: User, fake_llm: FakeLLM
) -> None:
    fake_llm.write = model(title=EngineError("llm_lost", "Gone.", retryable=True))
    found = await suggested(await answered(reader))
    assert (found.status, found.follow_ups) == ("done", [])
    assert found.conversation.title == QUESTION


async def test_answers_go_before_suggestions(
    reader: User, fake_llm: FakeLLM, settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(queueing, "_PREFIX", f"{{{reader.pk}}}:")  # a line of its own
    fake_llm.write = model()
    answer = await answered(reader)
    settings.LLM_MAX_RUNNING = 1
    asked = len(fake_llm.requests)
    async with queueing.spare_place() as is_free:
        assert is_free
        assert (await suggested(answer)).follow_ups == []
    assert len(fake_llm.requests) == asked
    async with queueing.spare_place() as is_free:
        assert is_free  # all places were given back


@pytest.mark.parametrize("reason", ["off", "nothing verified", "withdrawn"])
async def test_no_follow_ups_where_there_must_be_none(
    reader: User, fake_llm: FakeLLM, settings: Any, reason: str
) -> None:
    fake_llm.write = model()
    answer = await answered(reader)
    if reason == "off":
        settings.SUGGEST_FOLLOW_UPS = False
    elif reason == "nothing verified":
        await answer.citations.aupdate(verified=False)
    else:
        await Grant.objects.all().adelete()
    asked = len(fake_llm.requests)
    assert (await suggested(answer)).follow_ups == []
    assert "could ask next" not in repr(fake_llm.requests[asked:])


async def test_follow_ups_are_withheld_with_their_answer(reader: User, fake_llm: FakeLLM) -> None:
    fake_llm.write = model()
    answer = await suggested(await answered(reader))

    def shown() -> list[str]:
        return presenting.present(answer, user=reader).follow_ups

    assert len(await sync_to_async(shown)()) == 3
    await Grant.objects.all().adelete()
    assert await sync_to_async(shown)() == []


async def test_without_a_language_model_there_is_nothing(reader: User, fake_llm: FakeLLM) -> None:
    fake_llm.write = model()
    answer = await answered(reader)
    fake_llm.is_language_model = False
    found = await suggested(answer)
    assert (found.follow_ups, found.conversation.title) == (None, QUESTION)


def test_only_questions_are_taken_from_what_a_model_says() -> None:
    said = (
        f"{'x' * 200}?\nHere are three questions:\n1) »Wer genehmigt Urlaub?«\n"
        "* **Gilt das für alle?**\n"
        f"{QUESTION}\nGilt das für alle?\nWhy not read [this](https://evil.example)?\n"
        "Write to root@evil.example?\n休暇は繰り越せますか？\nIs a fourth one shown?\n"
        + "x" * 200
        + "?"
    )
    assert suggesting.questions_of(said, QUESTION) == [
        "Wer genehmigt Urlaub?",
        "Gilt das für alle?",
        "休暇は繰り越せますか？",
    ]
    assert suggesting.title_of(' "Urlaub 2026." ') == "Urlaub 2026"
