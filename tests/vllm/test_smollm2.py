"""SmolLM2, which writes on and on: stopping, caches kept apart, hanging and dying servers."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Iterator
from contextlib import aclosing
from typing import Any

import pytest
from asgiref.sync import sync_to_async

from assistant import engines
from assistant.chat import actions
from assistant.chat.models import AnswerStatus, Conversation, Message
from assistant.chat.queueing import Asker, take_place
from assistant.embedded.console import say
from inference.endpoints import Endpoint
from inference.fakes import FakeEmbedder
from inference.llm import OpenAIChatLLM
from inference.routing import RoutedLLM
from inference.types import ChatMessage, EngineError, TextDelta
from tests.chat.writing import generate
from tests.factories import make_collection, make_document, make_user
from tests.inference.wire import collect, failure, request, texts
from tests.vllm.server import KEY, VLLM, serving

NAME = "smollm2"
TALE = (ChatMessage("user", "Write a very long story about a lighthouse and its keeper."),)


@pytest.fixture(scope="module")
def server() -> Iterator[VLLM]:
    with serving("smollm2", NAME, "--max-num-seqs", "8") as running:
        yield running


def engine(server: VLLM, **options: Any) -> OpenAIChatLLM:
    limits = {"first_token_timeout": 120.0, "inter_token_timeout": 60.0}
    return OpenAIChatLLM(server.base_url, NAME, KEY, **(limits | options))


def tale() -> Any:
    return request(messages=TALE, max_tokens=3000, temperature=0.7)


async def until_writing(events: Any) -> None:
    async for event in events:
        if isinstance(event, TextDelta):
            return


async def test_a_model_without_reasoning_streams(server: VLLM) -> None:
    llm = engine(server)
    asked = request(messages=(ChatMessage("user", "Say hello."),), max_tokens=20, temperature=0.0)
    assert texts(await collect(llm.stream(asked)))
    await llm.aclose()


async def test_stopping_ends_the_work_in_the_engine(server: VLLM) -> None:
    llm = engine(server)
    streams = [llm.stream(tale()) for _ in range(6)]
    await asyncio.gather(*map(until_writing, streams))
    assert await asyncio.to_thread(server.metric, "num_requests_running") == 6
    await asyncio.gather(*(stream.aclose() for stream in streams))
    seconds = await asyncio.to_thread(server.wait_idle, seconds=2)
    say(f"idle {seconds:.2f} s after 6 streams were closed")
    await llm.aclose()


@pytest.mark.django_db(transaction=True)
async def test_a_reader_who_stops_an_answer_stops_the_engine(
    server: VLLM, settings: Any, fake_embedder: FakeEmbedder
) -> None:
    settings.LLM_BASE_URL, settings.LLM_API_KEY, settings.LLM_MODEL = server.base_url, KEY, NAME
    settings.LLM_FIRST_TOKEN_TIMEOUT_SECONDS = 120
    user = await sync_to_async(make_user)()
    collection = await sync_to_async(make_collection)(readers=[user])
    await sync_to_async(make_document)(collection, text="The lighthouse keeper writes stories.")
    conversation = await Conversation.objects.acreate(user=user)
    question = "Write a very long story about the lighthouse keeper."
    _, answer = await sync_to_async(actions.ask)(conversation.pk, content=question, user=user)
    task = asyncio.create_task(generate(answer.pk))
    began = time.monotonic()
    while not await asyncio.to_thread(server.metric, "num_requests_running"):
        assert time.monotonic() - began < 60
        await asyncio.sleep(0.05)
    row = await Message.objects.select_related("conversation").aget(pk=answer.pk)
    await sync_to_async(actions.stop_answer)(row, user=user)
    seconds = await asyncio.to_thread(server.wait_idle, seconds=2)
    say(f"idle {seconds:.2f} s after the reader's stop")
    await asyncio.wait_for(task, 10)
    assert (await Message.objects.aget(pk=answer.pk)).status in {
        AnswerStatus.STOPPED,
        AnswerStatus.DONE,
    }
    await engines.llm().aclose()  # type: ignore[attr-defined]


async def test_prefix_caches_of_two_readers_are_kept_apart(server: VLLM) -> None:
    llm = engine(server)
    await llm.context_window()  # says that it is vLLM
    messages = (ChatMessage("system", "The lamp is lit at dusk. " * 120), ChatMessage("user", "?"))

    async def hits(salt: str) -> float:
        before = await asyncio.to_thread(server.metric, "prefix_cache_hits_total")
        asked = request(messages=messages, max_tokens=2, temperature=0.0, cache_salt=salt)
        await collect(llm.stream(asked))
        return await asyncio.to_thread(server.metric, "prefix_cache_hits_total") - before

    assert await hits("ann") == 0
    assert await hits("ann") > 500
    assert await hits("bob") == 0
    await llm.aclose()


@pytest.mark.django_db(transaction=True)
async def test_over_capacity_waits_in_line_and_beyond_it_is_refused_at_once(
    server: VLLM, settings: Any
) -> None:
    settings.LLM_BASE_URL, settings.LLM_API_KEY, settings.LLM_MODEL = server.base_url, KEY, NAME
    settings.LLM_MAX_RUNNING, settings.LLM_MAX_WAITING = 4, 4
    refused, slowest = 0, 0.0
    for number in range(40):
        began = time.monotonic()
        try:
            await take_place(Asker(f"person {number}"))
        except EngineError as error:
            assert error.retry_after
            slowest = max(slowest, time.monotonic() - began)
            refused += 1
    assert refused == 32
    say(f"32 of 40 refused, the slowest in {1000 * slowest:.0f} ms")
    assert slowest < 0.2


async def test_a_hanging_server_is_noticed_and_comes_back(server: VLLM) -> None:
    """SIGSTOP in the middle of streams: the limit between tokens, then the open circuit."""
    llm = engine(server, inter_token_timeout=3.0, first_token_timeout=3.0)
    routed = RoutedLLM([Endpoint(llm)])
    streams = [routed.stream(tale()) for _ in range(3)]
    await asyncio.gather(*map(until_writing, streams))
    server.send(signal.SIGSTOP)
    try:
        began = time.monotonic()
        errors = await asyncio.gather(*map(failure, streams))
        assert {error.code for error in errors} == {"llm_timeout"}
        say(f"3 streams ended {time.monotonic() - began:.1f} s after SIGSTOP, limit 3 s")
        began = time.monotonic()
        while not (await failure(routed.stream(tale()))) or routed.endpoints[0].circuit.is_closed:
            assert time.monotonic() - began < 15
        began = time.monotonic()
        await failure(routed.stream(tale()))
        assert time.monotonic() - began < 2.5  # a look, not a whole limit
    finally:
        server.send(signal.SIGCONT)
    began = time.monotonic()
    while True:
        try:
            async with aclosing(routed.stream(tale())) as events:
                await until_writing(events)
            break
        except EngineError:
            assert time.monotonic() - began < 60
            await asyncio.sleep(0.5)
    say(f"it wrote again {time.monotonic() - began:.1f} s after SIGCONT")
    assert await asyncio.to_thread(server.wait_idle, seconds=10) < 10
    await routed.aclose()


async def test_a_killed_server_ends_its_streams_at_once(server: VLLM) -> None:
    """kill -9 of all its processes in the middle of streams. The last test: it does not return."""
    llm = engine(server)
    routed = RoutedLLM([Endpoint(llm)])
    streams = [routed.stream(tale()) for _ in range(6)]
    await asyncio.gather(*map(until_writing, streams))
    began = time.monotonic()
    server.send(signal.SIGKILL)
    errors = await asyncio.gather(*map(failure, streams))
    seconds = time.monotonic() - began
    say(f"6 streams ended {seconds:.2f} s after SIGKILL")
    assert {error.code for error in errors} == {"llm_lost"}
    assert all(error.retryable for error in errors)
    assert seconds < 5
    assert (await failure(routed.stream(tale()))).code in {"llm_unavailable", "llm_lost"}
    await routed.aclose()
