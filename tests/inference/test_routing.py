from __future__ import annotations

import asyncio
from collections import Counter
from contextlib import aclosing
from typing import Any

import httpx
import pytest

from inference.endpoints import Circuit, Endpoint
from inference.llm import OpenAIChatLLM
from inference.routing import RoutedLLM
from inference.types import TextDelta
from tests.inference.wire import collect, delta, failure, request, sse, texts

WHOLE = sse(delta(content="Yes"), delta("stop"))


class Server:
    """A model server in this process: counts what it is asked, says what it is told to."""

    def __init__(self, name: str, *, running: int = 0, window: int = 8192) -> None:
        self.name = name
        self.running = running
        self.window = window
        self.asked = 0
        self.body: bytes = WHOLE
        self.status = 200
        self.is_down = False
        self.is_hanging = False
        self.hung = 0
        self.now = 0.0

    async def handle(self, incoming: httpx.Request) -> httpx.Response:
        if self.is_hanging:
            self.hung += incoming.url.path.endswith("/chat/completions")
            await asyncio.sleep(300)
        if self.is_down:
            raise httpx.ConnectError("refused")
        path = incoming.url.path
        if path == "/v1/models":
            row = {"id": "m", "max_model_len": self.window}
            return httpx.Response(200, json={"data": [row]})
        if path == "/metrics":
            return httpx.Response(200, text=f"vllm:num_requests_running {self.running}\n")
        if path == "/health":
            return httpx.Response(200)
        self.asked += 1
        if self.status != 200:
            return httpx.Response(self.status, json={"error": "no"})
        headers = {"content-type": "text/event-stream"}
        return httpx.Response(200, headers=headers, content=self.body)

    def endpoint(self, **options: Any) -> Endpoint:
        transport = httpx.MockTransport(self.handle)
        llm = OpenAIChatLLM(f"http://{self.name}/v1", "m", transport=transport, **options)
        return Endpoint(llm, Circuit(failures=1, clock=lambda: self.now))


def routed(*servers: Server, **options: Any) -> RoutedLLM:
    return RoutedLLM([server.endpoint(**options) for server in servers])


async def test_an_idle_server_is_preferred_to_a_busy_one() -> None:
    busy, idle = Server("a", running=9), Server("b")
    llm = routed(busy, idle)
    await asyncio.gather(*(endpoint.look() for endpoint in llm.endpoints))
    for _ in range(4):
        await collect(llm.stream(request()))
    assert (busy.asked, idle.asked) == (0, 4)


async def test_one_beginning_goes_to_one_server_until_it_is_clearly_busier() -> None:
    servers = [Server(name) for name in "abc"]
    llm = routed(*servers)
    homes: Counter[str] = Counter()
    for number in range(30):
        before = [server.asked for server in servers]
        for _ in range(2):
            await collect(llm.stream(request(affinity=f"conversation {number}")))
        grown = [s.asked - b for s, b in zip(servers, before, strict=True)]
        assert sorted(grown) == [0, 0, 2]
        homes[servers[grown.index(2)].name] += 1
    assert len(homes) == 3
    home = max(servers, key=lambda server: server.asked)
    home.running = 50
    await asyncio.gather(*(endpoint.look() for endpoint in llm.endpoints))
    before_asked = home.asked
    for number in range(30):
        await collect(llm.stream(request(affinity=f"conversation {number}")))
    assert home.asked == before_asked


@pytest.mark.parametrize(
    "wrong", [{"is_down": True}, {"status": 503}, {"status": 401}, {"body": b""}]
)
async def test_another_server_answers_before_the_first_word(wrong: dict[str, Any]) -> None:
    bad, good = Server("a"), Server("b", running=5)
    for name, value in wrong.items():
        setattr(bad, name, value)
    llm = routed(bad, good)
    await llm.endpoints[1].look()
    assert texts(await collect(llm.stream(request()))) == "Yes"
    assert good.asked == 1


async def test_nothing_is_said_twice_after_the_first_word() -> None:
    broken, good = Server("a"), Server("b", running=5)
    broken.body = sse(delta(content="Half"), done=False)
    llm = routed(broken, good)
    await llm.endpoints[1].look()
    async with aclosing(llm.stream(request())) as stream:
        assert await anext(stream) == TextDelta("Half")
        assert (await failure(stream)).code == "llm_lost"
    assert good.asked == 0


async def test_a_request_that_is_wrong_is_not_tried_elsewhere() -> None:
    servers = [Server("a"), Server("b")]
    for server in servers:
        server.status = 400
    error = await failure(routed(*servers).stream(request()))
    assert error.code == "llm_bad_request"
    assert sum(server.asked for server in servers) == 1


async def test_a_server_that_failed_is_left_alone_and_tried_later() -> None:
    only = Server("a")
    only.is_down = True
    llm = routed(only)
    first = await failure(llm.stream(request()))
    only.is_down = False
    again = await failure(llm.stream(request()))
    assert only.asked == 0
    assert first.code == again.code == "llm_unavailable"
    only.now += 60
    assert texts(await collect(llm.stream(request()))) == "Yes"


async def test_a_hanging_server_costs_its_limit_once() -> None:
    hung, good = Server("a"), Server("b", running=5)
    hung.is_hanging = True
    llm = routed(hung, good, first_token_timeout=0.2)
    await llm.endpoints[1].look()
    for _ in range(2):
        assert texts(await collect(llm.stream(request()))) == "Yes"
    assert hung.hung == 1
    await llm.aclose()


async def test_a_hung_server_is_found_by_looking(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("inference.endpoints.LOOK_SECONDS", 0.05)
    hung = Server("a")
    hung.is_hanging = True
    llm = routed(hung)
    endpoint = llm.endpoints[0]
    endpoint.gave_sign()
    assert not await endpoint.look()
    assert endpoint.circuit.is_closed  # it wrote a moment ago: slow, not dead
    monkeypatch.setattr("inference.endpoints.SIGN_SECONDS", 0.0)
    assert not await endpoint.look()
    assert endpoint.circuit.is_open


async def test_the_smallest_window_counts_and_the_check_names_who_is_missing() -> None:
    small, large = Server("a", window=4096), Server("b", window=131072)
    llm = routed(small, large)
    assert await llm.context_window() == 4096
    small.is_down = True
    health = await llm.check()
    assert (health.ok, health.degraded) == (True, True)
    assert "1 of 2" in health.detail
    large.is_down = True
    assert not (await llm.check()).ok


async def test_leaving_a_stream_frees_the_server() -> None:
    server = Server("a")
    llm = routed(server)
    async with aclosing(llm.stream(request())) as stream:
        await anext(stream)
        assert llm.endpoints[0].in_flight == 1
    assert llm.endpoints[0].in_flight == 0
