from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing
from typing import Any
from uuid import UUID, uuid4

import pytest
import redis
from asgiref.sync import sync_to_async
from django.conf import LazySettings
from django.contrib.auth.models import Group
from django.core.exceptions import ValidationError

from assistant.chat import actions, queueing
from assistant.chat.events import Delta, Done, Event, Status
from assistant.chat.models import Conversation, Message
from assistant.chat.queueing import Asker, admitted, reserve, take_place
from assistant.chat.turn import Turn
from assistant.per_loop import PerLoop
from assistant.users.models import ApiToken
from inference.fakes import FakeLLM
from inference.types import EngineError
from tests.factories import make_user

pytestmark = pytest.mark.django_db(transaction=True)
ANN, BOB = Asker("ann"), Asker("bob")


@pytest.fixture(autouse=True)
def line(settings: LazySettings, fake_llm: FakeLLM) -> Iterator[redis.Redis]:
    """An empty line for two answers at once and eight that wait."""
    settings.LLM_MAX_RUNNING, settings.LLM_MAX_WAITING = 2, 8
    client = redis.Redis.from_url(settings.REDIS_URL)
    client.flushdb()
    yield client
    client.flushdb()


def size(line: redis.Redis) -> tuple[Any, Any]:
    return line.zcard("{llm}:running"), line.zcard("{llm}:waiting")


async def order(*tickets: UUID) -> list[UUID]:
    """Let one running answer end after the other; who is admitted when."""
    came: list[UUID] = []
    left = list(tickets)
    while left:
        for ticket in left:
            if (await queueing._enter(str(ticket), ANN)).verdict == "running":
                came.append(ticket)
                left.remove(ticket)
                await queueing._leave(str(ticket), 0)
                break
    return came


async def test_people_take_turns_whatever_the_number_of_their_questions(
    settings: LazySettings,
) -> None:
    settings.LLM_MAX_WAITING = 40
    full = [await take_place(Asker("first")) for _ in range(2)]
    anns = [await take_place(ANN) for _ in range(4)]
    bobs = [await take_place(BOB) for _ in range(2)]
    settings.LLM_MAX_RUNNING = 1
    for ticket in full:
        await queueing._leave(str(ticket), 0)
    assert await order(*anns, *bobs) == [anns[0], bobs[0], anns[1], bobs[1], anns[2], anns[3]]


async def test_people_go_before_programs(settings: LazySettings) -> None:
    settings.LLM_MAX_WAITING = 40
    full = [await take_place(Asker("first")) for _ in range(2)]
    program = await take_place(Asker("script", is_program=True))
    person = await take_place(BOB)
    settings.LLM_MAX_RUNNING = 1
    for ticket in full:
        await queueing._leave(str(ticket), 0)
    assert await order(program, person) == [person, program]


async def test_beyond_the_bound_is_refused_with_a_time_to_come_again() -> None:
    for number in range(10):
        await take_place(Asker(f"person {number}"))
    loop = asyncio.get_running_loop()
    began = loop.time()
    with pytest.raises(EngineError) as refused:
        await take_place(Asker("late"))
    assert loop.time() - began < 10
    assert (refused.value.code, refused.value.retryable) == ("llm_overloaded", True)
    assert refused.value.retry_after


async def test_a_look_at_the_line_says_that_it_is_full(
    monkeypatch: pytest.MonkeyPatch, line: redis.Redis
) -> None:
    monkeypatch.setattr(queueing, "_seen_at", 0.0)
    for number in range(9):
        with queueing.on_the_way():
            assert await queueing.overload() is None
            await take_place(Asker(f"person {number}"))
    with queueing.on_the_way():  # the last place is for the one that is on the way
        error = await queueing.overload()
        assert error is not None
        assert error.retry_after
    assert await queueing.overload() is None
    reserve(uuid4(), Asker("late"))
    assert await queueing.overload() is not None
    # Another process gave all places back: seen a moment later.
    line.flushdb()
    assert await queueing.overload() is not None
    monkeypatch.setattr(queueing, "_seen_at", 0.0)
    assert await queueing.overload() is None


