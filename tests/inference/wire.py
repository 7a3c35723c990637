"""Replays captured vLLM answers, and plays a server that misbehaves."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from inference.types import ChatMessage, EngineError, GenerationRequest, LLMEvent

SHARED = Path(os.environ.get("SHARED_DATA", Path(__file__).parents[3] / "shared" / "data")).parent

# Recorded here, for machines without the shared folder.
RECORDED = Path(__file__).with_name("recorded")


def find_capture(name: str) -> Path | None:
    """The file of a capture: of ``shared/wire``, or of those beside these tests."""
    files = [folder / f"{name}.txt" for folder in (SHARED / "wire", RECORDED)]
    return next((path for path in files if path.is_file()), None)


def capture(name: str) -> httpx.Response:
    """The response in a capture, as httpx would hand it out."""
    path = find_capture(name)
    if path is None:
        pytest.skip(f"no capture {name} in {SHARED}: set SHARED_DATA")
    return parse_capture(path.read_bytes())


def parse_capture(text: bytes) -> httpx.Response:
    """The output of ``curl -i`` with anything before its status line."""
    raw = text[text.index(b"HTTP/1.1 ") :]
    head, _, body = raw.partition(b"\n\n") if b"\r\n\r\n" not in raw else raw.partition(b"\r\n\r\n")
    status, *fields = head.decode().splitlines()
    headers = {
        key.lower(): value.strip() for key, _, value in (line.partition(":") for line in fields)
    }
    kept = {"content-type": headers.get("content-type", "application/json")}
    return httpx.Response(int(status.split()[1]), headers=kept, content=body)


def sse(*events: object, done: bool = True) -> bytes:
    lines = [f"data: {json.dumps(event)}\n\n" for event in events]
    return ("".join(lines) + ("data: [DONE]\n\n" if done else "")).encode()


def delta(finish: str | None = None, **fields: object) -> dict[str, object]:
    return {"choices": [{"index": 0, "delta": fields, "finish_reason": finish}]}


def request(**changes: Any) -> GenerationRequest:
    values: dict[str, Any] = {
        "messages": (ChatMessage("system", "Rules."), ChatMessage("user", "When?")),
        "question": "When?",
        "sources": (),
        "max_tokens": 200,
    }
    return GenerationRequest(**(values | changes))


async def collect(stream: AsyncIterator[LLMEvent]) -> list[LLMEvent]:
    return [event async for event in stream]


async def failure(stream: AsyncIterator[LLMEvent]) -> EngineError:
    with pytest.raises(EngineError) as caught:
        await collect(stream)
    return caught.value


Script = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"


def chunk(data: bytes) -> bytes:
    return f"{len(data):x}\r\n".encode() + data + b"\r\n"


@asynccontextmanager
async def raw_server(script: Script) -> AsyncIterator[str]:
    """A TCP server that runs ``script`` after a request has arrived; yields the base URL."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        length = next(
            (
                int(line[15:])
                for line in head.lower().split(b"\r\n")
                if line[:15] == b"content-length:"
            ),
            0,
        )
        await reader.readexactly(length)
        try:
            await script(reader, writer)
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    try:
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        server.close()


def replies(*answers: httpx.Response | bytes) -> tuple[httpx.MockTransport, list[Any]]:
    """A transport that gives the answers in turn, and the list of bodies it was sent."""
    sent: list[Any] = []
    left: list[httpx.Response | bytes] = list(answers)

    def handle(incoming: httpx.Request) -> httpx.Response:
        sent.append(json.loads(incoming.content) if incoming.content else str(incoming.url.path))
        answer = left.pop(0)
        if isinstance(answer, bytes):
            return httpx.Response(
                200, headers={"content-type": "text/event-stream"}, content=answer
            )
        return answer

    return httpx.MockTransport(handle), sent


def texts(events: Sequence[LLMEvent]) -> str:
    return "".join(getattr(event, "text", "") for event in events)
