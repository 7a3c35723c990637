"""The event log of a running answer, in Redis: one writer, any number of readers anywhere.

Keys of an answer: ``answer:ID:events`` (a stream, entry ids ``N-0`` counting from 1),
``answer:ID:alive`` (kept by the writer, gone seconds after it), ``answer:ID:stop`` (set by a
reader). All expire by themselves.
"""

from __future__ import annotations

import json
import logging
from collections.abc import AsyncGenerator, Sequence
from functools import cache, lru_cache
from time import perf_counter
from typing import Any, cast
from uuid import UUID

import redis
from django.conf import settings
from redis.exceptions import RedisError

from assistant.chat import recording
from assistant.chat.event_store import Entry, last_entry, set_all, store, which_exist
from assistant.chat.events import COME_BACK, LAST, PING, Event, encode, frame, to_json
from assistant.database import in_database
from assistant.permissions.policy import AnyUser
from assistant.users.models import User

log = logging.getLogger(__name__)

ALIVE_SECONDS = 4
# Without a sign of life from its writer for this long, an answer is an orphan.
ORPHAN_SECONDS = 8.0
RECHECK_SECONDS = 4.0


class EventLog:
    """The writer's side."""

    def __init__(self, answer_id: UUID) -> None:
        self._events, self._alive, self._stop = _keys(answer_id)
        self._store = store()
        self._log = self._store.open(self._events)
        self._number = 0

    def append(self, event: Event) -> None:
        """Queued; written within milliseconds. Raises RedisLost."""
        self._number += 1
        self._store.append(self._log, (self._number, event.name, to_json(event)))
        if self._number == 1:
            self._write("EXPIRE", self._events, settings.ANSWER_EVENTS_TTL_SECONDS)
            self._write("SET", self._alive, "1", "EX", ALIVE_SECONDS)

    def forget(self) -> None:
        """Take back what was written: its reader may no longer see it. Raises RedisLost."""
        self._store.clear(self._log)

    async def close(self) -> None:
        """Returns when everything is written. Raises RedisLost."""
        self._write("DEL", self._alive, self._stop)
        await self._store.written(self._log)

    def _write(self, *command: Any) -> None:
        self._store.write(self._log, *command)


@lru_cache(maxsize=10_000)
def _keys(answer_id: UUID) -> tuple[str, str, str]:
    """Kept, because the watch asks for those of all running answers four times a second."""
    return (f"answer:{answer_id}:events", f"answer:{answer_id}:alive", f"answer:{answer_id}:stop")


async def keep_alive(answer_ids: Sequence[UUID]) -> None:
    """Tells readers that these are still written. Raises redis.exceptions.RedisError."""
    await set_all([_keys(answer_id)[1] for answer_id in answer_ids], seconds=ALIVE_SECONDS)


async def stop_requested(answer_ids: Sequence[UUID]) -> list[UUID]:
    """Those that a reader asked to stop. Raises redis.exceptions.RedisError."""
    asked = await which_exist([_keys(answer_id)[2] for answer_id in answer_ids])
    return [answer_id for answer_id in answer_ids if _keys(answer_id)[2] in asked]


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


async def follow(
    answer_id: UUID, *, user: AnyUser, is_withheld: bool, after: int = 0
) -> AsyncGenerator[str, None]:
    """Server-sent events after number ``after``, until the last one. The caller checked the owner,
    and whether the text of a finished answer ``is_withheld``.

    Joins a running answer at any time and replays a finished one from its row. Ends when the
    account is deactivated. A comment line keeps an idle connection open.
    """
    events, alive, _ = _keys(answer_id)
    shared = store()
    last_sign = last_check = alive_at = perf_counter()
    number = after
    was_told = False
    if is_withheld:
        for each in _replayed(await recording.replay(answer_id) or [], number):
            yield each
        return
    while True:
        if shared.is_leaving and not was_told:
            was_told = True
            yield COME_BACK
        entries = await shared.read(events, after=number)
        if entries:
            frames, ended = _frames(entries)
            number = entries[-1][0]
            yield frames
            last_sign = perf_counter()
            if ended:
                return
            continue
        if perf_counter() - last_check > RECHECK_SECONDS:
            last_check = perf_counter()
            if not await _is_active(user):
                return
        if shared.is_written_here(events) or await _is_alive(alive):
            alive_at = perf_counter()
        elif replay := await recording.replay(answer_id):
            if await _goes_on(events, after=number) and perf_counter() - alive_at < ORPHAN_SECONDS:
                continue
            for each in _replayed(replay, number):
                yield each
            return
        elif perf_counter() - alive_at > ORPHAN_SECONDS:
            await in_database(end_orphan)(answer_id)
        if perf_counter() - last_sign > settings.HEARTBEAT_SECONDS:
            yield PING
            last_sign = perf_counter()


def _frames(entries: Sequence[Entry]) -> tuple[str, bool]:
    """Encoded events, and whether the end is among them. Nothing comes after the end."""
    return "".join(frame(*entry) for entry in entries), entries[-1][1] in LAST


def _replayed(events: list[Event], after: int) -> list[str]:
    """Events from the row, numbered past everything the reader has.

    A reader that already has part of the stream gets only the end: the page loads the rest with
    the stored answer.
    """
    if after:
        return [encode(events[-1], after + 1)]
    return [encode(event, number) for number, event in enumerate(events, start=1)]


async def _goes_on(key: str, *, after: int) -> bool:
    """Whether the log of a finished answer has, or will have, something after ``after``.

    Its writer stores the row, then the last event, then says that it is gone; a reader can have
    looked for events before that and for the writer after it.
    """
    try:
        newest = await last_entry(key)
    except RedisError:
        return False
    return newest is not None and (newest[0] > after or newest[1] not in LAST)


async def _is_alive(key: str) -> bool:
    try:
        return bool(await which_exist([key]))
    except RedisError:
        return False


@in_database
def _is_active(user: AnyUser) -> bool:
    return User.objects.filter(pk=cast("User", user).pk, is_active=True).exists()
