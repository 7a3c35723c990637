"""One model server as the router sees it: how loaded it is, and whether it may be asked at all."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

import httpx

from inference import metrics
from inference.llm import OpenAIChatLLM
from inference.types import EngineError

LOOK_SECONDS: Final = 2.0
# A server that wrote something this lately is alive, however slowly it answers /health.
SIGN_SECONDS: Final = 5.0
# What makes a server suspect; anything else says that it works and does not like the request.
BROKEN: Final = frozenset({"llm_unavailable", "llm_timeout", "llm_lost"})
# Nobody mends a wrong key or a missing model within seconds.
_MISCONFIGURED: Final = frozenset({"llm_unauthorized", "llm_model_not_found"})
_METRIC: Final = re.compile(
    r"^vllm:(num_requests_running|num_requests_waiting|kv_cache_usage_perc|gpu_cache_usage_perc)"
    r"(?:\{[^}\n]*\})?\s+([0-9.eE+-]+)\s*$",
    re.MULTILINE,
)


@dataclass(frozen=True, slots=True)
class Load:
    """What a server says of itself; ``kv_usage`` from 0 to 1. Several engines are added up."""

    running: float = 0.0
    waiting: float = 0.0
    kv_usage: float = 0.0


def parse_load(text: str) -> Load | None:
    """From vLLM's ``/metrics``, whatever of the names it has; None when it has none of them."""
    running = waiting = kv_usage = 0.0
    found = False
    for name, value in _METRIC.findall(text):
        found = True
        number = float(value)
        if name == "num_requests_running":
            running += number
        elif name == "num_requests_waiting":
            waiting += number
        else:
            kv_usage = max(kv_usage, number)
    return Load(running, waiting, kv_usage) if found else None


class Circuit:
    """Closed; open for a while after ``failures`` in a row; then half open for one trial.

    Each trial that fails doubles the pause, up to ``longest`` seconds.
    """

    def __init__(
        self,
        *,
        failures: int = 3,
        pause: float = 2.0,
        longest: float = 30.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._limit = failures
        self._first_pause = self._pause = pause
        self._longest = longest
        self._clock = clock
        self._count = 0
        self._open_until: float | None = None
        self._is_tried = False

    @property
    def is_open(self) -> bool:
        """Whether nobody may pass: neither closed nor due for a trial."""
        if self._open_until is None:
            return False
        return self._is_tried or self._clock() < self._open_until

    @property
    def is_closed(self) -> bool:
        return self._open_until is None

    def begin(self) -> None:
        """Somebody passes. In a half-open circuit that is the trial."""
        self._is_tried = self._open_until is not None

    def left(self) -> None:
        """Who passed went away before the outcome was known."""
        self._is_tried = False

    def succeeded(self) -> None:
        self._count, self._open_until, self._is_tried = 0, None, False
        self._pause = self._first_pause

    def failed(self, *, at_once: bool = False) -> None:
        self._count += 1
        if self._open_until is not None:
            if not self._is_tried:
                return  # a request from before it opened: known already
            self._pause = min(2 * self._pause, self._longest)
        elif not (at_once or self._count >= self._limit):
            return
        self._open_until = self._clock() + self._pause
        self._is_tried = False


class Endpoint:
    """A server with its client, its circuit and what was last seen of its load."""

    def __init__(self, llm: OpenAIChatLLM, circuit: Circuit | None = None) -> None:
        self.llm = llm
        self.circuit = circuit or Circuit()
        address = urlsplit(llm.base_url)
        self.name = address.netloc.rpartition("@")[2]
        self._root = f"{address.scheme}://{address.netloc}" + re.sub(r"/v\d+/?$", "", address.path)
        self.last_error: EngineError | None = None
        self._load: Load | None = None
        self._in_flight = 0
        self._in_flight_when_seen = 0
        self._sign_at = 0.0
        self._full_until = 0.0

    @property
    def load(self) -> float:
        """Requests it is expected to have, waiting ones weighing more; comparable between servers.

        Other processes' requests are in what the server said; ours since then are added.
        """
        if self._load is None:
            requests = float(self._in_flight)
        else:
            ours = max(0, self._in_flight - self._in_flight_when_seen)
            requests = self._load.running + 2 * self._load.waiting + ours
            # Near a full cache a server preempts what it runs: as bad as a queue.
            requests += 8 * max(0.0, self._load.kv_usage - 0.9) * 10
        return requests + (1000.0 if time.monotonic() < self._full_until else 0.0)

    @property
    def in_flight(self) -> int:
        return self._in_flight

    @contextmanager
    def in_use(self) -> Iterator[None]:
        self._in_flight += 1
        self.circuit.begin()
        try:
            yield
        finally:
            self._in_flight -= 1

    def gave_sign(self) -> None:
        self._sign_at = time.monotonic()

    def succeeded(self) -> None:
        self.last_error = None
        self.circuit.succeeded()
        self._report()

    def failed(self, error: EngineError) -> None:
        if error.code in BROKEN or error.code in _MISCONFIGURED:
            self.last_error = error
            self.circuit.failed(at_once=error.code in _MISCONFIGURED)
        elif error.code == "llm_overloaded":
            self._full_until = time.monotonic() + 2.0
            self.circuit.left()
        else:
            self.circuit.succeeded()
        self._report()

    def _report(self) -> None:
        metrics.UP.labels(self.name).set(float(self.circuit.is_closed))

    async def look(self) -> bool:
        """Ask ``/health`` and ``/metrics``; opens the circuit of a server that does not answer."""
        client = self.llm.client()
        try:
            async with asyncio.timeout(LOOK_SECONDS):
                health = await client.get(f"{self._root}/health")
                said = await client.get(f"{self._root}/metrics")
        except (TimeoutError, httpx.HTTPError, httpx.InvalidURL):
            return self._looked_away()
        # Servers without the page answer 404, which is an answer.
        if health.status_code >= 500:
            return self._looked_away()
        self._load = parse_load(said.text) if said.status_code == httpx.codes.OK else None
        self._in_flight_when_seen = self._in_flight
        if self._load is not None:
            metrics.RUNNING.labels(self.name).set(self._load.running)
            metrics.WAITING.labels(self.name).set(self._load.waiting)
            metrics.KV_USAGE.labels(self.name).set(self._load.kv_usage)
        self._report()
        return True

    def _looked_away(self) -> bool:
        if time.monotonic() - self._sign_at > SIGN_SECONDS and self.circuit.is_closed:
            self.circuit.failed(at_once=True)
        self._report()
        return False
