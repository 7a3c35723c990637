from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator

import httpx
import pytest

from inference.llm import DEFAULT_CONTEXT_WINDOW, OpenAIChatLLM
from inference.types import Finished, TextDelta, Thinking, Usage
from tests.inference.wire import (
    HEAD,
    capture,
    chunk,
    collect,
    delta,
    failure,
    raw_server,
    replies,
    request,
    sse,
    texts,
)

URL = "http://llm.test/v1"


def llm(*answers: httpx.Response | bytes) -> OpenAIChatLLM:
    return OpenAIChatLLM(URL, "m", "sk-test", transport=replies(*answers)[0])


async def test_a_captured_answer_streams_as_text_without_its_reasoning() -> None:
    events = await collect(llm(capture("oss-01-chat-stream")).stream(request()))
    assert texts(events) == "The library closes at 13:00 on Saturday [1]. It is closed on Sunday."
    assert isinstance(events[0], Thinking)
    assert "passages" not in texts(events)
    assert events[-1] == Finished("stop", Usage(105, 51))


@pytest.mark.parametrize("name", ["oss-05-include-reasoning-false", "smol-05-chat-stream"])
async def test_captured_answers_without_reasoning(name: str) -> None:
    events = await collect(llm(capture(name)).stream(request()))
    assert "library" in texts(events)
    assert isinstance(events[-1], Finished)


async def test_a_cut_answer_says_length() -> None:
    events = await collect(llm(capture("smol-16-length")).stream(request()))
    assert isinstance(events[-1], Finished)
    assert events[-1].finish_reason == "length"
    assert events[-1].usage.completion_tokens == 4


async def test_leaked_markup_is_taken_out_and_counted() -> None:
    engine = llm(capture("oss-28-parse-error-stream"))
    assert texts(await collect(engine.stream(request()))) == " so I will cite it."
    assert engine.stripped_markup == 1


@pytest.mark.parametrize(
    ("name", "code", "retryable"),
    [
        ("smol-07-bad-key", "llm_unauthorized", False),
        ("smol-08-unknown-model", "llm_model_not_found", False),
        ("oss-13-unknown-model", "llm_model_not_found", False),
        ("smol-09-context-too-long", "llm_context_too_long", False),
        ("smol-10-context-too-long-stream", "llm_context_too_long", False),
        ("smol-11-max-tokens-too-large", "llm_context_too_long", False),
        ("smol-38-way-too-long", "llm_context_too_long", False),
        ("oss-14-context-too-long", "llm_context_too_long", False),
        ("smol-12-malformed-json", "llm_bad_request", False),
        ("oss-07-reasoning-effort-bad", "llm_bad_request", False),
        ("smol-32-empty-messages", "llm_bad_request", False),
        ("smol-34-notfound", "llm_bad_request", False),
    ],
)
async def test_captured_refusals(name: str, code: str, retryable: bool) -> None:
    error = await failure(llm(capture(name)).stream(request()))
    assert (error.code, error.retryable) == (code, retryable)
    assert error.detail.endswith((".", "}"))


@pytest.mark.parametrize(
    ("status", "code"),
    [(429, "llm_overloaded"), (503, "llm_overloaded"), (500, "llm_unavailable")],
)
async def test_load_and_failure_are_retryable(status: int, code: str) -> None:
    error = await failure(llm(httpx.Response(status, json={"error": "busy"})).stream(request()))
    assert (error.code, error.retryable) == (code, True)


async def test_only_listed_fields_are_sent() -> None:
    transport, sent = replies(sse(delta(content="Yes"), delta("stop")))
    engine = OpenAIChatLLM(URL, "m", send_cache_salt=True, seed=7, transport=transport)
    await collect(engine.stream(request(effort="low", temperature=0.5, cache_salt="s")))
    assert sent == [
        {
            "model": "m",
            "messages": [
                {"role": "system", "content": "Rules."},
                {"role": "user", "content": "When?"},
            ],
            "stream": True,
            "stream_options": {"include_usage": True},
            "max_tokens": 200,
            "temperature": 0.5,
            "reasoning_effort": "low",
            "cache_salt": "s",
            "seed": 7,
        }
    ]


async def test_cache_salt_stays_home_unless_configured() -> None:
    transport, sent = replies(sse(delta(content="Yes"), delta("stop")))
    engine = OpenAIChatLLM(URL, "m", transport=transport)
    await collect(engine.stream(request(cache_salt="secret")))
    assert set(sent[0]) == {"model", "messages", "stream", "stream_options", "max_tokens"}