async def test_who_is_in_line_stays_in_it_while_redis_is_away(
    monkeypatch: pytest.MonkeyPatch, line: redis.Redis
) -> None:
    running = [admitted(turn_of(name, seconds=30), written) for name in ("one", "two")]
    for produced in running:
        await anext(produced)
    waiting = admitted(turn_of("bob"), written)
    assert await anext(waiting) == Status("queued", queue_position=1)
    monkeypatch.setattr(queueing, "_away_until", time.monotonic() + 60)
    with pytest.raises(EngineError):
        await take_place(Asker("new"))
    told = asyncio.ensure_future(anext(waiting))
    await asyncio.sleep(0.5)
    assert not told.done()
    told.cancel()
    await asyncio.gather(told, return_exceptions=True)
    monkeypatch.setattr(queueing, "_away_until", 0.0)
    await asyncio.gather(*(produced.aclose() for produced in running))
    assert size(line)[0] == 0


async def test_one_person_cannot_fill_the_line() -> None:
    for _ in range(2 + 8 // 4):
        await take_place(ANN)
    with pytest.raises(EngineError):
        await take_place(ANN)
    await take_place(BOB)


async def written(turn: Turn) -> AsyncGenerator[Event, None]:
    yield Delta("Yes")
    await asyncio.sleep(turn.timings_ms.get("seconds", 0.0))
    yield Done(None, "stop", usage={"prompt_tokens": 30, "completion_tokens": 12})


def turn_of(name: str, *, seconds: float = 0.0) -> Turn:
    class Person:
        pk = name

    return Turn(question="?", user=Person(), timings_ms={"seconds": seconds})  # type: ignore[arg-type]


async def events(turn: Turn) -> list[Event]:
    return [event async for event in admitted(turn, written)]


async def test_the_place_in_line_is_told_and_given_back(line: redis.Redis) -> None:
    first = [admitted(turn_of("ann", seconds=300), written) for _ in range(2)]
    for produced in first:
        assert isinstance(await anext(produced), Delta)
    waited = [admitted(turn_of("bob"), written) for _ in range(2)]
    for place, produced in enumerate(waited, 1):
        assert await anext(produced) == Status("queued", queue_position=place)
    await asyncio.gather(*(produced.aclose() for produced in first))
    for produced in waited:
        assert [type(event) async for event in produced if not isinstance(event, Status)] == [
            Delta,
            Done,
        ]
    assert size(line) == (0, 0)
    assert not any(line.exists(f"{{llm}}:{name}") for name in ("tickets", "open", "queued"))


@pytest.mark.parametrize("how", ["close", "cancel", "fail"])
async def test_a_place_is_given_back_however_it_ends(line: redis.Redis, how: str) -> None:
    async def broken(turn: Turn) -> AsyncGenerator[Event, None]:
        yield Delta("Half")
        raise EngineError("llm_lost", "Gone.", retryable=True)

    produced = admitted(turn_of("ann", seconds=30), broken if how == "fail" else written)
    await anext(produced)
    assert size(line) == (1, 0)
    if how == "close":
        await produced.aclose()
    elif how == "fail":
        with pytest.raises(EngineError):
            await anext(produced)
    else:
        waiting = asyncio.ensure_future(anext(produced))
        await asyncio.sleep(0.05)
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
    assert size(line) == (0, 0)


async def test_who_leaves_the_line_makes_room(line: redis.Redis) -> None:
    await take_place(ANN)
    await take_place(ANN)
    produced = admitted(turn_of("bob"), written)
    assert await anext(produced) == Status("queued", queue_position=1)
    await produced.aclose()
    assert size(line) == (2, 0)


async def test_what_a_dead_process_held_is_free_again(
    line: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(queueing, "LEASE_SECONDS", 1)
    for _ in range(2):
        await take_place(ANN)  # and nobody renews them
    await take_place(BOB)
    monkeypatch.setattr(queueing, "LEASE_SECONDS", 15)
    produced = admitted(turn_of("eve"), written)
    began = asyncio.get_running_loop().time()
    assert [type(e) async for e in produced][-1] is Done
    assert asyncio.get_running_loop().time() - began < 12  # not the lease of those that live
    assert size(line) == (0, 0)


async def test_what_lives_keeps_its_place(
    line: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(queueing, "_RENEW_SECONDS", 0.2)
    turn = turn_of("ann", seconds=300)
    turn.ticket = await take_place(ANN)
    ticket = str(turn.ticket)
    async with aclosing(admitted(turn, written)) as produced:
        await anext(produced)
        taken = line.zscore("{llm}:running", ticket)
        async with asyncio.timeout(60):
            while line.zscore("{llm}:running", ticket) == taken:
                await asyncio.sleep(0.05)
        await take_place(BOB)
        assert size(line) == (2, 0)


async def test_without_redis_each_process_admits_by_itself(
    settings: LazySettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(queueing, "_keeper", PerLoop(queueing._Keeper))
    monkeypatch.setattr(queueing, "_away_until", 0.0)
    settings.REDIS_URL = "redis://127.0.0.1:9/0"
    async with aclosing(admitted(turn_of("ann", seconds=30), written)) as one:
        assert isinstance(await anext(one), Delta)
        async with aclosing(admitted(turn_of("bob", seconds=30), written)) as two:
            assert isinstance(await anext(two), Delta)
            with pytest.raises(EngineError) as refused:
                await take_place(Asker("eve"))
    assert refused.value.code == "llm_overloaded"
    assert isinstance((await events(turn_of("eve")))[0], Delta)
    monkeypatch.setattr(queueing, "_away_until", 0.0)


def test_limits_count_for_person_token_and_group(settings: LazySettings) -> None:
    settings.LLM_LIMITS = {
        "user": {"concurrent": 9},
        "token": {"requests_per_minute": 1},
        "group:Guests": {"tokens_per_hour": 40},
        "group:Others": {"concurrent": 1},
    }
    user = make_user()
    user.groups.add(Group.objects.create(name="Guests"))
    token, _ = ApiToken.generate(user, scopes=["read"])
    asker = Asker.of(user, token)
    assert asker.is_program
    assert asker.subjects == (
        ("user", f"user:{user.pk}"),
        ("token", f"token:{token.pk}"),
        ("group:Guests", "group:Guests"),
    )


@pytest.mark.parametrize(
    ("limit", "words"),
    [
        ({"concurrent": 1}, "at once"),
        ({"requests_per_minute": 1}, "in a minute"),
        ({"tokens_per_hour": 40}, "hourly"),
    ],
)
async def test_who_has_had_enough_is_told_when_to_come_again(
    settings: LazySettings, limit: dict[str, int], words: str
) -> None:
    settings.LLM_LIMITS = {"user": limit}
    ann = Asker("ann", subjects=(("user", "user:ann"),))
    ticket = await take_place(ann)
    if "concurrent" not in limit:
        turn = turn_of("ann")
        turn.ticket = ticket
        await events(turn)  # 42 tokens
    with pytest.raises(EngineError, match=words) as refused:
        await take_place(ann)
    assert refused.value.code == "limit_reached"
    assert 1 <= (refused.value.retry_after or 0) <= 3600
    await take_place(Asker("bob", subjects=(("user", "user:bob"),)))


def test_a_question_without_a_place_is_not_stored(settings: LazySettings) -> None:
    settings.LLM_LIMITS = {"user": {"concurrent": 1}}
    user = make_user()
    reserve(uuid4(), Asker.of(user))
    conversation = Conversation.objects.create(user=user)
    with pytest.raises(ValidationError) as refused:
        actions.ask(conversation.pk, content="Leave?", user=user)
    assert refused.value.code == "limit_reached"
    assert Message.objects.count() == 0


async def test_an_answer_goes_on_with_the_place_its_question_took(line: redis.Redis) -> None:
    user = await sync_to_async(make_user)()
    conversation = await Conversation.objects.acreate(user=user)
    _, answer = await sync_to_async(actions.ask)(conversation.pk, content="Leave?", user=user)
    assert size(line) == (1, 0)
    turn = turn_of(str(user.pk))
    turn.answer_id = answer.pk
    await events(turn)
    assert size(line) == (0, 0)


async def test_whose_turn_it_was_at_once_does_not_ask_again(
    line: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    turns = [turn_of(name) for name in ("ann", "bob", "cy")]
    for turn in turns:
        turn.ticket = await take_place(Asker(str(turn.user.pk)))
    assert size(line) == (2, 1)
    asked: list[str] = []
    enter = queueing._enter

    async def noting(ticket: str, *given: Any, **more: Any) -> Any:
        asked.append(ticket)
        return await enter(ticket, *given, **more)

    monkeypatch.setattr(queueing, "_enter", noting)
    for turn in turns:
        await events(turn)
    assert asked == [str(turns[2].ticket)]
    assert size(line) == (0, 0)
