"""A model server of its own process: replays captured vLLM answers, or writes by the clock.

python -m tests.inference.upstream --port 8100 [--capacity 16] [--tokens 200] [--rate 20] …

A ``model`` that is the name of a capture (``oss-01-chat-stream``) is answered with its bytes, event
by event; any other with ``--reasoning`` tokens of reasoning and ``--tokens`` words. Like vLLM it
works on ``--capacity`` requests at once, lets the others wait, drops those whose client went away,
and tells both numbers under ``/metrics``.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import httpx
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

from assistant.embedded.ports import free_port
from tests.inference.wire import find_capture, parse_capture
from tests.up_process import ROOT

SECRET_THOUGHT = "The user must never read this thought."


@dataclass
class Script:
    """What the server does; times in seconds."""

    capacity: int = 256
    first_token: float = 0.05
    reasoning: int = 0
    tokens: int = 40
    rate: float = 100.0
    api_key: str = ""
    window: int = 32768
    running: int = 0
    waiting: int = 0
    served: int = 0
    bodies: list[object] = field(default_factory=list)


def application(script: Script) -> Starlette:
    slots = asyncio.Semaphore(script.capacity)

    async def models(request: Request) -> Response:
        row = {"id": "scripted", "owned_by": "vllm", "max_model_len": script.window}
        return JSONResponse({"object": "list", "data": [row]})

    async def health(request: Request) -> Response:
        return Response()

    async def metrics(request: Request) -> Response:
        return PlainTextResponse(
            f'vllm:num_requests_running{{engine="0"}} {script.running}\n'
            f'vllm:num_requests_waiting{{engine="0"}} {script.waiting}\n'
            f'vllm:request_success_total{{engine="0"}} {script.served}\n'
        )

    async def complete(request: Request) -> Response:
        if script.api_key and request.headers.get("authorization") != f"Bearer {script.api_key}":
            return JSONResponse({"error": "Unauthorized"}, status_code=401)
        body = await request.json()
        script.bodies.append(body)
        if path := find_capture(body["model"]):
            return _replayed(path.read_bytes())
        return StreamingResponse(_written(script, slots), media_type="text/event-stream")

    return Starlette(
        routes=[
            Route("/v1/models", models),
            Route("/v1/chat/completions", complete, methods=["POST"]),
            Route("/health", health),
            Route("/metrics", metrics),
        ]
    )


def _replayed(raw: bytes) -> Response:
    capture = parse_capture(raw)
    kind = capture.headers["content-type"]
    if "event-stream" not in kind:
        return Response(capture.content, capture.status_code, media_type=kind)

    async def events() -> AsyncIterator[bytes]:
        for event in capture.content.split(b"\n\n"):
            if event.strip():
                yield event + b"\n\n"
                await asyncio.sleep(0)

    return StreamingResponse(events(), media_type=kind)


async def _written(script: Script, slots: asyncio.Semaphore) -> AsyncIterator[bytes]:
    """Reasoning, then numbered words, each at its time however long the ones before took."""
    script.waiting += 1
    try:
        await slots.acquire()
    finally:
        script.waiting -= 1
    script.running += 1
    try:
        yield _event({"role": "assistant", "content": ""})
        begin = time.monotonic() + script.first_token
        for number in range(script.reasoning + script.tokens):
            late = begin + number / script.rate - time.monotonic()
            await asyncio.sleep(max(0.0, late))
            if number < script.reasoning:
                yield _event({"reasoning": SECRET_THOUGHT})
            else:
                yield _event({"content": f"word{number - script.reasoning} "})
        yield _event({}, "stop")
        usage = {"prompt_tokens": 100, "completion_tokens": script.reasoning + script.tokens}
        yield _data({"choices": [], "usage": usage})
        yield b"data: [DONE]\n\n"
        script.served += 1
    finally:
        script.running -= 1
        slots.release()


def _event(delta: dict[str, str], finish: str | None = None) -> bytes:
    return _data({"choices": [{"index": 0, "delta": delta, "finish_reason": finish}]})


def _data(value: object) -> bytes:
    return f"data: {json.dumps(value)}\n\n".encode()


@dataclass
class Upstream:
    """A running server of another process."""

    process: subprocess.Popen[bytes]
    port: int
    arguments: list[str]

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    def metric(self, name: str) -> float:
        page = httpx.get(f"http://127.0.0.1:{self.port}/metrics", timeout=10).text
        line = next(line for line in page.splitlines() if line.startswith(f"vllm:{name}{{"))
        return float(line.split()[-1])

    def wait_idle(self, *, seconds: float) -> float:
        """Seconds until nothing runs. Raises AssertionError."""
        began = time.monotonic()
        while self.metric("num_requests_running") + self.metric("num_requests_waiting"):
            assert time.monotonic() - began < seconds, "the model server still works"
            time.sleep(0.05)
        return time.monotonic() - began

    def start(self) -> None:
        """Start it, again if need be, on the same port."""
        self.process = _spawn(self.port, self.arguments)
        _wait(self)

    def stop(self) -> None:
        self.process.send_signal(signal.SIGCONT)
        self.process.kill()
        self.process.wait(10)


def _spawn(port: int, arguments: list[str]) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "tests.inference.upstream", "--port", str(port), *arguments]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL)


def _wait(upstream: Upstream) -> None:
    deadline = time.monotonic() + 60
    while True:
        try:
            if httpx.get(f"http://127.0.0.1:{upstream.port}/health", timeout=5).is_success:
                return
        except httpx.HTTPError:
            pass
        if upstream.process.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError("the scripted model server did not start")
        time.sleep(0.05)


@contextmanager
def upstream(**options: float | str) -> Iterator[Upstream]:
    """``capacity=4`` becomes ``--capacity 4``."""
    arguments: list[str] = []
    for name, value in options.items():
        arguments += [f"--{name.replace('_', '-')}", str(value)]
    port = free_port()
    server = Upstream(_spawn(port, arguments), port, arguments)
    try:
        _wait(server)
        yield server
    finally:
        server.stop()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    defaults = Script()
    for name in ("capacity", "reasoning", "tokens", "window"):
        parser.add_argument(f"--{name}", type=int, default=getattr(defaults, name))
    for name in ("first-token", "rate"):
        default = getattr(defaults, name.replace("-", "_"))
        parser.add_argument(f"--{name}", type=float, default=default)
    parser.add_argument("--api-key", default="")
    options = vars(parser.parse_args())
    port = options.pop("port")
    uvicorn.run(
        application(Script(**options)), port=port, log_level="warning", timeout_keep_alive=60
    )


if __name__ == "__main__":
    main()
