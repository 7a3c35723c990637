"""Redis for running answers: whatever all answers of a process write or read goes in one request.

A command for itself costs a tenth of a millisecond of this process. So writes of a few
milliseconds are one script, and all readers share one XREAD. A reader that has everything that is
in Redis is told by the writer, where that is in the same process, while it is being written there:
five hundred streams would wait for each other's writes. What a process that dies had told and not
written, some milliseconds of words, is in no log then. Nothing is buffered for a reader: one that
does not ask is not read for, so slow ones cost no memory.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Collection, Sequence
from contextvars import Context
from dataclasses import dataclass, field
from time import monotonic
from typing import Any, Final, NamedTuple
from weakref import WeakValueDictionary

import orjson
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
_CONNECTIONS: Final = 20
# One argument and one reply for all: the client takes 2 us for an argument and 15 for a reply. What
# Redis refuses is told by its place and keeps nothing else from being written.
_WRITE: Final = """
local refused = {}
for place, each in ipairs(cjson.decode(ARGV[1])) do
    local reply = redis.pcall(unpack(each))
    if type(reply) == 'table' and reply.err then
        refused[#refused + 1] = {place - 1, reply.err}
    end
end
return refused
"""

Entry = tuple[int, str, str]


class RedisLost(Exception):
    """The event store does not answer."""


@dataclass(slots=True, eq=False)
class _Reader:
    """Wants what comes after number ``after``. ``answer`` has no entries when there is something to
    look for.
    """

    key: str
    after: int
    answer: asyncio.Future[list[Entry]]
    since: float = field(default_factory=monotonic)

    def give(self, entries: list[Entry]) -> None:
        if not self.answer.done():
            self.answer.set_result(entries)


@dataclass(slots=True, eq=False, weakref_slot=True)
class Log:
    """The writer's view of one stream. ``lost``: something of it was not written.

    ``written`` is the number of its newest entry in Redis, ``fresh`` are those on their way there,
    ``readers`` are those in this process that have everything.
    """

    key: str
    lost: bool = False
    written: int = 0
    fresh: list[Entry] = field(default_factory=list)
    readers: set[_Reader] = field(default_factory=set)

    def since(self, number: int) -> list[Entry]:
        """Of the fresh ones, those after ``number``."""
        return [entry for entry in self.fresh if entry[0] > number]

    def wake(self) -> None:
        for reader in self.readers:
            reader.give([])


class _Write(NamedTuple):
    """A command, and the number of the entry that it writes, 0 for none."""

    log: Log
    command: tuple[Any, ...]
    number: int = 0


def patient_client(seconds: float, **options: Any) -> redis.asyncio.Redis:
    """A client with which hundreds of commands at once wait up to ``seconds`` for a connection.

    redis-py's other kind of pool refuses them, which looks as if Redis were away.
    """
    pool = redis.asyncio.BlockingConnectionPool.from_url(
        settings.REDIS_URL, max_connections=_CONNECTIONS, timeout=seconds, **options
    )
    client: redis.asyncio.Redis = redis.asyncio.Redis.from_pool(pool)
    return client


class EventStore:
    """One for each event loop: connections belong to the loop that opened them.

    ``is_leaving``: this process goes, and its readers are told to come back to another one.
    """

    def __init__(self) -> None:
        self.is_leaving = False
        self.client = patient_client(
            10,
            decode_responses=True,
            socket_connect_timeout=3,
            socket_timeout=10,
            health_check_interval=30,
        )
        self._script = self.client.register_script(_WRITE)
        self._logs: WeakValueDictionary[str, Log] = WeakValueDictionary()
        self._writes: list[_Write] = []
        self._writing: asyncio.Task[None] | None = None
        self._readers: list[_Reader] = []
        self._reading: asyncio.Task[None] | None = None
        self._news = asyncio.Event()
        self._patience: asyncio.TimerHandle | None = None

    # -- writing --------------------------------------------------------------------------

    def open(self, key: str) -> Log:
        """A stream that is written here from now on, as long as somebody holds it."""
        self._logs[key] = log_ = Log(key)
        return log_

    def append(self, log_: Log, entry: Entry) -> None:
        """Queue an entry. Raises RedisLost when something earlier of this log was lost."""
        number, name, data = entry
        command = ("XADD", log_.key, f"{number}-0", "name", name, "data", data)
        self._queue(_Write(log_, command, number))
        log_.fresh.append(entry)
        log_.wake()

    def clear(self, log_: Log) -> None:
        """Queue to take back all entries so far. Raises RedisLost."""
        self._queue(_Write(log_, ("DEL", log_.key)))
        log_.fresh.clear()

    def write(self, log_: Log, *command: Any) -> None:
        """Queue another command. Raises RedisLost."""
        self._queue(_Write(log_, command))

    def _queue(self, write: _Write) -> None:
        if write.log.lost:
            raise RedisLost
        self._writes.append(write)
        if self._writing is None or self._writing.done():
            self._writing = asyncio.create_task(self._write(), context=Context())

    async def run(self, commands: Sequence[Sequence[Any]]) -> dict[int, str]:
        """Run all of them, in order. By their places, why Redis refused some.

        Raises redis.exceptions.RedisError when it does not answer.
        """
        return dict(await self._script(args=[orjson.dumps(commands)]))

    async def written(self, log_: Log) -> None:
        """Returns when all that was queued is written. Raises RedisLost."""
        while self._writing is not None and not self._writing.done():
            await asyncio.wait({self._writing})
        if log_.lost:
            raise RedisLost

    async def _write(self) -> None:
        while self._writes:
            batch, self._writes = self._writes, []
            try:
                refused = await self.run([write.command for write in batch])
            except RedisError as error:
                log.warning("events could not be written: %s", error)
                lost = {write.log for write in batch}
            else:
                lost = {batch[place].log for place in refused}
                for reason in set(refused.values()):
                    log.warning("some events could not be written: %s", reason)
            _note_written(batch, lost)
            self._news.set()
            await asyncio.sleep(WRITE_PAUSE)

    # -- reading --------------------------------------------------------------------------

    def is_written_here(self, key: str) -> bool:
        """Whether its writer is in this process, and gets through to Redis."""
        log_ = self._logs.get(key)
        return log_ is not None and not log_.lost

    async def read(self, key: str, *, after: int) -> list[Entry]:
        """Entries after number ``after``, as soon as there are any; none after a while."""
        log_ = self._logs.get(key)
        if log_ is not None and log_.written <= after and not log_.lost:
            return log_.since(after) or await self._told(log_, after)
        reader = _Reader(key, after, asyncio.get_running_loop().create_future())
        self._readers.append(reader)
        self._news.set()
        if self._reading is None or self._reading.done():
            self._reading = asyncio.create_task(self._read(), context=Context())
        return await reader.answer

    async def _told(self, log_: Log, after: int) -> list[Entry]:
        """What its writer, in this process, tells next; none after a while."""
        reader = _Reader(log_.key, after, asyncio.get_running_loop().create_future())
        log_.readers.add(reader)
        self._look_after()
        try:
            await reader.answer
        finally:
            log_.readers.discard(reader)
        return log_.since(after)

    def _look_after(self) -> None:
        """Those who wait for a writer here lose patience together: a timer for each costs more."""
        if self._patience is None:
            loop = asyncio.get_running_loop()
            self._patience = loop.call_later(PATIENCE / 4, self._tell_impatient, context=Context())

    def _tell_impatient(self) -> None:
        self._patience = None
        now = monotonic()
        waiting = [reader for log_ in self._logs.values() for reader in log_.readers]
        for reader in waiting:
            if now - reader.since > PATIENCE:
                reader.give([])
        if waiting:
            self._look_after()

    async def _read(self) -> None:
        while self._readers:
            self._news.clear()
            readers = [reader for reader in self._readers if not reader.answer.done()]
            self._readers = []
            found = await self._entries(readers)
            now = monotonic()
            for reader in readers:
                mine = [entry for entry in found.get(reader.key, ()) if entry[0] > reader.after]
                if mine or now - reader.since > PATIENCE:
                    reader.give(mine)
                elif not reader.answer.done():  # it was not cancelled
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


def _note_written(batch: Sequence[_Write], lost: Collection[Log]) -> None:
    """``lost`` are those of which something could not be written."""
    for write in batch:
        if write.number and write.log not in lost:
            write.log.written = write.number
    for log_ in {write.log for write in batch}:
        log_.fresh = log_.since(log_.written)
    for log_ in lost:
        log_.lost = True
        log_.wake()


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
    client = store().client
    # Mostly none is, and one number is read sooner than an answer for each of hundreds.
    if not keys or not await client.exists(*keys):
        return set()
    values = await client.mget(keys)
    return {key for key, value in zip(keys, values, strict=True) if value is not None}


async def last_entry(key: str) -> Entry | None:
    """The newest of a stream. Raises redis.exceptions.RedisError."""
    found = _decoded(await store().client.xrevrange(key, count=1))
    return found[0] if found else None


async def set_all(keys: Sequence[str], *, seconds: int) -> None:
    """Set each key for some seconds. Raises redis.exceptions.RedisError."""
    refused = await store().run([("SET", key, "1", "EX", seconds) for key in keys])
    if refused:
        raise RedisError("; ".join(set(refused.values())))
