"""The language model: streamed chat completions from an OpenAI-compatible server (vLLM)."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncGenerator
from dataclasses import dataclass, field, replace
from typing import Any, Final

import httpx
import orjson

from inference import llm_errors, metrics
from inference.connections import Body, Connections
from inference.harmony import HarmonyFilter
from inference.sse import SSELineTooLongError, SSEParser
from inference.types import (
    Effort,
    EngineError,
    EngineHealth,
    Finished,
    GenerationRequest,
    LLMEvent,
    TextDelta,
    Thinking,
    Usage,
)

logger = logging.getLogger(__name__)

DEFAULT_CONTEXT_WINDOW: Final = 8192
_CHECK_SECONDS: Final = 2.0
_UNKNOWN_SECONDS: Final = 10.0
_DONE: Final = "[DONE]"
_LOWER: Final[dict[Effort | None, Effort]] = {
    None: "low",
    "high": "medium",
    "medium": "low",
    "low": "low",
}


@dataclass(frozen=True, slots=True)
class ServedModel:
    """One row of ``/models``. ``window`` in tokens, None where the server does not say."""

    id: str
    window: int | None
    owner: str = ""


@dataclass(slots=True)
class _Attempt:
    """What one upstream stream has shown so far.

    ``written`` and ``thinks`` are what came since ``take`` was called.
    """

    filter: HarmonyFilter = field(default_factory=HarmonyFilter)
    usage: Usage = field(default_factory=Usage)
    finish_reason: str | None = None
    said_something: bool = False
    thought: bool = False
    done: bool = False
    thinks: bool = False
    written: list[str] = field(default_factory=list)

    def take(self) -> list[LLMEvent]:
        """What is new, as few events as can be: a sign of thinking, a text."""
        events: list[LLMEvent] = []
        text = ""
        if self.written:
            text = self.filter.feed("".join(self.written))
            self.written.clear()
            # Markup taken out is progress too, or hidden reasoning would look like a hang.
            self.thinks = self.thinks or not text
        if self.thinks:
            self.thinks = False
            events.append(Thinking())
        if text:
            self.said_something = self.said_something or not text.isspace()
            events.append(TextDelta(text))
        return events


class OpenAIChatLLM:
    """The LLM of the house, see the Protocol for errors.

    Times in seconds: ``first_token_timeout`` runs from sending the request to the first token,
    reasoning included; ``inter_token_timeout`` between tokens. An empty ``model`` means the first
    one the server lists. Where many streams have something, a token is held for up to ``coalesce``
    seconds and a tick (the first one is not), so that those of one stream cost one event together.
    ``send_cache_salt`` None: where ``/models`` says that the server is vLLM. ``seed`` is for
    evaluation runs. ``stripped_markup`` counts harmony markers taken out since start.
    """

    is_language_model = True

    def __init__(
        self,
        base_url: str,
        model: str = "",
        api_key: str | None = None,
        *,
        connect_timeout: float = 5.0,
        first_token_timeout: float = 30.0,
        inter_token_timeout: float = 15.0,
        send_cache_salt: bool | None = None,
        seed: int | None = None,
        coalesce: float = 0.0,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        self._configured_model = model
        self._first_token_timeout = first_token_timeout
        self._inter_token_timeout = inter_token_timeout
        self._send_cache_salt = send_cache_salt
        self._seed = seed
        self._coalesce = coalesce
        # Kept while it is looked up again: whether it is vLLM does not change in between.
        self._served: ServedModel | None = None
        self._is_stale = True
        self._unknown_until = 0.0
        self.stripped_markup = 0
        self._connections = Connections(
            base_url,
            api_key=api_key,
            # Reading is bounded by token, not by packet, in _chunks.
            timeout=httpx.Timeout(connect_timeout, read=None),
            async_transport=transport,
        )

    @property
    def base_url(self) -> str:
        return self._connections.base_url

    def client(self) -> httpx.AsyncClient:
        """The connections of this event loop, for the server's other pages."""
        return self._connections.async_client()

    @property
    def model(self) -> str:
        """The configured name, else the one found at the server, else empty."""
        return self._configured_model or (self._served.id if self._served else "")

    async def aclose(self) -> None:
        """Close the connections of this event loop."""
        await self._connections.aclose()

    async def context_window(self) -> int:
        """From ``/models``, kept until a request fails; a cautious default where it is missing.

        A server that does not say is not asked again for a while: readers wait meanwhile.
        """
        if self._is_stale and time.monotonic() >= self._unknown_until:
            try:
                await self._served_model()
            except EngineError as error:
                self._unknown_until = time.monotonic() + _UNKNOWN_SECONDS
                logger.warning(
                    "context window unknown (%s), assuming %d", error.code, DEFAULT_CONTEXT_WINDOW
                )
        return (self._served.window if self._served else None) or DEFAULT_CONTEXT_WINDOW

    async def check(self) -> EngineHealth:
        """One short request for ``/models``; refreshes what is known of the served model."""
        self._is_stale = True
        try:
            async with asyncio.timeout(_CHECK_SECONDS):
                served = await self._served_model()
        except EngineError as error:
            return EngineHealth(ok=False, detail=error.detail, model=self.model)
        except TimeoutError:
            detail = llm_errors.unavailable(self._connections.base_url).detail
            return EngineHealth(ok=False, detail=detail, model=self.model)
        window = f", {served.window} tokens of context" if served.window else ""
        return EngineHealth(ok=True, detail=f"Serving {served.id}{window}.", model=served.id)

    async def stream(self, request: GenerationRequest) -> AsyncGenerator[LLMEvent, None]:
        """Events until Finished. When thinking ate the budget, tries once more with less of it."""
        model = self._configured_model or (await self._served_model()).id
        retried = False
        while True:
            attempt = _Attempt()
            try:
                events = self._attempt(request, model, attempt)
                async with contextlib.aclosing(events):
                    async for event in events:
                        yield event
            except EngineError:
                self._is_stale, self._unknown_until = True, 0.0
                raise
            finally:
                self.stripped_markup += attempt.filter.stripped
                metrics.MARKUP.inc(attempt.filter.stripped)
            if attempt.said_something:
                cut = attempt.finish_reason == "length"
                yield Finished("length" if cut else "stop", attempt.usage)
                return
            if retried or not (attempt.thought or attempt.usage.completion_tokens):
                raise llm_errors.empty()
            retried = True
            metrics.EMPTY.inc()
            logger.info("empty answer (%s), trying with lower effort", attempt.finish_reason)
            request = self._with_more_room(request)

    def _with_more_room(self, request: GenerationRequest) -> GenerationRequest:
        limit = (self._served.window if self._served else None) or DEFAULT_CONTEXT_WINDOW
        more = max(request.max_tokens, min(2 * request.max_tokens, limit - 1))
        return replace(request, effort=_LOWER[request.effort], max_tokens=more)

    def _knows_cache_salt(self) -> bool:
        if self._send_cache_salt is None:
            return self._served is not None and self._served.owner == "vllm"
        return self._send_cache_salt

    def _body(self, request: GenerationRequest, model: str) -> dict[str, Any]:
        """Everything that is ever sent; nothing of a caller's dictionary reaches the server."""
        body: dict[str, Any] = {
            "model": model,
            "messages": [{"role": m.role, "content": m.content} for m in request.messages],
            "stream": True,
            "stream_options": {"include_usage": True},
            "max_tokens": request.max_tokens,
        }
        if request.temperature is not None:
            body["temperature"] = request.temperature
        if request.effort is not None:
            body["reasoning_effort"] = request.effort
        if request.cache_salt and self._knows_cache_salt():
            body["cache_salt"] = request.cache_salt
        if self._seed is not None:
            body["seed"] = self._seed
        return body

    async def _attempt(
        self, request: GenerationRequest, model: str, attempt: _Attempt
    ) -> AsyncGenerator[LLMEvent, None]:
        """One upstream request. Leaving it at any point closes the response."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._first_token_timeout
        started = False
        response = await self._send(self._body(request, model), deadline)
        async with contextlib.aclosing(response):
            await self._raise_for_refusal(response, model)
            parser = SSEParser()
            body = Body(response)
            while not attempt.done:
                chunk = await self._chunk(body, deadline, started=started)
                for data in _parsed(parser, chunk):
                    self._note(data, attempt, model)
                said = attempt.take()
                for event in said:
                    yield event
                if chunk is None:
                    break
                if said:
                    # From now, not from the chunk's arrival: a slow reader is not a slow model.
                    started = True
                    deadline = loop.time() + self._inter_token_timeout
            if not attempt.done and attempt.finish_reason is None:
                raise llm_errors.lost()
            if rest := attempt.filter.close():
                attempt.said_something = attempt.said_something or bool(rest.strip())
                yield TextDelta(rest)

    async def _send(self, body: dict[str, Any], deadline: float) -> httpx.Response:
        """The response with its headers read and its body still to come."""
        client = self._connections.async_client()
        try:
            async with asyncio.timeout_at(deadline):
                try:
                    return await client.send(_post(client, body), stream=True)
                except (httpx.RemoteProtocolError, httpx.ReadError, httpx.WriteError):
                    # An idle connection may be closed by the server while we pick it up.
                    return await client.send(_post(client, body), stream=True)
        except TimeoutError:
            raise llm_errors.timed_out(self._first_token_timeout, started=False) from None
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise llm_errors.unavailable(self._connections.base_url) from error

    async def _raise_for_refusal(self, response: httpx.Response, model: str) -> None:
        base_url = self._connections.base_url
        content_type = response.headers.get("Content-Type", "")
        if response.status_code == httpx.codes.OK and "json" not in content_type:
            return
        try:
            async with asyncio.timeout(_CHECK_SECONDS):
                message = llm_errors.server_message(await response.aread())
        except (TimeoutError, httpx.HTTPError):
            message = ""
        if response.status_code == httpx.codes.OK:
            raise llm_errors.bad_request(200, message or "it answered without streaming")
        raise llm_errors.refused(response.status_code, message, model=model, base_url=base_url)

    async def _chunk(self, body: Body, deadline: float, *, started: bool) -> bytes | None:
        """The next piece of the body, None at its end."""
        try:
            return await body.read(deadline, hold=self._coalesce if started else 0.0)
        except TimeoutError:
            seconds = self._inter_token_timeout if started else self._first_token_timeout
            raise llm_errors.timed_out(seconds, started=started) from None
        except httpx.HTTPError as error:
            raise llm_errors.lost() from error

    def _note(self, data: str, attempt: _Attempt, model: str) -> None:
        """Updates the attempt with what one SSE event says."""
        if data.strip() == _DONE:
            attempt.done = True
            return
        try:
            payload = orjson.loads(data)
        except ValueError:
            raise llm_errors.lost() from None
        if not isinstance(payload, dict):
            raise llm_errors.lost()
        if payload.get("error"):
            raise llm_errors.in_stream(payload, model=model, base_url=self._connections.base_url)
        if isinstance(usage := payload.get("usage"), dict):
            attempt.usage = Usage(
                int(usage.get("prompt_tokens") or 0), int(usage.get("completion_tokens") or 0)
            )
        for choice in payload.get("choices") or ():
            _note_choice(choice, attempt)

    async def _served_model(self) -> ServedModel:
        """The configured model's row of ``/models``, or the first row; cached."""
        if self._served is not None and not self._is_stale:
            return self._served
        client = self._connections.async_client()
        base_url = self._connections.base_url
        try:
            async with asyncio.timeout(_CHECK_SECONDS):
                response = await client.get("/models")
        except (TimeoutError, httpx.HTTPError, httpx.InvalidURL) as error:
            raise llm_errors.unavailable(base_url) from error
        if response.status_code != httpx.codes.OK:
            raise llm_errors.refused(
                response.status_code,
                llm_errors.server_message(response.content),
                model=self._configured_model,
                base_url=base_url,
            )
        rows = _models(response)
        wanted = self._configured_model
        row = next((row for row in rows if row.id == wanted), None) if wanted else None
        if row is None:
            if wanted or not rows:
                names = ", ".join(row.id for row in rows)[:300] or "no model at all"
                raise llm_errors.model_not_found(wanted, f"it serves {names}")
            row = rows[0]
        self._served, self._is_stale = row, False
        return row


