"""What an answer was made from: kept, shown to the right people, made again, forgotten."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from django.utils import timezone

from assistant.chat import actions, bundling
from assistant.chat.models import Bundle, Conversation, Message
from assistant.documents.models import Collection, Document
from assistant.permissions.models import Grant
from assistant.users.models import User
from inference.fakes import FakeLLM, say
from tests.chat.writing import generate
from tests.factories import make_collection, make_document, make_user

pytestmark = pytest.mark.django_db(transaction=True)
TEXT = "Annual leave is thirty days a year."


@pytest.fixture
def world(fake_llm: FakeLLM) -> tuple[User, User, Collection, Document]:
    """A reader, a manager, their collection and its document."""
    fake_llm.scripts = [say("Thirty days [1].")]
    reader, manager = make_user(), make_user()
    collection = make_collection(readers=[reader], managers=[manager])
    return reader, manager, collection, make_document(collection, title="Leave", text=TEXT)


async def answered(user: User) -> Message:
    def ask() -> Message:
        conversation = Conversation.objects.create(user=user)
        return actions.ask(conversation.pk, content="annual leave days", user=user)[1]

    answer = await sync_to_async(ask)()
    await generate(answer.pk)
    return answer


def account(answer: Message, user: User) -> bundling.Account | None:
    bundle = bundling.bundle_for(user, answer.pk)
    return bundling.account_of(bundle, user=user) if bundle else None


async def test_it_holds_what_the_answer_was_made_from(world: Any) -> None:
    reader, manager, _collection, _ = world
    answer = await answered(reader)
    bundle = await Bundle.objects.aget(answer=answer)
    assert bundle.queries == ["annual leave days"]
    assert len(bundle.rights_hash) == 64
    assert bundle.sampling["effort"] == "medium"
    assert TEXT in repr(bundle.prompt)
    shown = await sync_to_async(account)(answer, manager)
    assert shown is not None
    assert (shown.question, shown.text) == ("annual leave days", "Thirty days [1].")
    assert shown.sources[0].title == "Leave"


async def test_only_its_reader_and_managers_of_all_its_sources_see_it(world: Any) -> None:
    reader, manager, collection, _ = world
    answer = await answered(reader)
    see = sync_to_async(bundling.bundle_for)
    contributor, stranger, root = await sync_to_async(
        lambda: (make_user(), make_user(), make_user(is_superuser=True))
    )()
    await Grant.objects.acreate(collection=collection, user=contributor, role=20)
    assert [bool(await see(u, answer.pk)) for u in (reader, manager, root)] == [True] * 3
    assert [await see(u, answer.pk) for u in (contributor, stranger)] == [None, None]


async def test_without_the_right_to_a_source_there_is_no_text(world: Any) -> None:
    reader, _manager, _collection, _ = world
    answer = await answered(reader)
    await Grant.objects.filter(user=reader).adelete()
    shown = await sync_to_async(account)(answer, reader)
    assert shown is not None
    assert shown.is_withheld
    assert (shown.text, shown.prompt) == ("", None)
    assert TEXT not in repr(shown.sources)


async def test_a_replay_compares_then_with_now(world: Any) -> None:
    reader, manager, collection, _ = world
    answer = await answered(reader)
    await sync_to_async(make_document)(collection, title="More", text="Annual leave days: more.")
    bundle = await sync_to_async(bundling.bundle_for)(manager, answer.pk)
    assert bundle is not None
    made = await bundling.replay(bundle, user=manager)
    assert made.text
    assert not made.error
    rows = {row.title: row for row in made.compared}
    assert rows["Leave"].then == 1
    assert rows["Leave"].now is not None
    assert (rows["More"].then, rows["More"].now is not None) == (None, True)
    assert await Message.objects.acount() == 2  # nothing was stored


async def test_prompts_are_forgotten_in_time(world: Any, settings: Any) -> None:
    reader, *_ = world
    answer = await answered(reader)
    settings.PROMPT_RETENTION_DAYS = 7
    assert await sync_to_async(bundling.forget_old_prompts)() == 0
    await Bundle.objects.aupdate(created_at=timezone.now() - timedelta(days=8))
    assert await sync_to_async(bundling.forget_old_prompts)() == 1
    assert (await Bundle.objects.aget(answer=answer)).prompt is None
    settings.PROMPT_RETENTION_DAYS = 0
    second = await answered(reader)
    assert (await Bundle.objects.aget(answer=second)).prompt is None
    assert len((await Message.objects.aget(pk=second.pk)).prompt_digest) == 64
