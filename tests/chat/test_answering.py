from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from django.core.exceptions import ValidationError
from django.db import connection
from django.test.utils import CaptureQueriesContext

from assistant.chat import actions, answering, event_store, rights, running, stream
from assistant.chat.events import CitationFound, Delta, Done, Event, Sources
from assistant.chat.models import AnswerStatus, Conversation, Message
from assistant.documents import actions as documents
from assistant.permissions.models import Grant
from assistant.users.models import User
from inference.fakes import FakeLLM, say
from inference.prompts import NO_ANSWER
from inference.types import EngineError, Finished, TextDelta, Thinking
from tests.chat.writing import followed, generate, shown
from tests.factories import make_collection, make_document, make_user

pytestmark = pytest.mark.django_db(transaction=True)
TEXT = "Annual leave is thirty days a year.\n\nThe canteen opens at noon."


@pytest.fixture
def reader() -> User:
    user: User = make_user()
    make_document(make_collection(readers=[user]), title="Handbook", text=TEXT)
    return user


def asked(user: User, text: str = "How many days of annual leave?", **options: Any) -> Message:
    conversation = Conversation.objects.create(user=user)
    return actions.ask(conversation.pk, content=text, user=user, **options)[1]


async def events_of(question: str, user: User) -> list[Event]:
    return [event async for event in answering.answer_once(question=question, user=user)]


def text_of(events: list[Event]) -> str:
    return "".join(event.text for event in events if isinstance(event, Delta))


async def test_an_answer_has_sources_text_and_verified_citations(
    reader: User, fake_llm: FakeLLM
) -> None:
    fake_llm.scripts = [say("Annual leave is thirty days a year [1].")]
    events = await events_of("annual leave days", reader)
    sources = next(e for e in events if isinstance(e, Sources))
    citation = next(e for e in events if isinstance(e, CitationFound))
    assert sources.passages[0]["number"] == 1
    assert text_of(events) == "Annual leave is thirty days a year [1]."
    assert citation.verified
    start, end = citation.locator["char_start"], citation.locator["char_end"]
    assert TEXT[start:end] == citation.quote
    assert isinstance(events[-1], Done)


async def test_reasoning_is_in_no_event(reader: User, fake_llm: FakeLLM) -> None:
    fake_llm.scripts = [[Thinking(), Thinking(), TextDelta("Yes [1]."), Finished("stop")]]
    events = await events_of("annual leave", reader)
    assert text_of(events) == "Yes [1]."


async def test_the_agreed_line_becomes_an_honest_abstention(
    reader: User, fake_llm: FakeLLM
) -> None:
    fake_llm.scripts = [say(NO_ANSWER)]
    events = await events_of("annual leave on the moon", reader)
    assert NO_ANSWER not in text_of(events)
    assert "1 document" in text_of(events)
    assert isinstance(events[-1], Done)
    assert events[-1].abstained


async def test_nothing_readable_asks_no_model(fake_llm: FakeLLM) -> None:
    stranger = await sync_to_async(make_user)()
    events = await events_of("annual leave", stranger)
    assert fake_llm.requests == []
    assert isinstance(events[-1], Done)
    assert events[-1].abstained


async def test_the_prompt_holds_only_what_the_asker_may_read(
    reader: User, fake_llm: FakeLLM
) -> None:
    await sync_to_async(make_document)(
        await sync_to_async(make_collection)(), title="Secret", text="annual leave CANARY days"
    )
    await events_of("annual leave", reader)
    assert "CANARY" not in repr(fake_llm.requests)


async def test_no_sql_between_first_and_last_word(reader: User, fake_llm: FakeLLM) -> None:
    context = await sync_to_async(_capture)()
    counts = [
        await sync_to_async(lambda: len(context.captured_queries))()
        async for event in answering.answer_once(question="annual leave", user=reader)
        if isinstance(event, Delta)
    ]
    assert counts[0] > 0
    assert len(counts) > 2
    assert counts[0] == counts[-1]


def _capture() -> CaptureQueriesContext:
    return CaptureQueriesContext(connection).__enter__()


async def test_leaving_closes_the_upstream_stream(reader: User, fake_llm: FakeLLM) -> None:
    fake_llm.scripts = [[TextDelta("One "), 30.0, TextDelta("two"), Finished("stop")]]
    produced = answering.answer_once(question="annual leave", user=reader)
    async for event in produced:
        if isinstance(event, Delta):
            break
    await produced.aclose()
    assert fake_llm.closed == 1


async def generated(answer: Message) -> Message:
    await generate(answer.pk)
    return await Message.objects.select_related("conversation__user").aget(pk=answer.pk)


async def test_a_stored_answer_is_done_and_can_be_read_again(
    reader: User, fake_llm: FakeLLM
) -> None:
    fake_llm.scripts = [say("Annual leave is thirty days a year [1].")]
    answer = await generated(await sync_to_async(asked)(reader))
    assert (answer.status, answer.finish_reason) == (AnswerStatus.DONE, "stop")
    assert len(answer.prompt_digest) == 64
    views = await shown(answer, "citations", user=reader)
    assert [view.quote for view in views] == ["Annual leave is thirty days a year."]
    frames = "".join([frame async for frame in followed(answer, user=reader)])
    assert "event: sources" in frames
    assert "event: done" in frames


