"""Answers run as tasks of the web process's event loop, not of the request that asked.

The ASGI application attaches its loop at start-up. A process without one (a management command, a
test) leaves the answer PENDING, and it is marked interrupted like that of a process that died.
"""

from __future__ import annotations

import asyncio
import logging
from concurrent.futures import Future
from uuid import UUID

from assistant.chat.answering import generate

log = logging.getLogger(__name__)

_loop: asyncio.AbstractEventLoop | None = None
_running: set[Future[None]] = set()


def attach(loop: asyncio.AbstractEventLoop) -> None:
    """Run answers on ``loop`` from now on."""
    global _loop
    _loop = loop


async def drain(seconds: float) -> None:
    """Let running answers end for a while, then interrupt the rest; new ones are not taken."""
    global _loop
    _loop = None
    waiting = {asyncio.wrap_future(future) for future in _running}
    if not waiting:
        return
    _, late = await asyncio.wait(waiting, timeout=seconds)
    for task in late:
        task.cancel()
    if late:
        await asyncio.wait(late, timeout=5)


def start(answer_id: UUID) -> None:
    """Called from any thread, after the commit that stored the answer."""
    if _loop is None:
        log.error("no event loop to answer %s on", answer_id)
        return
    future = asyncio.run_coroutine_threadsafe(generate(answer_id), _loop)
    _running.add(future)
    future.add_done_callback(_ended)


def _ended(future: Future[None]) -> None:
    _running.discard(future)
    if not future.cancelled() and (error := future.exception()):
        log.error("an answer ended with %r", error)
