"""The log of an answer: who is told of what, and from where."""

from __future__ import annotations

import asyncio
from typing import Any
from uuid import uuid4

import pytest
from redis.exceptions import ConnectionError as RedisConnectionError

from assistant.chat.event_store import RedisLost, store
from assistant.chat.events import Delta, Failed
from assistant.chat.stream import EventLog


def started() -> tuple[EventLog, str]:
    answer = uuid4()
    return EventLog(answer), f"answer:{answer}:events"


async def test_a_reader_with_everything_is_told_by_the_writer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    log, key = started()
    looks: list[Any] = []
    monkeypatch.setattr(store().client, "xread", looks.append)
    reading = [asyncio.create_task(store().read(key, after=0)) for _ in range(2)]
    await asyncio.sleep(0)
    log.append(Delta("one"))
    log.append(Delta("two"))
    expected = [(1, "delta", '{"text":"one"}'), (2, "delta", '{"text":"two"}')]
    assert await asyncio.gather(*reading) == [expected, expected]
    assert not looks
    await log.close()
    assert await store().client.xlen(key) == 2


async def test_readers_here_do_not_wait_for_redis(monkeypatch: pytest.MonkeyPatch) -> None:
    log, key = started()
    answered = asyncio.Event()
    run = store().run

    async def slow(commands: Any) -> dict[int, str]:
        await answered.wait()
        return await run(commands)

    monkeypatch.setattr(store(), "run", slow)
    log.append(Delta("one"))
    await asyncio.sleep(0)
    log.append(Delta("two"))  # in the next write
    first = await store().read(key, after=0)
    assert [number for number, *_ in first] == [1, 2]
    assert [number for number, *_ in await store().read(key, after=1)] == [2]
    assert await store().client.xlen(key) == 0
    answered.set()
    await log.close()
    assert log._log.fresh == []
    # By now it is there for all processes.
    assert await store().read(key, after=0) == first


async def test_a_reader_that_is_behind_takes_the_rest_from_the_log() -> None:
    log, key = started()
    for text in ("one", "two", "three"):
        log.append(Delta(text))
        await store().written(log._log)
    assert [number for number, *_ in await store().read(key, after=1)] == [2, 3]
    await log.close()


async def test_what_redis_refuses_of_one_answer_costs_no_other_answer_anything() -> None:
    (bad, bad_key), (good, good_key) = started(), started()
    await store().client.set(bad_key, "no stream")
    reading = asyncio.create_task(store().read(good_key, after=0))
    await asyncio.sleep(0)
    bad.append(Delta("one"))
    good.append(Delta("two"))
    assert [number for number, *_ in await reading] == [1]
    await store().written(good._log)
    with pytest.raises(RedisLost):
        await store().written(bad._log)
    with pytest.raises(RedisLost):
        bad.append(Delta("three"))
    assert await store().client.xlen(good_key) == 1
    await store().client.delete(bad_key)
    await good.close()


async def test_what_was_taken_back_is_told_to_nobody() -> None:
    log, key = started()
    reading = asyncio.create_task(store().read(key, after=0))
    await asyncio.sleep(0)
    log.append(Delta("secret"))
    log.forget()
    log.append(Failed("revoked", "Gone.", retryable=False))
    assert [(number, name) for number, name, _ in await reading] == [(2, "error")]
    assert "secret" not in repr(await store().client.xrange(key))
    await log.close()


async def test_a_broken_log_tells_its_writer_and_its_readers(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    log, key = started()
    reading = asyncio.create_task(store().read(key, after=0))
    await asyncio.sleep(0)

    async def broken(commands: Any) -> None:
        raise RedisConnectionError("gone")

    monkeypatch.setattr(store(), "run", broken)
    log.append(Delta("one"))
    assert [number for number, *_ in await reading] == [1]
    following = asyncio.create_task(store().read(key, after=1))
    with pytest.raises(RedisLost):
        await log.close()
    assert await following == []
    assert not store().is_written_here(key)
    with pytest.raises(RedisLost):
        log.append(Delta("two"))


async def test_hundreds_at_once_wait_for_a_connection() -> None:
    """The client's usual pool refuses the 101st, which reads as if Redis were away."""
    key = f"many:{uuid4()}"
    counts = await asyncio.gather(*(store().client.incr(key) for _ in range(300)))
    assert sorted(counts) == list(range(1, 301))
    await store().client.delete(key)