async def test_readers_see_the_same_stream_from_any_point(reader: User, fake_llm: FakeLLM) -> None:
    fake_llm.scripts = [say("One two three four five [1].")]
    answer = await generated(await sync_to_async(asked)(reader))
    whole = await collect(followed(answer, user=reader))
    for after in range(len(whole)):
        assert await collect(followed(answer, user=reader, after=after)) == whole[after:]


async def collect(frames: AsyncIterator[str]) -> list[str]:
    text = "".join([frame async for frame in frames])
    return [frame for frame in text.split("\n\n") if frame.startswith("id:")]


async def test_a_lost_model_server_keeps_what_was_said(reader: User, fake_llm: FakeLLM) -> None:
    lost = EngineError("llm_lost", "The model server went away. Ask again.", retryable=True)
    fake_llm.scripts = [[*say("Thirty days", finish=False), lost]]
    answer = await generated(await sync_to_async(asked)(reader))
    assert (answer.status, answer.text) == (AnswerStatus.INTERRUPTED, "Thirty days")
    assert answer.error_detail == "The model server went away. Ask again."


async def test_an_unreachable_model_server_fails_with_words(
    reader: User, fake_llm: FakeLLM
) -> None:
    fake_llm.scripts = [[EngineError("llm_unavailable", "Not reachable.", retryable=True)]]
    answer = await generated(await sync_to_async(asked)(reader))
    assert (answer.status, answer.error_code) == (AnswerStatus.FAILED, "llm_unavailable")


async def test_stop_ends_the_upstream_and_keeps_the_text(reader: User, fake_llm: FakeLLM) -> None:
    fake_llm.scripts = [[TextDelta("Thirty "), 300.0, Finished("stop")]]
    answer = await sync_to_async(asked)(reader)
    task = asyncio.create_task(generate(answer.pk))
    await until_text(answer)
    await sync_to_async(actions.stop_answer)(await Message.objects.aget(pk=answer.pk), user=reader)
    await asyncio.wait_for(task, timeout=60)
    row = await Message.objects.aget(pk=answer.pk)
    assert (row.status, row.text.strip()) == (AnswerStatus.STOPPED, "Thirty")
    assert fake_llm.closed == 1


async def until_text(answer: Message) -> None:
    async with asyncio.timeout(60):
        while not await sync_to_async(stream.partial_text)(answer.pk):
            await asyncio.sleep(0.05)


async def test_a_withdrawn_right_ends_the_answer_without_its_text(
    reader: User, fake_llm: FakeLLM, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rights, "RECHECK_SECONDS", 0.2)
    fake_llm.scripts = [[TextDelta("Thirty "), 300.0, Finished("stop")]]
    answer = await sync_to_async(asked)(reader)
    task = asyncio.create_task(generate(answer.pk))
    await until_text(answer)
    await Grant.objects.all().adelete()
    await asyncio.wait_for(task, timeout=60)
    row = await Message.objects.aget(pk=answer.pk)
    assert (row.status, row.error_code, row.text) == (AnswerStatus.STOPPED, "revoked", "")


async def test_a_deactivated_reader_gets_nothing_more(
    reader: User, fake_llm: FakeLLM, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rights, "RECHECK_SECONDS", 0.2)
    fake_llm.scripts = [[TextDelta("Thirty "), 300.0, Finished("stop")]]
    answer = await sync_to_async(asked)(reader)
    task = asyncio.create_task(generate(answer.pk))
    await until_text(answer)
    await User.objects.filter(pk=reader.pk).aupdate(is_active=False)
    await asyncio.wait_for(task, timeout=60)
    assert (await Message.objects.aget(pk=answer.pk)).error_code == "revoked"


async def test_citations_are_masked_when_the_right_is_gone(reader: User, fake_llm: FakeLLM) -> None:
    fake_llm.scripts = [say("Annual leave is thirty days a year [1].")]
    answer = await generated(await sync_to_async(asked)(reader))
    await Grant.objects.all().adelete()
    citations = await shown(answer, "citations", user=reader)
    sources = await shown(answer, "read_sources", user=reader)
    assert [(c.quote, c.document_id, c.available) for c in citations] == [(None, None, False)]
    assert all(source.text is None and source.title != "Handbook" for source in sources)


async def test_earlier_answers_with_lost_sources_are_not_sent_again(
    reader: User, fake_llm: FakeLLM
) -> None:
    fake_llm.scripts = [
        say("Annual leave is thirty days a year [1]."),
        say("leave"),
        say("Yes [1]"),
    ]
    answer = await generated(await sync_to_async(asked)(reader))
    document = (await shown(answer, "citations", user=reader))[0].document_id
    await sync_to_async(_delete)(document, reader)
    await sync_to_async(make_document)(
        await sync_to_async(make_collection)(readers=[reader]), text="Other leave rules."
    )
    _, second = await sync_to_async(actions.ask)(
        answer.conversation_id, content="Repeat that", user=reader
    )
    await generated(second)
    assert "thirty days" not in repr(fake_llm.requests[1:])


