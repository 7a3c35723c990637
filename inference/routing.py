"""Several model servers as one: the least loaded answers, and another one when it cannot."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import time
from collections.abc import AsyncGenerator, Coroutine, Sequence
from contextlib import aclosing
from typing import Any, Final

from inference import llm_errors, metrics
from inference.endpoints import BROKEN, Endpoint
from inference.types import (
    EngineError,
    EngineHealth,
    Finished,
    GenerationRequest,
    LLMEvent,
    TextDelta,
)

logger = logging.getLogger(__name__)

# Another server may do what one refused for these; the rest is wrong with the request itself.
_ELSEWHERE: Final = BROKEN | {"llm_overloaded", "llm_unauthorized", "llm_model_not_found"}
# How much more loaded than the idlest the server may be that has a conversation's prefix cached.
_AFFINITY_FACTOR: Final = 1.25
_AFFINITY_SLACK: Final = 4.0
LOOK_EVERY_SECONDS: Final = 5.0


class RoutedLLM:
    """The LLM Protocol over one or more servers of the same model.

    A request goes to the server that its ``affinity`` points to (rendezvous hashing, so that a
    server that comes or goes moves only its own conversations), unless that one is clearly busier
    than the idlest. Until the first visible word it moves to another server when one fails; a
    server that fails repeatedly, or hangs, is left alone for a while and tried with one request.
    Load and health are looked up in the background while there is traffic, in each process.
    """

    is_language_model = True

    def __init__(
        self, endpoints: Sequence[Endpoint], *, look_every: float = LOOK_EVERY_SECONDS
    ) -> None:
        if not endpoints:
            raise ValueError("a router needs at least one server")
        self.endpoints = tuple(endpoints)
        self._look_every = look_every
        self._looked_at = 0.0
        self._looking: set[asyncio.Task[bool]] = set()

    @property
    def model(self) -> str:
        return next((e.llm.model for e in self.endpoints if e.llm.model), "")

    async def context_window(self) -> int:
        """The smallest among the servers that may be asked: a request may end up at any."""
        usable = [e for e in self.endpoints if not e.circuit.is_open] or list(self.endpoints)
        return min(await asyncio.gather(*(e.llm.context_window() for e in usable)))

    async def check(self) -> EngineHealth:
        """Fine while one server answers; the detail names each that does not."""
        checks = await asyncio.gather(*(e.llm.check() for e in self.endpoints))
        if len(checks) == 1:
            return checks[0]
        fine = [check for check in checks if check.ok]
        words = "; ".join(
            f"{e.name}: {check.detail}" for e, check in zip(self.endpoints, checks, strict=True)
        )
        return EngineHealth(
            ok=bool(fine),
            detail=f"{len(fine)} of {len(checks)} servers answer. {words}",
            model=fine[0].model if fine else self.model,
            degraded=0 < len(fine) < len(checks),
        )

    async def aclose(self) -> None:
        """Close the connections of this event loop and end its look-ups."""
        loop = asyncio.get_running_loop()
        looking = [task for task in self._looking if task.get_loop() is loop]
        for task in looking:
            task.cancel()
        await asyncio.gather(*looking, return_exceptions=True)
        for endpoint in self.endpoints:
            await endpoint.llm.aclose()

    async def stream(self, request: GenerationRequest) -> AsyncGenerator[LLMEvent, None]:
        """Events until Finished, see the Protocol for errors."""
        self._look_in_background()
        tried: list[Endpoint] = []
        while True:
            endpoint = await self._choose(request, tried)
            tried.append(endpoint)
            is_shown = False
            try:
                async with aclosing(self._from(endpoint, request)) as events:
                    async for event in events:
                        is_shown = is_shown or isinstance(event, TextDelta)
                        yield event
                return
            except EngineError as error:
                if error.code in BROKEN:
                    self._in_background(endpoint.look())
                elif error.code not in _ELSEWHERE:
                    raise
                if is_shown or not self._others(tried):
                    raise
                metrics.FAILOVERS.inc()
                logger.warning("%s failed with %s, asking another", endpoint.name, error.code)

    async def _from(
        self, endpoint: Endpoint, request: GenerationRequest
    ) -> AsyncGenerator[LLMEvent, None]:
        """The events of one server; tells its circuit and the metrics how it went."""
        began, has_started, outcome = time.monotonic(), False, "left"
        with endpoint.in_use():
            try:
                async with aclosing(endpoint.llm.stream(request)) as events:
                    async for event in events:
                        endpoint.gave_sign()
                        if not has_started:
                            has_started = True
                            endpoint.succeeded()
                            metrics.FIRST_TOKEN.labels(endpoint.name).observe(
                                time.monotonic() - began
                            )
                        if isinstance(event, Finished):
                            outcome = "ok"
                            metrics.TOKENS.labels("prompt").inc(event.usage.prompt_tokens)
                            metrics.TOKENS.labels("completion").inc(event.usage.completion_tokens)
                        yield event
            except EngineError as error:
                outcome = error.code
                endpoint.failed(error)
                raise
            finally:
                if outcome == "left" and not has_started:
                    endpoint.circuit.left()
                metrics.REQUESTS.labels(endpoint.name, outcome).inc()

    def _others(self, tried: Sequence[Endpoint]) -> list[Endpoint]:
        return [e for e in self.endpoints if e not in tried and not e.circuit.is_open]

    async def _choose(self, request: GenerationRequest, tried: Sequence[Endpoint]) -> Endpoint:
        """Raises EngineError when no server may be asked."""
        usable = self._others(tried)
        closed = [e for e in usable if e.circuit.is_closed]
        for due in [e for e in usable if not e.circuit.is_closed]:
            # A look costs no reader anything; with others at hand the trial is not waited for.
            if closed:
                self._in_background(_try(due))
            elif await _try(due):
                return due
        if closed:
            return _preferred(closed, request.affinity)
        known = [e.last_error for e in self.endpoints if e.last_error is not None]
        # The circuit is open: the words of what opened it say what to do.
        raise known[0] if known else llm_errors.unavailable(self.endpoints[0].llm.base_url)

    def _look_in_background(self) -> None:
        if time.monotonic() - self._looked_at >= self._look_every:
            self._looked_at = time.monotonic()
            for endpoint in self.endpoints:
                self._in_background(endpoint.look())

    def _in_background(self, looking: Coroutine[Any, Any, bool]) -> None:
        task = asyncio.create_task(looking)
        # The loop holds tasks weakly.
        self._looking.add(task)
        task.add_done_callback(self._looking.discard)


async def _try(endpoint: Endpoint) -> bool:
    """The trial of a half-open circuit, without a reader: does the server list its models?"""
    with endpoint.in_use():
        is_well = await endpoint.look() and (await endpoint.llm.check()).ok
        if is_well:
            endpoint.succeeded()
        else:
            endpoint.failed(llm_errors.unavailable(endpoint.llm.base_url))
    return is_well


def _preferred(endpoints: Sequence[Endpoint], affinity: str) -> Endpoint:
    idlest = min(endpoints, key=lambda e: (e.load, e.name))
    if not affinity:
        return idlest
    home = max(endpoints, key=lambda e: hashlib.sha256(f"{affinity} {e.name}".encode()).digest())
    return home if home.load <= _AFFINITY_FACTOR * idlest.load + _AFFINITY_SLACK else idlest
