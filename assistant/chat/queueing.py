"""The line in front of the language model: bounded, fair between people, shared by all processes.

An answer takes a place before it costs anything and keeps it until it ends. People take turns,
whatever the number of their questions; those who wait at a screen go before programs. The line is
in Redis, and every place is a lease there: what a process held that died is free again after
``LEASE_SECONDS``. While Redis is away each process admits by itself, and nobody waits.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import time
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from contextlib import aclosing, asynccontextmanager, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Final
from uuid import UUID, uuid4

import redis
from django.conf import settings
from prometheus_client import Counter, Gauge, Histogram
from redis.exceptions import RedisError

from assistant import engines
from assistant.chat.event_store import patient_client
from assistant.chat.events import Delta, Done, Event, Status
from assistant.chat.turn import Turn
from assistant.per_loop import PerLoop
from assistant.users.models import ApiToken, User
from inference.types import EngineError

log = logging.getLogger(__name__)

LEASE_SECONDS: Final = 15
_RENEW_SECONDS: Final = 4.0
# How far behind people a program's question is put, in turns: it is late, but never starved.
_PROGRAM_TURNS: Final = 50
_PREFIX: Final = "{llm}:"
_SCRIPTS: Final = Path(__file__).with_name("queueing.lua").read_text(encoding="utf-8")
_WITHOUT_REDIS_SECONDS: Final = 2.0

# Of what all processes share, the one that looked last knows most.
WAITING: Final = Gauge(
    "llm_line_waiting",
    "Answers that wait for their turn, in all processes",
    multiprocess_mode="mostrecent",
)
RUNNING: Final = Gauge(
    "llm_line_running",
    "Answers that are being written, in all processes",
    multiprocess_mode="mostrecent",
)
REFUSED: Final = Counter("llm_line_refused_total", "Answers refused before they began", ["reason"])
WAITED: Final = Histogram(
    "llm_line_wait_seconds",
    "How long answers waited for their turn",
    buckets=(0.01, 0.1, 0.5, 1, 2, 5, 10, 30, 60, 120),
)


@dataclass(frozen=True, slots=True)
class Asker:
    """Whose turn it is. ``subjects`` are those of LLM_LIMITS that the question counts for."""

    person: str
    is_program: bool = False
    subjects: tuple[tuple[str, str], ...] = ()

    @classmethod
    def of(cls, user: Any, token: ApiToken | None = None) -> Asker:
        """Reads the person's groups when a group has limits. Call it where queries may run."""
        subjects = [("user", f"user:{user.pk}")]
        if token is not None:
            subjects.append(("token", f"token:{token.pk}"))
        if any(name.startswith("group:") for name in settings.LLM_LIMITS):
            names = user.groups.values_list("name", flat=True) if isinstance(user, User) else ()
            subjects += [(f"group:{name}", f"group:{name}") for name in names]
        return cls(
            str(user.pk),
            is_program=token is not None,
            subjects=tuple(s for s in subjects if s[0] in settings.LLM_LIMITS),
        )


@dataclass(frozen=True, slots=True)
class _Answer:
    """What the line says; ``ahead`` is the place of one that waits, 0 where it is not known."""

    verdict: str
    ahead: int = 0
    retry_after: int = 1
    subject: str = ""


def reserve(ticket: UUID, asker: Asker) -> None:
    """Take a place for an answer that is about to be stored, in a thread with no event loop.

    ``admitted`` goes on with the same ticket. Raises EngineError ``llm_overloaded`` or
    ``limit_reached``, with ``retry_after``.
    """
    if not engines.llm().is_language_model or _is_away():
        return
    try:
        given = _sync_script("enter")(keys=[_PREFIX], args=_entry(str(ticket), asker))
    except RedisError as error:
        _note_loss(error)
        return
    _note_admitted(ticket, _admit_or_raise(_read(given)))


async def take_place(asker: Asker) -> UUID:
    """As ``reserve``, for an answer that is not stored, before its first byte."""
    ticket = uuid4()
    if engines.llm().is_language_model:
        _note_admitted(ticket, await _enter(str(ticket), asker))
    return ticket


async def admitted(
    turn: Turn, write: Callable[[Turn], AsyncGenerator[Event, None]]
) -> AsyncGenerator[Event, None]:
    """Wait in line, telling the place in it, then the events of ``write(turn)``.

    Raises EngineError as ``reserve``, and when the wait takes too long. However it ends, the
    place is given back.
    """
    if not engines.llm().is_language_model:
        async with aclosing(write(turn)) as events:
            async for event in events:
                yield event
        return
    reserved = turn.ticket or turn.answer_id
    ticket = str(reserved or uuid4())
    spent = 0
    try:
        asker = Asker(str(turn.user.pk))
        async with aclosing(_wait(ticket, asker, is_in_line=reserved is not None)) as line:
            async for ahead in line:
                yield Status("queued", queue_position=ahead)
        async with aclosing(write(turn)) as events:
            async for event in events:
                # For an answer that is left half way: four characters are a token, near enough.
                if isinstance(event, Delta):
                    spent += 1 + len(event.text) // 4
                if isinstance(event, Done) and event.usage:
                    spent = sum(event.usage.values())
                yield event
    finally:
        await _leave(ticket, spent)


