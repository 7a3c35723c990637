"""The event log of a running answer, in Redis: one writer, any number of readers anywhere.

Keys of an answer: ``answer:ID:events`` (a stream, entry ids ``N-0`` counting from 1),
``answer:ID:alive`` (kept by the writer, gone seconds after it), ``answer:ID:stop`` (set by a
reader). All expire by themselves.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncGenerator
from functools import cache
from time import perf_counter
from typing import Any, cast
from uuid import UUID
from weakref import WeakKeyDictionary

import redis.asyncio
from django.conf import settings
from redis.exceptions import RedisError

from assistant.chat import recording
from assistant.chat.events import PING, Event, encode, from_json, is_last, to_json
from assistant.database import in_database
from assistant.permissions.policy import AnyUser
from assistant.users.models import User

log = logging.getLogger(__name__)

HEARTBEAT_SECONDS = 10.0
ALIVE_SECONDS = 4
# Without a sign of life from its writer for this long, an answer is an orphan.
ORPHAN_SECONDS = 8.0
RECHECK_SECONDS = 4.0
_clients: WeakKeyDictionary[asyncio.AbstractEventLoop, redis.asyncio.Redis] = WeakKeyDictionary()


class RedisLost(Exception):
    """The event store does not answer."""


def client() -> redis.asyncio.Redis:
    """One connection pool for each event loop: connections belong to the loop that opened them."""
    loop = asyncio.get_running_loop()
    if loop not in _clients:
        _clients[loop] = redis.asyncio.Redis.from_url(
            settings.REDIS_URL,
            decode_responses=True,
            socket_connect_timeout=3,
            health_check_interval=30,
        )
    return _clients[loop]


class EventLog:
    """The writer's side."""

    def __init__(self, answer_id: UUID) -> None:
        self._events, self._alive, self._stop = _keys(answer_id)
        self._number = 0

    async def append(self, event: Event) -> None:
        """Raises RedisLost."""
        self._number += 1
        try:
            await client().xadd(
                self._events,
                {"name": event.name, "data": to_json(event)},
                id=f"{self._number}-0",
            )
            if self._number == 1:
                await client().expire(self._events, settings.ANSWER_EVENTS_TTL_SECONDS)
                await self.keep_alive()
        except RedisError as error:
            raise RedisLost from error

    async def keep_alive(self) -> None:
        """Tells readers that somebody is still writing. A broken Redis shows at the next append."""
        try:
            await client().set(self._alive, "1", ex=ALIVE_SECONDS)
        except RedisError as error:
            log.warning("cannot report being alive: %s", error)

    async def stop_requested(self) -> bool:
        try:
            return bool(await client().exists(self._stop))
        except RedisError:
            return False

    async def forget(self) -> None:
        """Take back what was written: its reader may no longer see it. Raises RedisLost."""
        try:
            await client().delete(self._events)
        except RedisError as error:
            raise RedisLost from error

    async def close(self) -> None:
        try:
            await client().delete(self._alive, self._stop)
        except RedisError as error:
            raise RedisLost from error


def _keys(answer_id: UUID) -> tuple[str, str, str]:
    return (f"answer:{answer_id}:events", f"answer:{answer_id}:alive", f"answer:{answer_id}:stop")


@cache
def _sync_client() -> redis.Redis:
    return redis.Redis.from_url(settings.REDIS_URL, socket_connect_timeout=3)


def request_stop(answer_id: UUID) -> None:
    """Ask whoever writes this answer to stop. Raises redis.exceptions.RedisError."""
    _sync_client().set(_keys(answer_id)[2], "1", ex=600)


def is_being_written(answer_id: UUID) -> bool:
    """Whether a process reported in the last seconds that it writes this answer."""
    return bool(_sync_client().exists(_keys(answer_id)[1]))


def partial_text(answer_id: UUID) -> str:
    """What readers have seen of an answer so far."""
    entries: list[Any] = _sync_client().xrange(_keys(answer_id)[0]) or []
    found = [fields for _, fields in entries if fields[b"name"] == b"delta"]
    return "".join(json.loads(fields[b"data"])["text"] for fields in found)


def end_orphan(answer_id: UUID) -> None:
    """Mark an answer interrupted whose writer is gone; its partial text is kept."""
    try:
        text = partial_text(answer_id)
    except RedisError:
        text = ""
    recording.mark_interrupted(answer_id, text=text)


async def follow(answer_id: UUID, *, user: AnyUser, after: int = 0) -> AsyncGenerator[str, None]:
    """Server-sent events after number ``after``, until the last one. The caller checked the owner.

    Joins a running answer at any time and replays a finished one from its row. Ends when the
    account is deactivated. A comment line keeps an idle connection open.
    """
    events, alive, _ = _keys(answer_id)
    last_sign = last_check = alive_at = perf_counter()
    number = after
    if await recording.is_withheld(answer_id):
        for frame in _replayed(await recording.replay(answer_id) or [], number):
            yield frame
        return
    while True:
        try:
            batch: Any = await client().xread({events: f"{number}-0"}, block=1000, count=200)
        except RedisError as error:
            log.warning("event stream of %s: %s", answer_id, error)
            batch = []
            await asyncio.sleep(1)
        frames, number, ended = _frames(batch, number)
        if frames:
            yield frames
            last_sign = perf_counter()
        if ended:
            return
        if batch:
            continue
        if perf_counter() - last_check > RECHECK_SECONDS:
            last_check = perf_counter()
            if not await _is_active(user):
                return
        if await _is_alive(alive):
            alive_at = perf_counter()
        elif replay := await recording.replay(answer_id):
            for frame in _replayed(replay, number):
                yield frame
            return
        elif perf_counter() - alive_at > ORPHAN_SECONDS:
            await in_database(end_orphan)(answer_id)
        if perf_counter() - last_sign > HEARTBEAT_SECONDS:
            yield PING
            last_sign = perf_counter()


def _frames(batch: Any, number: int) -> tuple[str, int, bool]:
    """Encoded events of one XREAD answer, the last number, and whether the end was among them."""
    frames: list[str] = []
    for _, entries in batch or ():
        for entry_id, fields in entries:
            number = int(entry_id.split("-")[0])
            event = from_json(fields["name"], fields["data"])
            frames.append(encode(event, number))
            if is_last(event):
                return "".join(frames), number, True
    return "".join(frames), number, False


def _replayed(events: list[Event], after: int) -> list[str]:
    """Events from the row, numbered past everything the reader has.

    A reader that already has part of the stream gets only the end: the page loads the rest with
    the stored answer.
    """
    if after:
        return [encode(events[-1], after + 1)]
    return [encode(event, number) for number, event in enumerate(events, start=1)]


async def _is_alive(key: str) -> bool:
    try:
        return bool(await client().exists(key))
    except RedisError:
        return False


@in_database
def _is_active(user: AnyUser) -> bool:
    return User.objects.filter(pk=cast("User", user).pk, is_active=True).exists()
