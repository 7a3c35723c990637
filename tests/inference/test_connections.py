"""Streams that wait together: see ``inference/connections.py``."""

from __future__ import annotations

import asyncio
import gc
from typing import Any

import pytest

from inference.connections import _TICK_SECONDS, _next_tick, _Ticks, _Wait
from inference.llm import OpenAIChatLLM
from tests.inference.wire import HEAD, chunk, collect, delta, raw_server, request, sse, texts

STREAMS = 500
PERIOD = 0.05
# Of the loop for each stream that wakes: with two tokens at a time two thirds of its time.
COST = 0.00013


class _Content:
    """A stream that gets a byte every PERIOD, from ``begin`` on."""

    def __init__(self, begin: float) -> None:
        self._begin = begin
        self.now = 0.0

    @property
    def total_bytes(self) -> int:
        return max(0, int((self.now - self._begin) / PERIOD + 1))

    def read_nowait(self) -> bytes:
        return b"x"

    def is_eof(self) -> bool:
        return False

    def exception(self) -> None:
        return None


async def _woken_at_once(monkeypatch: pytest.MonkeyPatch, *, seconds: float) -> list[int]:
    """How many streams each tick woke; all were late together at the first one."""
    loop = asyncio.get_running_loop()
    ticks = _Ticks()
    monkeypatch.setattr(ticks, "_arm", lambda: None)
    contents: list[Any] = [_Content(number / STREAMS * PERIOD) for number in range(STREAMS)]
    waits: dict[int, _Wait] = {}
    taken = [0] * STREAMS
    counts = []
    now = 2 * PERIOD
    while now < seconds:
        for number, content in enumerate(contents):
            content.now = now
            if number not in waits:
                woken = loop.create_future()
                waits[number] = _Wait(content, taken[number], PERIOD, now + 10, woken)
                ticks.add(waits[number])
        with monkeypatch.context() as patch:
            patch.setattr(loop, "time", lambda: now)  # noqa: B023  called at once
            ticks._look()
        over = [number for number, wait in waits.items() if wait.woken.done()]
        for number in over:
            now += COST
            contents[number].now = now
            ticks.waits.discard(waits.pop(number))
            taken[number] = contents[number].total_bytes
        counts.append(len(over))
        now = _next_tick(now)
    return counts


async def test_streams_that_were_late_together_do_not_stay_together(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The last of hundreds that wake in one turn waits for all before it."""
    counts = await _woken_at_once(monkeypatch, seconds=4)
    half = len(counts) // 2
    assert max(counts[:half]) > STREAMS * 0.5
    assert max(counts[half:]) < STREAMS * 0.5
    # Those that go early take fewer tokens along; it must not be many.
    assert sum(counts[half:]) < STREAMS * 2 / (2 * PERIOD) * 1.15


def test_connections_are_closed_with_their_loop(caplog: pytest.LogCaptureFixture) -> None:
    """As `manage.py doctor` asks: aiohttp would say as an error that a session was left open."""

    async def script(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(HEAD + chunk(sse(delta("stop", content="Yes"))) + chunk(b""))
        await writer.drain()

    async def ask() -> str:
        async with raw_server(script) as url:
            return texts(await collect(OpenAIChatLLM(url, "m").stream(request())))

    assert asyncio.run(ask()) == "Yes"
    gc.collect()
    assert not caplog.records


def test_a_tick_is_never_the_present_moment() -> None:
    """Where rounding makes it so, the loop would look again and again until its clock moves."""
    for millisecond in range(2_974_000, 2_975_000):
        now = millisecond / 1000
        assert 0.0005 < _next_tick(now) - now <= _TICK_SECONDS + 0.0015