@asynccontextmanager
async def spare_place() -> AsyncGenerator[bool, None]:
    """A place for work that nobody waits for: whether there is one at once, behind everybody.

    It takes no turn from the person it is for.
    """
    ticket, is_free = str(uuid4()), False
    with contextlib.suppress(EngineError):
        answer = await _enter(ticket, Asker("spare", is_program=True))
        is_free = answer.verdict == "running"
    if is_free:
        _keeper().keep(ticket)
    try:
        yield is_free
    finally:
        await _leave(ticket, 0)


async def _wait(ticket: str, asker: Asker, *, is_in_line: bool) -> AsyncGenerator[int, None]:
    """Places in the line as they change, counting from 1; ends when it is this one's turn."""
    began = time.monotonic()
    if _admitted.pop(ticket, 0.0) > began:
        WAITED.observe(0)
        _keeper().keep(ticket)
        return
    told = 0
    while (answer := await _enter(ticket, asker, is_in_line=is_in_line)).verdict == "waiting":
        is_in_line = True
        if answer.ahead and answer.ahead != told:
            told = answer.ahead
            yield told
        if time.monotonic() - began > settings.LLM_MAX_WAIT_SECONDS:
            REFUSED.labels("waited").inc()
            raise _overloaded(10)
        await asyncio.sleep(0.1 if answer.ahead <= 4 else 0.4)
    WAITED.observe(time.monotonic() - began)
    _keeper().keep(ticket)


def _note_admitted(ticket: UUID, answer: _Answer) -> None:
    """Its answer, which begins in a moment in this process, need not ask again."""
    if answer.verdict == "running":
        now = time.monotonic()
        for stale in [key for key, until in list(_admitted.items()) if until < now]:
            _admitted.pop(stale, None)
        _admitted[str(ticket)] = now + LEASE_SECONDS / 3


# Tickets whose turn it was when they took their place, until when that is sure.
_admitted: dict[str, float] = {}


async def _enter(ticket: str, asker: Asker, *, is_in_line: bool = False) -> _Answer:
    """Take a place or ask how far it is; the lease is renewed by that."""
    if not _is_away():
        try:
            given = await _keeper().script("enter")(keys=[_PREFIX], args=_entry(ticket, asker))
        except RedisError as error:
            _note_loss(error)
        else:
            return _admit_or_raise(_read(given))
    # By itself, a process cannot be fair; it can keep the servers from drowning.
    if len(_keeper().held) < settings.LLM_MAX_RUNNING:
        return _Answer("running")
    return _Answer("waiting") if is_in_line else _admit_or_raise(_Answer("full", retry_after=5))


async def _leave(ticket: str, spent: int) -> None:
    _keeper().held.discard(ticket)
    if _is_away():
        return
    try:
        await _keeper().script("leave")(keys=[_PREFIX], args=[ticket, spent, *_window_lengths()])
    except RedisError as error:
        _note_loss(error)  # the lease ends by itself


def _admit_or_raise(answer: _Answer) -> _Answer:
    _on_the_way.discard(_request.get())
    if answer.verdict in {"running", "waiting"}:
        return answer
    REFUSED.labels(answer.verdict).inc()
    if answer.verdict in {"full", "share"}:
        raise _overloaded(answer.retry_after)
    raise EngineError(
        "limit_reached",
        _LIMIT_WORDS[answer.verdict].format(
            whose="your group" if answer.subject.startswith("group:") else "you",
            seconds=answer.retry_after,
        ),
        retryable=True,
        retry_after=answer.retry_after,
    )


@contextmanager
def on_the_way() -> Iterator[None]:
    """Around a request that is let through to ask: until it has its place, it needs one."""
    request = object()
    _on_the_way.add(request)
    token = _request.set(request)
    try:
        yield
    finally:
        _request.reset(token)
        _on_the_way.discard(request)


_on_the_way: set[object] = set()
_request: ContextVar[object] = ContextVar("request", default=None)


async def overload() -> EngineError | None:
    """What to tell who asks now, when there is surely no place; costs next to nothing to find out.

    Those on the way in this process come before, and fill what is left of the line.
    """
    most = settings.LLM_MAX_RUNNING + settings.LLM_MAX_WAITING
    if len(_on_the_way) < most and await _length() + len(_on_the_way) < most:
        return None
    REFUSED.labels("full").inc()
    return _overloaded(10)


