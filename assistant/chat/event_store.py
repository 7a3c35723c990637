"""Redis for running answers: whatever all answers of a process write or read goes in one request.

A command for itself costs a tenth of a millisecond of this process. So writes of a few
milliseconds share a pipeline, and all readers share one XREAD. Nothing is buffered for a reader:
one that does not ask is not read for, so slow ones cost no memory.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Collection, Sequence
from contextvars import Context
from dataclasses import dataclass, field
from time import monotonic
from typing import Any

import redis.asyncio
from django.conf import settings
from redis.exceptions import RedisError

from assistant.per_loop import PerLoop

log = logging.getLogger(__name__)

# Seconds between two writes and between two reads; under load what came meanwhile goes together.
WRITE_PAUSE = 0.005
READ_PAUSE = 0.005
BUSY_READ_PAUSE = 0.02
BUSY_READERS = 50
# Without word from a writer in this process: how often to look for one in another.
LOOK_PAUSE = 0.05
# A reader without news is answered with nothing after this long.
PATIENCE = 1.0
ENTRIES_A_READ = 500

Entry = tuple[int, str, str]


class RedisLost(Exception):
    """The event store does not answer."""


@dataclass(slots=True, eq=False)
class Log:
    """The writer's view of one stream: set ``lost`` when something of it was not written."""

    key: str
    lost: bool = False


@dataclass(slots=True, eq=False)
class _Reader:
    key: str
    after: int
    answer: asyncio.Future[list[Entry]]
    since: float = field(default_factory=monotonic)


class EventStore:
    """One for each event loop: connections belong to the loop that opened them.

    ``is_leaving``: this process goes, and its readers are told to come back to another one.
    """

    def __init__(self) -> None:
        self.is_leaving = False
        self.client: redis.asyncio.Redis = redis.asyncio.Redis.from_url(
            settings.REDIS_URL,
            decode_responses=True,
            socket_connect_timeout=3,
            socket_timeout=10,
            health_check_interval=30,
        )
        self._writes: deque[tuple[Log, tuple[Any, ...]]] = deque()
        self._writing: asyncio.Task[None] | None = None
        self._readers: list[_Reader] = []
        self._reading: asyncio.Task[None] | None = None
        self._news = asyncio.Event()

    # -- writing --------------------------------------------------------------------------

    def write(self, log_: Log, *command: Any) -> None:
        """Queue a command. Raises RedisLost when an earlier one of this log was lost."""
        if log_.lost:
            raise RedisLost
        self._writes.append((log_, command))
        if self._writing is None or self._writing.done():
            self._writing = asyncio.create_task(self._write(), context=Context())

    async def written(self, log_: Log) -> None:
        """Returns when all that was queued is written. Raises RedisLost."""
        while self._writing is not None and not self._writing.done():
            await asyncio.wait({self._writing})
        if log_.lost:
            raise RedisLost

    async def _write(self) -> None:
        while self._writes:
            batch, self._writes = self._writes, deque()
            pipeline = self.client.pipeline(transaction=False)
            for _, command in batch:
                pipeline.execute_command(*command)
            try:
                await pipeline.execute()
            except RedisError as error:
                log.warning("events could not be written: %s", error)
                for log_, _ in batch:
                    log_.lost = True
            self._news.set()
            await asyncio.sleep(WRITE_PAUSE)

    # -- reading --------------------------------------------------------------------------

    async def read(self, key: str, *, after: int) -> list[Entry]:
        """Entries after number ``after``, as soon as there are any; none after a while."""
        reader = _Reader(key, after, asyncio.get_running_loop().create_future())
        self._readers.append(reader)
        self._news.set()
        if self._reading is None or self._reading.done():
            self._reading = asyncio.create_task(self._read(), context=Context())
        return await reader.answer

    async def _read(self) -> None:
        while self._readers:
            self._news.clear()
            readers = [reader for reader in self._readers if not reader.answer.done()]
            self._readers = []
            found = await self._entries(readers)
            now = monotonic()
            for reader in readers:
                if reader.answer.done():  # it was cancelled
                    continue
                mine = [entry for entry in found.get(reader.key, ()) if entry[0] > reader.after]
                if mine or now - reader.since > PATIENCE:
                    reader.answer.set_result(mine)
                else:
                    self._readers.append(reader)
            await asyncio.sleep(BUSY_READ_PAUSE if len(readers) > BUSY_READERS else READ_PAUSE)
            if not self._news.is_set() and self._readers:
                await _wait(self._news, LOOK_PAUSE)

    async def _entries(self, readers: Collection[_Reader]) -> dict[str, list[Entry]]:
        positions: dict[str, int] = {}
        for reader in readers:
            positions[reader.key] = min(reader.after, positions.get(reader.key, reader.after))
        if not positions:
            return {}
        streams: dict[Any, Any] = {key: f"{number}-0" for key, number in positions.items()}
        try:
            batch: Any = await self.client.xread(streams, count=ENTRIES_A_READ)
        except RedisError as error:
            log.warning("events could not be read: %s", error)
            await asyncio.sleep(1)
            return {}
        pairs = batch.items() if isinstance(batch, dict) else batch or ()
        return {key: _decoded(entries) for key, entries in pairs}


def _decoded(entries: Any) -> list[Entry]:
    # RESP3 wraps the entries of a stream in one more list.
    if len(entries) == 1 and isinstance(entries[0], list):
        entries = entries[0]
    return [(int(key.split("-")[0]), fields["name"], fields["data"]) for key, fields in entries]


async def _wait(event: asyncio.Event, seconds: float) -> None:
    try:
        async with asyncio.timeout(seconds):
            await event.wait()
    except TimeoutError:
        return


store = PerLoop(EventStore)


async def which_exist(keys: Sequence[str]) -> set[str]:
    """Those of ``keys`` that are set. Raises redis.exceptions.RedisError."""
    if not keys:
        return set()
    values = await store().client.mget(keys)
    return {key for key, value in zip(keys, values, strict=True) if value is not None}


async def last_entry(key: str) -> Entry | None:
    """The newest of a stream. Raises redis.exceptions.RedisError."""
    found = _decoded(await store().client.xrevrange(key, count=1))
    return found[0] if found else None


async def set_all(keys: Sequence[str], *, seconds: int) -> None:
    """Set each key for some seconds. Raises redis.exceptions.RedisError."""
    pipeline = store().client.pipeline(transaction=False)
    for key in keys:
        pipeline.set(key, "1", ex=seconds)
    await pipeline.execute()