async def test_a_server_that_is_vllm_gets_the_cache_salt() -> None:
    transport, sent = replies(capture("oss-12-models"), sse(delta(content="Yes"), delta("stop")))
    engine = OpenAIChatLLM(URL, "openai/gpt-oss-20b", transport=transport)
    await engine.context_window()
    await collect(engine.stream(request(cache_salt="s")))
    assert sent[1]["cache_salt"] == "s"


async def test_a_budget_spent_on_thinking_is_tried_again_with_less_effort() -> None:
    transport, sent = replies(
        capture("oss-04-length-in-reasoning-stream"), capture("oss-01-chat-stream")
    )
    engine = OpenAIChatLLM(URL, "m", transport=transport)
    events = await collect(engine.stream(request(max_tokens=8, effort="high")))
    assert "13:00" in texts(events)
    assert [(body["max_tokens"], body["reasoning_effort"]) for body in sent] == [
        (8, "high"),
        (16, "medium"),
    ]
    assert sum(isinstance(event, Finished) for event in events) == 1


async def test_thinking_twice_without_an_answer_is_said_plainly() -> None:
    stuck = capture("oss-04-length-in-reasoning-stream")
    again = capture("oss-04-length-in-reasoning-stream")
    error = await failure(llm(stuck, again).stream(request()))
    assert error.code == "llm_empty"
    assert "thinking" in error.detail


async def test_the_old_reasoning_field_is_thinking_too() -> None:
    body = sse(delta(reasoning_content="secret plan"), delta(content="Yes"), delta("stop"))
    events = await collect(llm(body).stream(request()))
    assert [type(event) for event in events] == [Thinking, TextDelta, Finished]


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (sse(delta(content="Half"), done=False), "llm_lost"),
        (sse(delta(content="Half"), {"error": {"message": "EngineDead", "code": 500}}), "llm_lost"),
        (sse({"error": {"message": "slow down", "code": 429}}), "llm_overloaded"),
        (
            sse(
                {
                    "error": {
                        "message": "Input length (9) exceeds model's maximum context length (8).",
                        "code": 400,
                    }
                }
            ),
            "llm_context_too_long",
        ),
        (sse(delta(content="Half"), delta("abort")), "llm_lost"),
        (b"data: {not json\n\n", "llm_lost"),
        (b"data: [1, 2]\n\n", "llm_lost"),
        (b"", "llm_lost"),
    ],
)
async def test_streams_that_break_after_the_200(body: bytes, code: str) -> None:
    assert (await failure(llm(body).stream(request()))).code == code


async def test_an_end_without_done_after_finish_reason_is_whole() -> None:
    body = sse(delta(content="Yes"), delta("stop"), done=False)
    assert texts(await collect(llm(body).stream(request()))) == "Yes"


async def test_a_server_that_does_not_stream_is_named() -> None:
    error = await failure(llm(capture("oss-02-chat-nonstream")).stream(request()))
    assert error.code == "llm_bad_request"
    assert "streaming" in error.detail


async def test_nobody_listening_is_unavailable() -> None:
    error = await failure(OpenAIChatLLM("http://127.0.0.1:9/v1", "m").stream(request()))
    assert (error.code, error.retryable) == ("llm_unavailable", True)


