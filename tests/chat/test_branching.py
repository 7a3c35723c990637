"""Edited questions and answers made again: what is shown, what the model gets, nothing lost."""

from __future__ import annotations

from typing import Any
from uuid import UUID, uuid4

import pytest
from asgiref.sync import sync_to_async
from django.core.exceptions import ValidationError
from django.db import connection
from django.db.migrations.executor import MigrationExecutor

from assistant.chat import actions, branching, choosing
from assistant.chat.models import AnswerStatus, Conversation, Message
from assistant.documents.actions import delete_document
from assistant.documents.models import Document
from assistant.users.models import User
from inference.fakes import FakeLLM, say
from tests.chat.writing import generate
from tests.factories import make_collection, make_document, make_turn, make_user

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def reader() -> User:
    user: User = make_user()
    make_document(make_collection(readers=[user]), title="Leave", text="Leave is thirty days.")
    return user


def turn(conversation: Conversation, question: str) -> Message:
    return make_turn(conversation, question=question, status="done", text=f"About {question}")


def ended(answer: Message) -> Message:
    Message.objects.filter(pk=answer.pk).update(status=AnswerStatus.DONE, text="Done.")
    return answer


def questions(conversation: Conversation) -> list[str]:
    conversation.refresh_from_db()
    branch = branching.branch_of(conversation)
    return [each.message.text for each in branch if each.message.role == "question"]


def test_an_edited_question_starts_a_branch_and_nothing_is_lost(reader: User) -> None:
    conversation = Conversation.objects.create(user=reader)
    first, second = turn(conversation, "one"), turn(conversation, "two")
    turn(conversation, "three")
    edited, answer = actions.ask(
        conversation.pk, content="two, said better", user=reader, parent=first.pk
    )
    ended(answer)
    assert questions(conversation) == ["one", "two, said better"]
    old = second.parent
    assert old is not None
    branch = branching.branch_of(conversation)
    assert branch[2].siblings == (old.pk, edited.pk)
    assert branch[3].siblings == (answer.pk,)
    actions.choose_branch(old)
    assert questions(conversation) == ["one", "two", "three"]
    _, root = actions.ask(conversation.pk, content="uno", user=reader, parent=None)
    ended(root)
    assert questions(conversation) == ["uno"]
    # Choosing shows the newest way on, and the next question follows at its end.
    actions.choose_branch(first)
    assert questions(conversation) == ["one", "two, said better"]
    conversation.refresh_from_db()
    ended(actions.ask(conversation.pk, content="four", user=reader)[1])
    assert questions(conversation) == ["one", "two, said better", "four"]
    assert conversation.messages.count() == 12


def test_only_an_answer_of_this_conversation_can_be_followed(reader: User) -> None:
    conversation, other = (Conversation.objects.create(user=reader) for _ in range(2))
    answer, foreign = turn(conversation, "one"), turn(other, "one")
    for parent in (answer.parent_id, foreign.pk, uuid4()):
        with pytest.raises(ValidationError) as caught:
            actions.ask(conversation.pk, content="two", user=reader, parent=parent)
        assert caught.value.code == "unknown_parent"
    assert conversation.messages.count() == 2


def test_an_answer_made_again_stands_beside_the_first(reader: User) -> None:
    conversation = Conversation.objects.create(user=reader)
    first = turn(conversation, "one")
    turn(conversation, "two")
    Message.objects.filter(pk=first.pk).update(
        effort="low", narrowing={"filters": {"types": ["pdf"]}, "ignored": ["time"]}
    )
    first.refresh_from_db()
    question, again = actions.ask_again(first, user=reader, effort="high", idempotency_key="k")
    assert question.pk == first.parent_id
    assert (again.effort, again.status) == ("high", AnswerStatus.PENDING)
    assert again.narrowing == {"filters": {"types": ["pdf"]}, "ignored": ["time"]}
    assert questions(conversation) == ["one"]
    assert branching.placed(again).siblings == (first.pk, again.pk)
    twice = actions.ask_again(first, user=reader, effort="high", idempotency_key="k")
    assert twice == (question, again)
    with pytest.raises(ValidationError) as busy:
        actions.ask_again(first, user=reader)
    assert busy.value.code == "busy"


