"""Answers run as tasks of the web process's event loop, not of the request that asked.

The ASGI application attaches its loop at start-up. A process without one (a management command, a
test) stores the answer as PENDING, and it is marked interrupted like that of a process that died.
"""

from __future__ import annotations

import asyncio
import logging
from contextvars import Context
from time import perf_counter

from django.db import DatabaseError

from assistant.chat import recording, watching
from assistant.chat.answering import generate
from assistant.chat.event_store import store
from assistant.chat.models import AnswerStatus, Message
from assistant.chat.suggesting import suggest
from assistant.chat.turn import Turn
from assistant.database import shared_threads

log = logging.getLogger(__name__)

_loop: asyncio.AbstractEventLoop | None = None
_running: set[asyncio.Task[None]] = set()


def attach(loop: asyncio.AbstractEventLoop) -> None:
    """Run answers on ``loop`` from now on."""
    global _loop
    _loop = loop


async def drain(seconds: float) -> None:
    """Let running answers end for a while, then interrupt the rest; new ones are not taken.

    Readers are told to come back, and see the last event of what is interrupted here.
    """
    global _loop
    _loop = None
    store().is_leaving = True
    ends = perf_counter() + seconds
    while watching.is_busy() and perf_counter() < ends:
        await asyncio.sleep(0.05)
    watching.end_all(watching.RESTARTED)
    if _running:
        _, stuck = await asyncio.wait(_running, timeout=3)
        for task in stuck:
            task.cancel()
        if stuck:
            await asyncio.wait(stuck, timeout=2)


def first_status() -> AnswerStatus:
    """What an answer that begins now is stored with; ``start`` writes no row."""
    return AnswerStatus.PENDING if _loop is None else AnswerStatus.STREAMING


def start(answer: Message) -> None:
    """Called from a thread that queries, after the commit that stored the answer."""
    # Draining may take it away meanwhile.
    if (loop := _loop) is None:
        log.error("no event loop to answer %s on", answer.pk)
        return
    try:
        # Here and now: in another thread it would compete with the response.
        turn = recording.turn_for(answer)
    except DatabaseError:
        log.exception("answer %s could not begin", answer.pk)
        return
    # Not in the caller's context: it holds the thread that ends with the caller's request.
    loop.call_soon_threadsafe(_spawn, turn, context=Context())


def _spawn(turn: Turn) -> None:
    task = asyncio.create_task(_detached(turn))
    _running.add(task)
    task.add_done_callback(_ended)


async def _detached(turn: Turn) -> None:
    """Queries run in any free thread: answers do not wait for each other's."""
    assert turn.answer_id is not None
    async with shared_threads():
        await generate(turn)
        await suggest(turn.answer_id)


def _ended(task: asyncio.Task[None]) -> None:
    _running.discard(task)
    if not task.cancelled() and (error := task.exception()):
        log.error("an answer ended with %r", error)