async def test_a_connection_killed_mid_answer_is_lost() -> None:
    async def script(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(HEAD + chunk(sse(delta(content="Half an"), done=False)))
        await writer.drain()
        writer.transport.abort()

    async with raw_server(script) as url:
        engine = OpenAIChatLLM(url, "m")
        stream = engine.stream(request())
        assert await anext(stream) == TextDelta("Half an")
        assert (await failure(stream)).code == "llm_lost"
        await engine.aclose()


@pytest.mark.parametrize("coalesce", [0.0, 0.05])
@pytest.mark.parametrize("first", [b"", sse(delta(content="Half"), done=False)])
async def test_a_silent_server_times_out(first: bytes, coalesce: float) -> None:
    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(HEAD + (chunk(first) if first else b""))
        # Keep-alive comments are not tokens and must not hold the reader.
        for _ in range(40):
            writer.write(chunk(b": ping\n\n"))
            await asyncio.sleep(0.05)

    async with raw_server(script) as url:
        engine = OpenAIChatLLM(
            url, "m", first_token_timeout=0.4, inter_token_timeout=0.2, coalesce=coalesce
        )
        error = await failure(engine.stream(request()))
        assert error.code == "llm_timeout"
        assert ("begin" in error.detail) is (not first)
        await engine.aclose()


async def test_a_slow_reader_is_not_a_slow_model() -> None:
    async def script(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for word in ("a", "b"):
            writer.write(
                (HEAD if word == "a" else b"") + chunk(sse(delta(content=word), done=False))
            )
            await writer.drain()
            await asyncio.sleep(0.1)
        writer.write(chunk(sse(delta("stop"))) + b"0\r\n\r\n")
        await writer.drain()

    async with raw_server(script) as url:
        engine = OpenAIChatLLM(url, "m", inter_token_timeout=1)
        events = []
        async for event in engine.stream(request()):
            events.append(event)
            if len(events) == 1:
                await asyncio.sleep(1.2)
        assert texts(events) == "ab"
        await engine.aclose()


@pytest.fixture
def hundreds(monkeypatch: pytest.MonkeyPatch) -> None:
    """So many streams beside this one that none of those that hold something goes early."""
    monkeypatch.setattr("inference.connections._EARLY", 0)


async def test_few_streams_hold_nothing_back() -> None:
    shown: asyncio.Queue[None] = asyncio.Queue()

    async def script(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(HEAD + chunk(sse(delta(content="Yes"), done=False)))
        for word in (" it", " is"):
            await shown.get()
            writer.write(chunk(sse(delta(content=word), done=False)))
        await shown.get()
        writer.write(chunk(sse(delta("stop"))) + b"0\r\n\r\n")
        await writer.drain()

    async with raw_server(script) as url:
        engine = OpenAIChatLLM(url, "m", coalesce=3600)
        events = []
        async with asyncio.timeout(60):
            async for event in engine.stream(request()):
                events.append(event)
                shown.put_nowait(None)
        assert events[:3] == [TextDelta("Yes"), TextDelta(" it"), TextDelta(" is")]
        await engine.aclose()


@pytest.mark.usefixtures("hundreds")
async def test_the_first_token_comes_at_once_and_the_next_ones_together() -> None:
    shown = asyncio.Event()

    async def script(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(HEAD + chunk(sse(delta(content="Yes"), done=False)))
        await shown.wait()
        for word in (" it", " is"):
            writer.write(chunk(sse(delta(content=word), done=False)))
            await asyncio.sleep(0.02)
        writer.write(chunk(sse(delta("stop"))) + b"0\r\n\r\n")
        await writer.drain()

    async with raw_server(script) as url:
        engine = OpenAIChatLLM(url, "m", coalesce=0.5)
        events = []
        async for event in engine.stream(request()):
            events.append(event)
            shown.set()
        assert events[:2] == [TextDelta("Yes"), TextDelta(" it is")]
        assert isinstance(events[2], Finished)
        await engine.aclose()


@pytest.mark.usefixtures("hundreds")
async def test_a_held_token_is_shown_when_the_connection_breaks_meanwhile() -> None:
    shown, broken = asyncio.Event(), asyncio.Event()

    async def script(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(HEAD + chunk(sse(delta(content="Yes"), done=False)))
        await shown.wait()
        writer.write(chunk(sse(delta(content=" it is"), done=False)))
        await writer.drain()
        await asyncio.sleep(0.2)
        writer.transport.abort()
        broken.set()

    async with raw_server(script) as url:
        engine = OpenAIChatLLM(url, "m", coalesce=1.0)
        stream = engine.stream(request())
        assert await anext(stream) == TextDelta("Yes")
        shown.set()
        assert await anext(stream) == TextDelta(" it is")
        assert broken.is_set()
        assert (await failure(stream)).code == "llm_lost"
        await engine.aclose()


@pytest.mark.usefixtures("hundreds")
async def test_many_streams_are_woken_together_and_each_gets_its_own() -> None:
    words = [f" {n}" for n in range(40)]

    async def script(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for number, word in enumerate(words):
            head = b"" if number else HEAD
            writer.write(head + chunk(sse(delta(content=word), done=False)))
            await asyncio.sleep(0.01)
        writer.write(chunk(sse(delta("stop"))) + b"0\r\n\r\n")
        await writer.drain()

    async with raw_server(script) as url:
        engine = OpenAIChatLLM(url, "m", coalesce=0.05)
        answers = await asyncio.gather(*(collect(engine.stream(request())) for _ in range(20)))
        assert {texts(events) for events in answers} == {"".join(words)}
        assert all(len(events) < len(words) for events in answers)
        await engine.aclose()


@pytest.mark.parametrize("coalesce", [0.0, 0.05])
@pytest.mark.parametrize("how", ["close", "cancel"])
async def test_leaving_ends_the_upstream_request(how: str, coalesce: float) -> None:
    gone = asyncio.Event()

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(HEAD + chunk(sse(delta(content="On and"), done=False)))
        await writer.drain()
        assert await reader.read() == b""
        gone.set()

    async with raw_server(script) as url:
        engine = OpenAIChatLLM(url, "m", coalesce=coalesce)
        stream = engine.stream(request())
        assert isinstance(await anext(stream), TextDelta)
        if how == "close":
            await stream.aclose()
        else:
            waiting = asyncio.ensure_future(anext(stream))
            await asyncio.sleep(0.05)
            waiting.cancel()
            await asyncio.gather(waiting, return_exceptions=True)
        await asyncio.wait_for(gone.wait(), 60)
        await engine.aclose()


def test_one_engine_serves_many_event_loops() -> None:
    async def once() -> str:
        async def script(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(HEAD + chunk(sse(delta(content="Yes"), delta("stop"))) + b"0\r\n\r\n")
            await writer.drain()

        async with raw_server(script) as url:
            engine._connections.base_url = url
            return texts(await collect(engine.stream(request())))

    engine = OpenAIChatLLM("http://unused.test/v1", "m")
    assert [asyncio.run(once()) for _ in range(3)] == ["Yes"] * 3
    assert len(engine._connections._per_loop) == 1


async def test_the_window_comes_from_models_once() -> None:
    transport, sent = replies(capture("oss-12-models"))
    engine = OpenAIChatLLM(URL, "openai/gpt-oss-20b", transport=transport)
    assert [await engine.context_window() for _ in range(2)] == [8192, 8192]
    assert sent == ["/v1/models"]


async def test_a_failed_request_forgets_the_window() -> None:
    other = httpx.Response(200, json={"data": [{"id": "m", "max_model_len": 131072}]})
    transport, _ = replies(
        httpx.Response(200, json={"data": [{"id": "m", "max_model_len": 4096}]}),
        httpx.Response(500),
        other,
    )
    engine = OpenAIChatLLM(URL, "m", transport=transport)
    assert await engine.context_window() == 4096
    await failure(engine.stream(request()))
    assert await engine.context_window() == 131072


@pytest.mark.parametrize(
    "answer", [httpx.Response(500), httpx.Response(200, json={"data": [{"id": "m"}]})]
)
async def test_the_window_has_a_cautious_default(answer: httpx.Response) -> None:
    assert await llm(answer).context_window() == DEFAULT_CONTEXT_WINDOW


async def test_a_server_that_does_not_tell_its_window_is_not_asked_each_time() -> None:
    transport, sent = replies(httpx.Response(404), httpx.Response(404))
    engine = OpenAIChatLLM(URL, "m", transport=transport)
    assert [await engine.context_window() for _ in range(3)] == [DEFAULT_CONTEXT_WINDOW] * 3
    assert sent == ["/v1/models"]


async def test_what_is_looked_up_again_is_known_meanwhile() -> None:
    transport, sent = replies(
        capture("oss-12-models"), httpx.Response(500), sse(delta(content="Yes"), delta("stop"))
    )
    engine = OpenAIChatLLM(URL, "openai/gpt-oss-20b", transport=transport)
    await engine.context_window()
    assert not (await engine.check()).ok
    await collect(engine.stream(request(cache_salt="s")))
    assert sent[2]["cache_salt"] == "s"


async def test_without_a_name_the_first_served_model_is_used() -> None:
    transport, sent = replies(capture("oss-12-models"), sse(delta(content="Yes"), delta("stop")))
    engine = OpenAIChatLLM(URL, "", transport=transport)
    await collect(engine.stream(request()))
    assert sent[1]["model"] == engine.model == "openai/gpt-oss-20b"


async def test_check_says_what_to_do() -> None:
    healthy = await OpenAIChatLLM(
        URL, "smollm2", transport=replies(capture("smol-03-models"))[0]
    ).check()
    assert healthy.ok
    refused = await llm(capture("smol-02-models-noauth")).check()
    assert not refused.ok
    assert "LLM_API_KEY" in refused.detail
    absent = await llm(capture("smol-03-models")).check()
    assert not absent.ok
    assert "smollm2" in absent.detail
    down = await OpenAIChatLLM("http://127.0.0.1:9/v1", "m").check()
    assert "LLM_BASE_URL" in down.detail


async def test_split_bytes_reach_the_reader_whole() -> None:
    body = sse(delta(content="Grüße 東京 🙂"), delta("stop")).replace(b"\n", b"\r\n")
    raw = json.loads(body[6 : body.index(b"\r\n")])
    assert raw["choices"]
    plain = body.replace(json.dumps("Grüße 東京 🙂").encode(), '"Grüße 東京 🙂"'.encode())

    class Bytewise(httpx.AsyncByteStream):
        async def __aiter__(self) -> AsyncIterator[bytes]:
            for at in range(len(plain)):
                yield plain[at : at + 1]

    answer = httpx.Response(200, headers={"content-type": "text/event-stream"}, stream=Bytewise())
    assert texts(await collect(llm(answer).stream(request()))) == "Grüße 東京 🙂"