async def _length() -> int:
    """How many answers run and wait in all processes, as of a moment ago."""
    global _seen_at
    if not engines.llm().is_language_model:
        return 0
    now = time.monotonic()
    if now - _seen_at > _SEEN_SECONDS and not _is_away():
        _seen_at = now  # one looks for all
        try:
            _read(await _keeper().script("look")(keys=[_PREFIX]))
        except RedisError as error:
            _note_loss(error)
    # Alone, a process lets nobody wait.
    return settings.LLM_MAX_WAITING + len(_keeper().held) if _is_away() else _seen_length


_seen_length, _seen_at = 0, 0.0
_SEEN_SECONDS: Final = 0.05


_LIMIT_WORDS: Final = {
    "concurrent": "Too many answers for {whose} are being written at once. Wait for one to end.",
    "requests": "That were too many questions for {whose} in a minute. Ask again in {seconds} s.",
    "tokens": "The hourly allowance of text for {whose} is used up. Ask again in {seconds} s.",
}


def _overloaded(seconds: int) -> EngineError:
    return EngineError(
        "llm_overloaded",
        f"Too many questions are waiting for the language model. Ask again in {seconds} s.",
        retryable=True,
        retry_after=seconds,
    )


# --- What Redis is asked ----------------------------------------------------------------------


def _entry(ticket: str, asker: Asker) -> list[str | int]:
    """The arguments of ``enter``. One person may fill no more than a quarter of the line."""
    limits = [
        [key, *(int(settings.LLM_LIMITS[name].get(kind) or 0) for kind in _KINDS)]
        for name, key in asker.subjects
    ]
    return [
        ticket,
        asker.person,
        _PROGRAM_TURNS if asker.is_program else 0,
        settings.LLM_MAX_RUNNING,
        settings.LLM_MAX_WAITING,
        max(1, settings.LLM_MAX_WAITING // 4),
        LEASE_SECONDS * 1000,
        json.dumps(limits),
        *_window_lengths(),
    ]


_KINDS: Final = ("concurrent", "requests_per_minute", "tokens_per_hour")


def _window_lengths() -> tuple[int, int]:
    return 60, 3600


def _read(given: Sequence[Any]) -> _Answer:
    global _seen_length, _seen_at
    verdict, number, running, waiting, subject = given
    _seen_length, _seen_at = int(running) + int(waiting), time.monotonic()
    RUNNING.set(int(running))
    WAITING.set(int(waiting))
    name = verdict.decode() if isinstance(verdict, bytes) else str(verdict)
    whose = subject.decode() if isinstance(subject, bytes) else str(subject)
    if name == "waiting":
        return _Answer(name, ahead=int(number))
    return _Answer(name, retry_after=max(1, int(number)), subject=whose)


def _source(name: str) -> str:
    """One script: what all share, then its own part of the file."""
    shared, *parts = _SCRIPTS.split("\n-- script: ")
    bodies = dict(part.split("\n", 1) for part in parts)
    return f"{shared}\n{bodies[name]}"


@cache
def _sync_client() -> redis.Redis:
    return redis.Redis.from_url(settings.REDIS_URL, socket_connect_timeout=1, socket_timeout=3)


def _sync_script(name: str) -> Callable[..., Any]:
    return _sync_client().register_script(_source(name))


class _Keeper:
    """What this process holds on one event loop, and the task that keeps the leases."""

    def __init__(self) -> None:
        self.held: set[str] = set()
        self._client = patient_client(3, socket_connect_timeout=1, socket_timeout=3)
        self._scripts = {
            name: self._client.register_script(_source(name))
            for name in ("enter", "look", "renew", "leave")
        }
        self._task: asyncio.Task[None] | None = None

    def script(self, name: str) -> Callable[..., Any]:
        return self._scripts[name]

    def keep(self, ticket: str) -> None:
        self.held.add(ticket)
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._renew())

    async def _renew(self) -> None:
        """Runs while something is held."""
        while self.held:
            await asyncio.sleep(_RENEW_SECONDS)
            if not self.held or _is_away():
                continue
            with contextlib.suppress(RedisError):  # seen again by whoever enters next
                args = [LEASE_SECONDS * 1000, *self.held]
                await self.script("renew")(keys=[_PREFIX], args=args)


_keeper = PerLoop(_Keeper)


_away_until = 0.0


def _is_away() -> bool:
    return time.monotonic() < _away_until


def _note_loss(error: RedisError) -> None:
    """Nobody else waits for a broken Redis during the next moments."""
    global _away_until
    _away_until = time.monotonic() + _WITHOUT_REDIS_SECONDS
    log.warning("the line is not shared now: %s", error)
