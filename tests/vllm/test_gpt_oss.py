"""The tiny gpt-oss: harmony channels, effort, limits and refusals as vLLM itself sends them."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import aclosing

import pytest

from assistant.embedded.console import say
from inference.endpoints import Endpoint
from inference.llm import OpenAIChatLLM
from inference.types import ChatMessage, Finished, TextDelta, Thinking
from tests.inference.wire import collect, failure, request, texts
from tests.vllm.server import KEY, VLLM, serving

NAME = "openai/gpt-oss-20b"
ANSWER = "The library closes at 13:00 on Saturday [1]. It is closed on Sunday."
HIDDEN = ("Passage 1 holds", "I will cite", "analysis", "<|")
QUESTION = (ChatMessage("user", "Is the library open?"),)


@pytest.fixture(scope="module")
def server() -> Iterator[VLLM]:
    flags = ("--max-num-seqs", "4", "--enable-auto-tool-choice", "--tool-call-parser", "openai")
    with serving("tiny-gpt-oss", NAME, *flags) as running:
        yield running


def engine(server: VLLM, **options: object) -> OpenAIChatLLM:
    limits = {"first_token_timeout": 120.0, "inter_token_timeout": 60.0}
    return OpenAIChatLLM(server.base_url, "", KEY, **(limits | options))  # type: ignore[arg-type]


async def test_the_answer_streams_and_its_reasoning_goes_nowhere(server: VLLM) -> None:
    llm = engine(server)
    events = await collect(llm.stream(request(messages=QUESTION, temperature=0.0, effort="low")))
    assert texts(events) == ANSWER
    assert sum(isinstance(event, TextDelta) for event in events) > 3
    assert isinstance(events[0], Thinking)
    assert not any(word in repr(events) for word in HIDDEN)
    last = events[-1]
    assert isinstance(last, Finished)
    assert last.usage.completion_tokens > 40
    assert await llm.context_window() == 8192
    await llm.aclose()


async def test_a_budget_eaten_by_reasoning_is_asked_again_with_more(server: VLLM) -> None:
    llm = engine(server)
    before = server.metric("request_success_total")
    events = await collect(llm.stream(request(messages=QUESTION, temperature=0.0, max_tokens=20)))
    assert ANSWER.startswith(texts(events))
    assert texts(events)
    assert isinstance(events[-1], Finished)
    assert events[-1].finish_reason == "length"
    assert server.metric("request_success_total") - before == 2
    error = await failure(llm.stream(request(messages=QUESTION, temperature=0.0, max_tokens=5)))
    assert error.code == "llm_empty"
    await llm.aclose()


async def test_a_wrong_key_is_named(server: VLLM) -> None:
    llm = OpenAIChatLLM(server.base_url, NAME, "sk-wrong", first_token_timeout=60)
    assert (await failure(llm.stream(request()))).code == "llm_unauthorized"
    assert "LLM_API_KEY" in (await llm.check()).detail
    await llm.aclose()


async def test_an_unknown_model_is_named(server: VLLM) -> None:
    llm = OpenAIChatLLM(server.base_url, "openai/gpt-oss-120b", KEY, first_token_timeout=60)
    error = await failure(llm.stream(request()))
    assert error.code == "llm_model_not_found"
    assert NAME in (await llm.check()).detail
    await llm.aclose()


async def test_a_prompt_over_the_window_is_recognised(server: VLLM) -> None:
    llm = engine(server)
    long = (ChatMessage("user", "library " * 9000),)
    assert (await failure(llm.stream(request(messages=long)))).code == "llm_context_too_long"
    too_many = request(messages=QUESTION, max_tokens=9000, temperature=0.0)
    try:
        events = await collect(llm.stream(too_many))
        assert texts(events) == ANSWER  # capped by the server
    except Exception as error:  # noqa: BLE001 - or refused, in words that we know
        assert getattr(error, "code", "") == "llm_context_too_long"
    await llm.aclose()


async def test_more_requests_than_the_engine_takes_wait_and_are_whole(server: VLLM) -> None:
    llm, endpoint = engine(server), Endpoint(engine(server))
    asked = request(messages=QUESTION, temperature=0.0)
    work = [asyncio.create_task(collect(llm.stream(asked))) for _ in range(16)]
    loads = []
    while not all(task.done() for task in work):
        await endpoint.look()
        loads.append(endpoint.load)
        await asyncio.sleep(0.1)
    assert {texts(task.result()) for task in work} == {ANSWER}
    assert max(loads) > 4  # what waits counts
    assert server.wait_idle(seconds=2) < 2
    await asyncio.gather(llm.aclose(), endpoint.llm.aclose())


async def test_leaving_ends_the_work_in_the_engine(server: VLLM) -> None:
    llm = engine(server)

    async def leave() -> None:
        async with aclosing(llm.stream(request(messages=QUESTION, temperature=0.0))) as events:
            await anext(events)

    await asyncio.gather(*(leave() for _ in range(8)))
    seconds = await asyncio.to_thread(server.wait_idle, seconds=2)
    say(f"idle {seconds:.2f} s after 8 readers left")
    await llm.aclose()