def _delete(document_id: Any, user: User) -> None:
    from assistant.documents.models import Document

    documents.delete_document(Document.objects.get(pk=document_id), actor=user)


async def test_two_processes_never_write_one_answer(reader: User, fake_llm: FakeLLM) -> None:
    answer = await sync_to_async(asked)(reader)
    await asyncio.gather(generate(answer.pk), generate(answer.pk))
    assert len(fake_llm.requests) == 1


async def test_an_orphan_is_interrupted_with_its_partial_text(reader: User) -> None:
    answer = await sync_to_async(asked)(reader)
    log = stream.EventLog(answer.pk)
    log.append(Delta("Half an "))
    log.append(Delta("answer"))
    await log.close()
    await sync_to_async(stream.end_orphan)(answer.pk)
    row = await Message.objects.aget(pk=answer.pk)
    assert (row.status, row.text) == (AnswerStatus.INTERRUPTED, "Half an answer")


async def test_after_the_stream_expired_the_row_is_replayed(
    reader: User, fake_llm: FakeLLM
) -> None:
    answer = await generated(await sync_to_async(asked)(reader))
    await event_store.store().client.flushall()
    frames = await collect(followed(answer, user=reader))
    assert "event: delta" in frames[0]
    assert "event: done" in frames[-1]


async def test_an_end_between_two_looks_of_a_reader_is_streamed(
    reader: User, fake_llm: FakeLLM, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It looks for events, the answer ends, it looks for the writer: the log has the rest."""
    answer = await generated(await sync_to_async(asked)(reader))
    whole = await collect(followed(answer, user=reader))
    first, rest = "".join(whole).split("id: 2\n")
    store = event_store.store()
    read, looks = store.read, [0]

    async def too_early(key: str, *, after: int) -> list[event_store.Entry]:
        looks[0] += 1
        return [] if looks[0] == 1 else await read(key, after=after)

    monkeypatch.setattr(store, "read", too_early)
    resumed = await collect(followed(answer, user=reader, after=1))
    assert first + "".join(resumed) == first + "id: 2\n" + rest


async def test_a_reader_waits_for_the_end_that_follows_the_row(
    reader: User, fake_llm: FakeLLM
) -> None:
    answer = await generated(await sync_to_async(asked)(reader))
    client = event_store.store().client
    key = f"answer:{answer.pk}:events"
    number, name, data = await event_store.last_entry(key) or (0, "", "")
    await client.xdel(key, f"{number}-0")
    reading = asyncio.create_task(collect(followed(answer, user=reader)))
    await asyncio.sleep(2 * event_store.PATIENCE)
    await client.xadd(key, {"name": name, "data": data}, id=f"{number + 1}-0")
    assert f"id: {number + 1}\nevent: done" in (await reading)[-1]


def test_an_idempotency_key_asks_once(reader: User) -> None:
    conversation = Conversation.objects.create(user=reader)
    first = actions.ask(conversation.pk, content="Leave?", user=reader, idempotency_key="k")
    again = actions.ask(conversation.pk, content="Leave?", user=reader, idempotency_key="k")
    assert [m.pk for m in first] == [m.pk for m in again]
    assert conversation.messages.count() == 2


@pytest.mark.parametrize(
    ("content", "code"), [("", "empty"), ("  \n", "empty"), ("x" * 10_000, "too_long")]
)
def test_bad_questions_are_refused_in_words(reader: User, content: str, code: str) -> None:
    conversation = Conversation.objects.create(user=reader)
    with pytest.raises(ValidationError) as refused:
        actions.ask(conversation.pk, content=content, user=reader)
    assert refused.value.code == code
    assert conversation.messages.count() == 0


def test_one_question_at_a_time(reader: User) -> None:
    conversation = Conversation.objects.create(user=reader)
    actions.ask(conversation.pk, content="Leave?", user=reader)
    with pytest.raises(ValidationError) as refused:
        actions.ask(conversation.pk, content="And sick leave?", user=reader)
    assert refused.value.code == "busy"


async def test_draining_interrupts_what_does_not_end(reader: User, fake_llm: FakeLLM) -> None:
    fake_llm.scripts = [[TextDelta("Thirty "), 300.0, Finished("stop")]]
    running.attach(asyncio.get_running_loop())
    answer = await sync_to_async(asked)(reader)
    await until_text(answer)
    await running.drain(0.1)
    row = await Message.objects.aget(pk=answer.pk)
    assert (row.status, row.text.strip()) == (AnswerStatus.INTERRUPTED, "Thirty")


async def test_a_lost_right_takes_back_the_recorded_stream_too(
    reader: User, fake_llm: FakeLLM
) -> None:
    fake_llm.scripts = [say("Annual leave is thirty days a year [1].")]
    answer = await generated(await sync_to_async(asked)(reader))
    await Grant.objects.all().adelete()
    frames = await collect(followed(answer, user=reader))
    assert "thirty" not in "".join(frames)
    assert "event: done" in frames[-1]
    assert "thirty" not in await shown(answer, "text", user=reader)
