"""Searches of one event loop at the same time: embedded together, let into the database by turns.

A request with one text costs both ends as much as one with thirty. So nobody waits while there is
little to do, and what comes while others are embedded makes up the next batch. A batch is sent when
it is wanted: while as many embedded queries wait for the database as it takes at once, more would
only wait there, and apart they would have been smaller.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final

from assistant.per_loop import PerLoop
from inference.types import Embedder, EngineError, Vectors

# Searches in the database at once. So few keep its processor busy; more would only take the
# interpreter from the loop, and its answers and timeouts, in turns.
AT_ONCE: Final = 8
# Batches on their way, so that the model has work while an answer travels; and texts in each.
_BATCHES: Final = 2
_TEXTS: Final = 32


@dataclass(frozen=True, slots=True)
class _Asked:
    embedder: Embedder
    texts: Sequence[str]
    vectors: asyncio.Future[Vectors]


class Line:
    """The searches of one event loop; ``at_once`` of them are in the database."""

    def __init__(self, at_once: int = AT_ONCE) -> None:
        self._turns = asyncio.Semaphore(at_once)
        self._at_once = at_once
        self._in_line = 0
        self._inside = 0
        self._has_room = asyncio.Event()
        self._has_room.set()
        self._asked: deque[_Asked] = deque()
        self._sending = 0
        self._tasks: set[asyncio.Task[None]] = set()

    async def embed(self, embedder: Embedder, texts: Sequence[str]) -> Vectors:
        """As ``Embedder.aembed`` for queries. Raises EngineError."""
        asked = _Asked(embedder, texts, asyncio.get_running_loop().create_future())
        self._asked.append(asked)
        if self._sending < _BATCHES:
            self._sending += 1
            task = asyncio.create_task(self._send())
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        return await asked.vectors

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[bool]:
        """Inside, the search is in the database. Yields whether no other one is."""
        self._stands_in_line(1)
        try:
            await self._turns.acquire()
        finally:
            self._stands_in_line(-1)
        self._inside += 1
        try:
            yield self._inside == 1
        finally:
            self._inside -= 1
            self._turns.release()

    def _stands_in_line(self, more: int) -> None:
        self._in_line += more
        if self._in_line < self._at_once:
            self._has_room.set()
        else:
            self._has_room.clear()

    async def _send(self) -> None:
        try:
            while self._asked:
                await self._has_room.wait()
                if batch := self._take():
                    await _embed(batch)
                    await asyncio.sleep(0)  # they stand in line now
        finally:
            self._sending -= 1

    def _take(self) -> list[_Asked]:
        """What is sent to one embedder; who gave up is left out."""
        batch: list[_Asked] = []
        size = 0
        while self._asked:
            first = self._asked[0]
            if not first.vectors.done():
                full = batch and size + len(first.texts) > _TEXTS
                if full or (batch and batch[0].embedder is not first.embedder):
                    break
                batch.append(first)
                size += len(first.texts)
            self._asked.popleft()
        return batch


async def _embed(batch: Sequence[_Asked]) -> None:
    """Each gets its vectors, or why there are none."""
    texts = [text for asked in batch for text in asked.texts]
    try:
        vectors = await batch[0].embedder.aembed(texts, kind="query")
    except asyncio.CancelledError:
        for asked in batch:
            asked.vectors.cancel()
        raise
    except Exception as error:  # noqa: BLE001 - raised where it was asked
        # One text that the server refuses must not cost the others their answer.
        if len(batch) > 1 and isinstance(error, EngineError) and not error.retryable:
            for asked in batch:
                await _embed([asked])
            return
        for asked in batch:
            if not asked.vectors.done():
                asked.vectors.set_exception(error)
        return
    at = 0
    for asked in batch:
        if not asked.vectors.done():
            asked.vectors.set_result(vectors[at : at + len(asked.texts)])
        at += len(asked.texts)


line = PerLoop(Line)
