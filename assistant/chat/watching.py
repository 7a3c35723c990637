"""Answers that this process writes, watched together: stop, deadline, withdrawn rights.

One task looks after all of them, so that five hundred answers cost one request a tick. To end
one, it cancels the wait for the next event, as ``asyncio.timeout`` does, and the answer ends with
the event that says why.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator
from contextlib import aclosing
from contextvars import Context
from time import perf_counter
from typing import cast

from django.conf import settings
from django.db import Error as DatabaseError
from redis.exceptions import RedisError

from assistant.chat import rights, stream
from assistant.chat.events import Delta, Done, Event, Failed
from assistant.chat.turn import Turn
from assistant.database import shared_threads
from assistant.per_loop import PerLoop
from inference.types import EngineError

log = logging.getLogger(__name__)

TICK_SECONDS = 0.25
SIGN_SECONDS = 1.0

DEADLINE = Failed("deadline", "The answer took too long and was ended.", retryable=True)
REVOKED = Failed(
    "revoked",
    "Your access to a source of this answer was withdrawn, so it was stopped.",
    retryable=False,
)
RESTARTED = Failed(
    "interrupted", "The server was restarted while answering. Ask again.", retryable=True
)


async def watched(turn: Turn, produced: AsyncGenerator[Event, None]) -> AsyncGenerator[Event, None]:
    """The events of ``produced``, ending with Done or Failed; early when the watch says so.

    Closing it closes ``produced``, and with it the request to the model server.
    """
    watch = _watch()
    watch.add(turn)
    try:
        async with aclosing(produced):
            while not turn.is_ended():
                turn.puller = asyncio.current_task()
                try:
                    event = await anext(produced)
                except asyncio.CancelledError:
                    if not turn.is_ended() or _take_back(turn) > 0:
                        raise
                    break
                finally:
                    turn.puller = None
                yield event
                if isinstance(event, Done):
                    return
        # A library can swallow a cancellation that meets the end of what it waits for.
        _take_back(turn)
        yield cast("Event", turn.verdict)
    except EngineError as error:
        yield Failed(error.code, error.detail, retryable=error.retryable)
    finally:
        watch.discard(turn)


def _take_back(turn: Turn) -> int:
    """Undo our cancellations of the puller; returns how many others there are."""
    task, left = asyncio.current_task(), 0
    assert task is not None
    while turn.cancels:
        turn.cancels -= 1
        left = task.uncancel()
    return left


class _Watch:
    """All answers that one event loop writes."""

    def __init__(self) -> None:
        self._turns: set[Turn] = set()
        self._task: asyncio.Task[None] | None = None

    def add(self, turn: Turn) -> None:
        self._turns.add(turn)
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._run(), context=Context())

    def discard(self, turn: Turn) -> None:
        self._turns.discard(turn)

    @property
    def is_busy(self) -> bool:
        return bool(self._turns)

    def end_all(self, verdict: Event) -> None:
        for turn in list(self._turns):
            _end(turn, verdict)

    async def _run(self) -> None:
        next_sign, next_check = 0.0, perf_counter() + rights.RECHECK_SECONDS
        async with shared_threads():
            while self._turns:
                await asyncio.sleep(TICK_SECONDS)
                now = perf_counter()
                if now > next_sign:
                    next_sign = now + SIGN_SECONDS
                    await self._give_sign()
                await self._look_for_stops()
                self._look_for_deadlines(now)
                if now > next_check:
                    await self._look_for_rights()
                    next_check = perf_counter() + rights.RECHECK_SECONDS
                for turn in self._turns:
                    if turn.verdict is not None:  # its cancellation was swallowed
                        _end(turn, turn.verdict)

    async def _give_sign(self) -> None:
        """Tells readers that somebody is still writing. A broken Redis shows at the next event."""
        stored = [turn.answer_id for turn in self._turns if turn.answer_id is not None]
        try:
            await stream.keep_alive(stored)
        except RedisError as error:
            log.warning("cannot report being alive: %s", error)

    async def _look_for_stops(self) -> None:
        stored = {turn.answer_id: turn for turn in self._turns if turn.answer_id is not None}
        try:
            asked = await stream.stop_requested(list(stored))
        except RedisError:
            return
        for answer_id in asked:
            turn = stored[answer_id]
            _end(turn, Done(str(answer_id), "stopped", timings_ms=turn.timings_ms))

    def _look_for_deadlines(self, now: float) -> None:
        for turn in list(self._turns):
            if now - turn.started > settings.ANSWER_DEADLINE_SECONDS:
                _end(turn, DEADLINE)

    async def _look_for_rights(self) -> None:
        try:
            withdrawn = await rights.withdrawn(list(self._turns))
        except DatabaseError as error:
            log.warning("rights of running answers could not be checked: %s", error)
            return
        for turn in withdrawn:
            _end(turn, REVOKED)


def _end(turn: Turn, verdict: Event) -> None:
    """The first verdict counts."""
    turn.verdict = turn.verdict or verdict
    if turn.puller is not None:
        turn.cancels += 1
        turn.puller.cancel()


_watch = PerLoop(_Watch)


def end_all(verdict: Event) -> None:
    """End every answer that the running loop writes."""
    _watch().end_all(verdict)


def is_busy() -> bool:
    """Whether the running loop writes any answer."""
    return _watch().is_busy


async def with_heartbeat(
    events: AsyncGenerator[Event, None], *, seconds: float
) -> AsyncGenerator[Event | None, None]:
    """``events``, with None for each ``seconds`` of silence before the first word.

    Afterwards the model's own limit between two tokens keeps silences short.
    """
    async with aclosing(events):
        pull: asyncio.Task[Event] | None = None
        try:
            while True:
                pull = pull or asyncio.ensure_future(anext(events))
                await asyncio.wait({pull}, timeout=seconds)
                if not pull.done():
                    yield None
                    continue
                try:
                    event = pull.result()
                except StopAsyncIteration:
                    return
                pull = None
                yield event
                if isinstance(event, Delta):
                    break
        finally:
            # A generator that runs cannot be closed.
            if pull is not None and pull.cancel():
                await asyncio.wait({pull})
        async for event in events:
            yield event