def _post(client: httpx.AsyncClient, body: dict[str, Any]) -> httpx.Request:
    return client.build_request("POST", "/chat/completions", json=body)


def _parsed(parser: SSEParser, chunk: bytes | None) -> list[str]:
    try:
        return parser.close() if chunk is None else parser.feed(chunk)
    except SSELineTooLongError as error:
        raise llm_errors.lost() from error


def _note_choice(choice: Any, attempt: _Attempt) -> None:
    """Text and signs of thinking in one choice. Reasoning is dropped here and goes no further."""
    delta = choice.get("delta") if isinstance(choice, dict) else None
    if not isinstance(delta, dict):
        return
    if delta.get("reasoning") or delta.get("reasoning_content"):
        attempt.thought = attempt.thinks = True
    content = delta.get("content")
    if isinstance(content, str) and content:
        attempt.written.append(content)
    reason = choice.get("finish_reason")
    if reason in {"abort", "error"}:
        raise llm_errors.lost()
    if reason:
        attempt.finish_reason = str(reason)


def _models(response: httpx.Response) -> list[ServedModel]:
    try:
        rows = response.json()["data"]
        return [
            ServedModel(str(row["id"]), _window(row), str(row.get("owned_by") or ""))
            for row in rows
            if isinstance(row, dict)
        ]
    except (KeyError, TypeError, ValueError):
        return []


def _window(row: dict[str, Any]) -> int | None:
    """vLLM says max_model_len, others context_length or context_window, llama.cpp meta.n_ctx."""
    meta = row.get("meta")
    nested = meta if isinstance(meta, dict) else {}
    for value in (
        row.get("max_model_len"),
        row.get("context_length"),
        row.get("context_window"),
        nested.get("n_ctx"),
    ):
        if isinstance(value, int) and value > 0:
            return value
    return None
