"""Captured vLLM answers over a real connection from another process, and one that dies or hangs.

The same cases as tests/vllm, without vLLM.
"""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Iterator
from contextlib import aclosing
from typing import Any

import pytest

from inference.endpoints import Endpoint
from inference.llm import OpenAIChatLLM
from inference.routing import RoutedLLM
from inference.types import EngineError, Finished, TextDelta, Thinking
from tests.inference.upstream import SECRET_THOUGHT, Upstream, upstream
from tests.inference.wire import collect, failure, find_capture, request, texts

KEY = "sk-replay"
ANSWER = "The library closes at 13:00 on Saturday [1]. It is closed on Sunday."


@pytest.fixture(scope="module")
def server() -> Iterator[Upstream]:
    with upstream(api_key=KEY, capacity=4, tokens=20_000, reasoning=3, rate=100) as running:
        yield running


def engine(server: Upstream, model: str = "scripted", **options: Any) -> OpenAIChatLLM:
    if model != "scripted" and find_capture(model) is None:
        pytest.skip(f"no capture {model}: set SHARED_DATA")
    return OpenAIChatLLM(server.base_url, model, KEY, **options)


@pytest.mark.parametrize("name", ["gpt-oss-stream", "oss-01-chat-stream"])
async def test_an_answer_streams_and_its_reasoning_goes_nowhere(
    server: Upstream, name: str
) -> None:
    llm = engine(server, name)
    events = await collect(llm.stream(request()))
    assert texts(events) == ANSWER
    assert isinstance(events[0], Thinking)
    assert "Passage 1 holds" not in repr(events)
    assert isinstance(events[-1], Finished)
    assert events[-1].usage.completion_tokens > 40
    await llm.aclose()


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("gpt-oss-length-in-reasoning", "llm_empty"),
        ("gpt-oss-context-too-long", "llm_context_too_long"),
        ("gpt-oss-unknown-model", "llm_model_not_found"),
        ("oss-04-length-in-reasoning-stream", "llm_empty"),
        ("oss-14-context-too-long", "llm_context_too_long"),
        ("smol-10-context-too-long-stream", "llm_context_too_long"),
        ("smol-11-max-tokens-too-large", "llm_context_too_long"),
        ("oss-13-unknown-model", "llm_model_not_found"),
        ("oss-07-reasoning-effort-bad", "llm_bad_request"),
        ("smol-25-cache-salt-empty", "llm_bad_request"),
    ],
)
async def test_refusals_and_empty_answers(server: Upstream, name: str, code: str) -> None:
    llm = engine(server, name)
    assert (await failure(llm.stream(request()))).code == code
    await llm.aclose()


@pytest.mark.parametrize("name", ["gpt-oss-broken-markup", "oss-28-parse-error-stream"])
async def test_broken_markup_is_taken_out(server: Upstream, name: str) -> None:
    llm = engine(server, name)
    shown = texts(await collect(llm.stream(request())))
    assert shown.strip()
    assert "<|" not in shown
    assert llm.stripped_markup > 0
    await llm.aclose()


async def test_a_wrong_key_is_named(server: Upstream) -> None:
    llm = OpenAIChatLLM(server.base_url, "scripted", "sk-wrong")
    assert (await failure(llm.stream(request()))).code == "llm_unauthorized"
    await llm.aclose()


async def test_leaving_ends_the_work(server: Upstream) -> None:
    llm = engine(server)
    streams = [llm.stream(request()) for _ in range(4)]
    for stream in streams:
        assert isinstance(await anext(stream), Thinking)
    assert await asyncio.to_thread(server.metric, "num_requests_running") == 4
    await asyncio.gather(*(stream.aclose() for stream in streams))
    await asyncio.to_thread(server.wait_idle, seconds=60)
    await llm.aclose()


async def test_what_waits_in_a_full_server_counts_as_its_load(server: Upstream) -> None:
    llm, endpoint = engine(server), Endpoint(engine(server))
    tasks = [asyncio.create_task(collect(llm.stream(request()))) for _ in range(10)]
    while await asyncio.to_thread(server.metric, "num_requests_waiting") < 6:
        await asyncio.sleep(0.02)
    assert await endpoint.look()
    assert endpoint.load == 4 + 2 * 6
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    await asyncio.to_thread(server.wait_idle, seconds=60)
    await asyncio.gather(llm.aclose(), endpoint.llm.aclose())


async def test_a_hanging_and_then_a_killed_server() -> None:
    """SIGSTOP: the limit between tokens; SIGKILL: at once; and back after a restart."""
    with upstream(tokens=20_000, rate=50) as server:
        llm = OpenAIChatLLM(
            server.base_url, "scripted", first_token_timeout=30, inter_token_timeout=2
        )
        routed = RoutedLLM([Endpoint(llm)])
        streams = [routed.stream(request()) for _ in range(5)]
        for stream in streams:
            assert isinstance(await anext(stream), TextDelta)
        server.process.send_signal(signal.SIGSTOP)
        errors = await asyncio.gather(*map(failure, streams))
        assert {error.code for error in errors} == {"llm_timeout"}
        assert not routed.endpoints[0].circuit.is_closed  # three in a row
        server.process.send_signal(signal.SIGCONT)
        streams = [await _begun(routed) for _ in range(5)]
        server.process.kill()
        errors = await asyncio.gather(*map(failure, streams))
        assert {error.code for error in errors} == {"llm_lost"}  # not by the limit between tokens
        server.start()
        await (await _begun(routed)).aclose()
        await routed.aclose()


async def _begun(llm: RoutedLLM) -> Any:
    """A stream with its first word read; asks again for a minute while nobody answers."""
    deadline = time.monotonic() + 60
    while True:
        stream = llm.stream(request())
        try:
            assert isinstance(await anext(stream), TextDelta)
        except EngineError:
            assert time.monotonic() < deadline
            await asyncio.sleep(0.2)
        else:
            return stream


async def test_no_thought_reaches_an_event(server: Upstream) -> None:
    llm = engine(server)
    async with aclosing(llm.stream(request())) as stream:
        events = [await anext(stream) for _ in range(6)]
    assert SECRET_THOUGHT not in repr(events)
    await llm.aclose()
