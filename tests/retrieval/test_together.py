"""Queries of one event loop that are embedded together, and who waits for whom."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest

from assistant.retrieval.together import Line
from inference.fakes import FakeEmbedder
from inference.types import EngineError, Vectors

REFUSED = EngineError("embedder_bad_request", "Too long.", retryable=False)


class Watched(FakeEmbedder):
    """Keeps the texts of each batch, answers when ``gate`` is open and refuses "bad"."""

    def __init__(self) -> None:
        super().__init__()
        self.batches: list[list[str]] = []
        self.gate = asyncio.Event()

    async def aembed(self, texts: Sequence[str], *, kind: Any) -> Vectors:
        self.batches.append(list(texts))
        await self.gate.wait()
        if "bad" in texts:
            raise REFUSED
        return self.embed(texts, kind=kind)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(60):
        while not condition():
            await asyncio.sleep(0)


def ask(line: Line, embedder: FakeEmbedder, texts: Sequence[str]) -> list[asyncio.Task[Vectors]]:
    return [asyncio.create_task(line.embed(embedder, [text])) for text in texts]


async def under_way(
    line: Line, embedder: Watched, texts: Sequence[str]
) -> list[asyncio.Task[Vectors]]:
    """The first two are sent, each for itself, and the others come when they are."""
    asked = []
    for number, text in enumerate(texts[:2], start=1):
        asked += ask(line, embedder, [text])
        await until(lambda: len(embedder.batches) == number)  # noqa: B023
    return asked + ask(line, embedder, texts[2:])


async def test_what_comes_while_others_are_embedded_is_one_batch() -> None:
    line, embedder = Line(), Watched()
    asked = await under_way(line, embedder, ["a", "b", "c", "d", "e"])
    embedder.gate.set()
    vectors = await asyncio.gather(*asked)
    assert embedder.batches == [["a"], ["b"], ["c", "d", "e"]]
    for text, vector in zip("abcde", vectors, strict=True):
        assert np.array_equal(vector, embedder.embed([text], kind="query"))


async def test_nothing_is_embedded_that_would_only_stand_in_line() -> None:
    line, embedder = Line(at_once=1), Watched()
    embedder.gate.set()
    leave = asyncio.Event()

    async def searches() -> None:
        async with line.turn():
            await leave.wait()

    inside, waiting = asyncio.create_task(searches()), asyncio.create_task(searches())
    await until(lambda: line._in_line == 1)
    asked = ask(line, embedder, ["a", "b", "c"])
    for _ in range(20):
        await asyncio.sleep(0)
    assert embedder.batches == []
    leave.set()
    await asyncio.gather(inside, waiting, *asked)
    assert embedder.batches == [["a", "b", "c"]]


async def test_a_refused_text_costs_the_others_nothing() -> None:
    line, embedder = Line(), Watched()
    asked = await under_way(line, embedder, ["a", "b", "good", "bad"])
    embedder.gate.set()
    *good, bad = await asyncio.gather(*asked, return_exceptions=True)
    assert bad is REFUSED
    assert all(isinstance(vector, np.ndarray) for vector in good)


async def test_all_of_a_batch_hear_that_the_server_is_away() -> None:
    line, embedder = Line(), FakeEmbedder()
    embedder.error = EngineError("embedder_unavailable", "Away.", retryable=True)
    found = await asyncio.gather(*ask(line, embedder, ["a", "b", "c"]), return_exceptions=True)
    assert found == [embedder.error] * 3


async def test_who_gave_up_is_not_sent() -> None:
    line, embedder = Line(), Watched()
    asked = await under_way(line, embedder, ["a", "b", "c", "d"])
    asked[2].cancel()
    with pytest.raises(asyncio.CancelledError):
        await asked[2]
    embedder.gate.set()
    await asyncio.gather(asked[0], asked[1], asked[3])
    assert embedder.batches[2:] == [["d"]]


async def test_models_are_asked_apart() -> None:
    line, first, second = Line(), Watched(), Watched()
    asked = [*await under_way(line, first, ["a", "b", "c"]), *ask(line, second, ["d"])]
    for embedder in (first, second):
        embedder.gate.set()
    await asyncio.gather(*asked)
    assert first.batches == [["a"], ["b"], ["c"]]
    assert second.batches == [["d"]]