def test_an_answer_that_failed_without_a_word_is_not_offered_beside_one_that_answers(
    reader: User,
) -> None:
    conversation = Conversation.objects.create(user=reader)
    failed = make_turn(conversation, question="one", status="failed", text="")
    again = actions.ask_again(failed, user=reader)[1]
    assert branching.placed(again).siblings == (failed.pk, again.pk), "it may fail too"
    ended(again)
    assert branching.placed(again).siblings == (again.pk,)
    conversation.refresh_from_db()
    assert branching.branch_of(conversation)[1].siblings == (again.pk,)
    third = actions.ask_again(again, user=reader)[1]
    Message.objects.filter(pk=third.pk).update(status=AnswerStatus.INTERRUPTED)
    assert branching.placed(third).siblings == (again.pk, third.pk), "what is shown has its place"
    question = failed.parent
    assert question is not None
    actions.choose_branch(question)
    conversation.refresh_from_db()
    assert conversation.leaf_id == again.pk
    ended(actions.ask(conversation.pk, content="two", user=reader, parent=third.pk)[1])
    assert branching.placed(again).siblings == (again.pk, third.pk), "somebody went on from it"
    Message.objects.filter(pk=failed.pk).update(text="Leave is")
    assert failed.pk in branching.placed(again).siblings, "it has words"


def test_another_model_is_kept_when_asked_again(reader: User, settings: Any) -> None:
    settings.LLM_BASE_URL = "http://127.0.0.1:9/v1"
    settings.LLM_MODEL = "small"
    settings.LLM_MODELS = [
        {"name": "Same", "model": "small"},
        {"name": "Thorough", "model": "big"},
    ]
    conversation = Conversation.objects.create(user=reader)
    first = turn(conversation, "one")
    Message.objects.filter(pk=first.pk).update(model="big")
    first.refresh_from_db()
    again = ended(actions.ask_again(first, user=reader)[1])
    assert again.model == "Thorough"
    Message.objects.filter(pk=first.pk).update(model="small")
    first.refresh_from_db()
    assert choosing.name_of(reader, first) == ""
    assert ended(actions.ask_again(again, user=reader, model="")[1]).model == ""
    with pytest.raises(ValidationError):
        actions.ask_again(first, user=reader, model="other")


async def test_the_model_gets_the_branch_without_what_was_withdrawn(
    reader: User, fake_llm: FakeLLM
) -> None:
    fake_llm.scripts = [say("Leave is thirty days [1].")]

    def begin() -> Conversation:
        return Conversation.objects.create(user=reader)

    conversation = await sync_to_async(begin)()
    first = await answered(conversation, "ALPHA leave days?")
    await answered(conversation, "BETA leave days?")
    fake_llm.requests.clear()
    await answered(conversation, "GAMMA leave days?", parent=first.pk)
    sent = repr(fake_llm.requests)
    assert "ALPHA" in sent
    assert "Leave is thirty days [1]" in sent
    assert "BETA" not in sent
    await sync_to_async(lose_everything)(reader)
    fake_llm.requests.clear()
    await answered(conversation, "DELTA leave days?", parent=first.pk)
    sent = repr(fake_llm.requests)
    assert "ALPHA" in sent
    assert "thirty" not in sent


async def answered(conversation: Conversation, content: str, **options: Any) -> Message:
    def ask() -> Message:
        conversation.refresh_from_db()
        return actions.ask(conversation.pk, content=content, user=conversation.user, **options)[1]

    answer = await sync_to_async(ask)()
    await generate(answer.pk)
    return answer


def lose_everything(reader: User) -> None:
    for document in Document.objects.all():
        delete_document(document, actor=reader)
    make_document(make_collection(readers=[reader]), text="Other leave rules.")


def test_old_conversations_become_one_branch_each() -> None:
    """The migration, on rows as they were before it."""
    executor = MigrationExecutor(connection)
    newest = [key for key in executor.loader.graph.leaf_nodes() if key[0] == "chat"]
    executor.migrate([("chat", "0006_support")])
    try:
        old = executor.loader.project_state([("chat", "0006_support")]).apps
        owner = old.get_model("users", "User").objects.create(email="old@example.com")
        threads = old.get_model("chat", "Conversation").objects
        made: dict[UUID, list[UUID]] = {}
        for _ in range(2):
            thread = threads.create(user=owner, title="Old")
            made[thread.pk] = [
                thread.messages.create(role=role, ordinal=ordinal, text=str(ordinal)).pk
                for ordinal, role in enumerate(["question", "answer"] * 2, start=1)
            ]
        empty = threads.create(user=owner)
    finally:
        MigrationExecutor(connection).migrate(newest)
    for pk, messages in made.items():
        conversation = Conversation.objects.get(pk=pk)
        assert [each.message.pk for each in branching.branch_of(conversation)] == messages
        assert conversation.title_by == Conversation.TitleBy.PERSON
    assert branching.branch_of(Conversation.objects.get(pk=empty.pk)) == []
