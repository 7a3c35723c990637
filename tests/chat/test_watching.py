"""The watch over running answers, and the store that all of them share."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from uuid import uuid4

import pytest
from django.contrib.auth.models import AnonymousUser

from assistant.chat import watching
from assistant.chat.event_store import store
from assistant.chat.events import Delta, Done, Event
from assistant.chat.stream import EventLog, stop_requested
from assistant.chat.turn import Turn
from assistant.chat.watching import watched, with_heartbeat


async def slow(*pauses: float) -> AsyncGenerator[Event, None]:
    for number, pause in enumerate(pauses):
        await asyncio.sleep(pause)
        yield Delta(str(number))
    yield Done(None, "stop")


def turn() -> Turn:
    return Turn(question="?", user=AnonymousUser())


async def test_an_answer_past_its_deadline_ends_with_words(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("django.conf.settings.ANSWER_DEADLINE_SECONDS", 60)
    events = []
    async for event in watched(turn(), slow(0, 300)):
        events.append(event)
        monkeypatch.setattr("django.conf.settings.ANSWER_DEADLINE_SECONDS", 0.1)
    assert events == [Delta("0"), watching.DEADLINE]


async def test_a_cancellation_from_outside_stays_one() -> None:
    async def read() -> list[Event]:
        return [event async for event in watched(turn(), slow(0, 30))]

    task = asyncio.create_task(read())
    await asyncio.sleep(0.05)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not watching.is_busy()


async def test_the_end_of_the_process_ends_every_answer() -> None:
    streams = [watched(turn(), slow(0, 300)) for _ in range(20)]
    for stream in streams:
        assert await anext(stream) == Delta("0")
    waiting = [asyncio.ensure_future(anext(stream)) for stream in streams]
    await asyncio.sleep(0)
    watching.end_all(watching.RESTARTED)
    assert await asyncio.gather(*waiting) == [watching.RESTARTED] * 20
    for stream in streams:
        assert [event async for event in stream] == []


async def test_silence_before_the_first_word_is_told() -> None:
    may_begin = asyncio.Event()

    async def thinking() -> AsyncGenerator[Event, None]:
        await may_begin.wait()
        yield Delta("0")
        yield Done(None, "stop")

    heard = with_heartbeat(thinking(), seconds=0.05)
    assert [await anext(heard), await anext(heard)] == [None, None]
    may_begin.set()
    # On a busy machine another sign of life may be under way.
    assert [event async for event in heard if event] == [Delta("0"), Done(None, "stop")]


async def test_leaving_a_silent_stream_ends_what_it_waits_for() -> None:
    ended = asyncio.Event()

    async def thinking() -> AsyncGenerator[Event, None]:
        try:
            await asyncio.sleep(30)
            yield Delta("never")
        finally:
            ended.set()

    heard = with_heartbeat(thinking(), seconds=0.05)
    assert await anext(heard) is None
    await heard.aclose()
    assert ended.is_set()


async def test_many_readers_share_one_look_and_each_gets_its_own_place() -> None:
    answers = [uuid4() for _ in range(60)]
    logs = [EventLog(answer) for answer in answers]
    keys = [f"answer:{answer}:events" for answer in answers]
    waiting = [asyncio.create_task(store().read(key, after=0)) for key in keys]
    for number, log in enumerate(logs):
        log.append(Delta(f"first of {number}"))
        log.append(Delta(f"second of {number}"))
    for number, entries in enumerate(await asyncio.gather(*waiting)):
        assert entries[0] == (1, "delta", f'{{"text":"first of {number}"}}')
        late = await store().read(keys[number], after=1)
        assert late == [(2, "delta", f'{{"text":"second of {number}"}}')]
    for log in logs:
        await log.close()
    assert await stop_requested(answers) == []
