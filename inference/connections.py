"""HTTP clients that survive forks and event loops.

An ``httpx`` client owns sockets that belong to the process and, when asynchronous, to the event
loop that opened them. The same engine object is used from an ASGI loop, from Celery children and
from tests with a loop each, so clients are kept per process and per loop instead of per engine.
"""

from __future__ import annotations

import asyncio
import os
import ssl
import threading
from collections import deque
from collections.abc import AsyncGenerator
from contextvars import Context
from dataclasses import dataclass
from typing import Final, cast

import aiohttp
import httpx
from httpx_aiohttp import AiohttpTransport
from httpx_aiohttp.transport import AiohttpResponseStream

# The extensions of a response with aiohttp's own, and with what its loop looks at together.
_RAW: Final = "aiohttp"
_TICKS: Final = "ticks"
# Streams that wait wake at these moments, many in one turn of the loop; it is what a token that
# comes just as the time is over has left to be among them.
_TICK_SECONDS: Final = 0.005
# How many of the streams that hold something back each tick lets go before their time is over: all
# while they are few. Seven thousand wakes a second are about as many as one process can do.
_EARLY: Final = 35
LIMITS: Final = httpx.Limits(max_connections=None, max_keepalive_connections=20)


def verify_context(base_url: str) -> ssl.SSLContext:
    """The operating system's trust store for https, and no certificates at all for plain http.

    Loading the store takes some 50 ms; a company's own certificate authority is in it.
    """
    if base_url.lower().startswith("https:"):
        return ssl.create_default_context()
    return ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)


def bearer(api_key: str | None) -> dict[str, str]:
    """The Authorization header, or none without a key."""
    return {"Authorization": f"Bearer {api_key}"} if api_key else {}


class StreamingTransport(AiohttpTransport):
    """httpx over aiohttp's parser: a piece of a stream costs a quarter of httpcore's time."""

    def __init__(self, verify: ssl.SSLContext) -> None:
        super().__init__(verify=verify, trust_env=False, client=self._session)
        self._ticks = _Ticks()
        self._open: AsyncGenerator[None, None] | None = None

    def _session(self) -> aiohttp.ClientSession:
        # Idle connections go before vLLM's own five seconds are over. No limit: admission has one.
        connector = aiohttp.TCPConnector(limit=0, ssl=self.ssl_context, keepalive_timeout=4)
        return aiohttp.ClientSession(connector=connector, cookie_jar=aiohttp.DummyCookieJar())

    async def _until_the_loop_ends(self) -> AsyncGenerator[None, None]:
        """A loop that ends closes its generators first: nobody else tells that it does."""
        try:
            yield
        finally:
            await self.aclose()

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        if self._open is None:
            self._open = self._until_the_loop_ends()
            await anext(self._open)
        try:
            response = await super().handle_async_request(request)
        except httpx.HTTPError as error:
            # The parent calls everything that is no refused connection a timeout.
            if isinstance(error.__cause__, aiohttp.ServerDisconnectedError | aiohttp.ClientOSError):
                if isinstance(error.__cause__, aiohttp.ClientConnectorError):
                    raise
                raise httpx.ReadError(str(error)) from error
            raise
        if "Content-Encoding" not in response.headers:
            stream = cast("AiohttpResponseStream", response.stream)
            response.extensions |= {_RAW: stream._aiohttp_response, _TICKS: self._ticks}
        return response


@dataclass(slots=True, eq=False)
class _Wait:
    """For more than ``taken`` bytes of ``content``, then for what comes within ``hold`` seconds.

    ``found`` is what came first: what breaks meanwhile does not take it along. ``due`` is when the
    wait is over then.
    """

    content: aiohttp.StreamReader
    taken: int
    hold: float
    deadline: float
    woken: asyncio.Future[None]
    found: bytes = b""
    due: float = 0.0

    def rest(self) -> bytes:
        """``found`` and what has come since. Raises what broke the content before."""
        if self.found and self.content.exception() is not None:
            return self.found
        return self.found + self.content.read_nowait()


def _next_tick(now: float) -> float:
    """A moment that rounding makes the present one would come again and again."""
    return ((now + _TICK_SECONDS / 10) // _TICK_SECONDS + 1) * _TICK_SECONDS


class _Ticks:
    """All streams of a loop that wait are looked at together.

    A timer for each of them, a wake for each token and a limit around each read cost a busy
    process more than the tokens themselves.
    """

    def __init__(self) -> None:
        self.waits: set[_Wait] = set()
        # To whom something came, the first first.
        self._held: deque[_Wait] = deque()
        self._timer: asyncio.TimerHandle | None = None

    def add(self, wait: _Wait) -> None:
        """To be woken when it is over, the content ends or breaks; TimeoutError at the deadline.

        Whoever waits takes it out of ``waits`` again.
        """
        self.waits.add(wait)
        if self._timer is None:
            self._arm()

    def _arm(self) -> None:
        loop = asyncio.get_running_loop()
        self._timer = loop.call_at(_next_tick(loop.time()), self._look, context=Context())

    def _look(self) -> None:
        self._timer = None
        now = asyncio.get_running_loop().time()
        came = []
        for wait in self.waits:
            if wait.woken.done():
                continue
            if wait.content.is_eof() or wait.content.exception() is not None:
                wait.woken.set_result(None)
            elif wait.content.total_bytes > wait.taken:
                wait.found = wait.content.read_nowait()
                # The tick nearest to then: one that comes a little early would else not count.
                wait.due = now + wait.hold - _TICK_SECONDS / 2
                came.append(wait)
            elif now >= wait.deadline:
                wait.woken.set_exception(TimeoutError())
        self.waits.difference_update(came)
        self._held.extend(came)
        self._wake(now)
        if self.waits or self._held:
            self._arm()

    def _wake(self, now: float) -> None:
        """Those whose time is over, and some early.

        Streams that once were late together would else be due together ever after, and the last of
        hundreds waits for all before it.
        """
        early = _EARLY
        while self._held and (early > 0 or now >= self._held[0].due):
            early -= 1
            wait = self._held.popleft()
            if not wait.woken.done():
                wait.woken.set_result(None)


class Body:
    """What comes of a streamed response, as much at a time as there is.

    Raises httpx.HTTPError, and TimeoutError at the deadline, a moment of the loop's clock.
    """

    def __init__(self, response: httpx.Response) -> None:
        self._raw: aiohttp.ClientResponse | None = response.extensions.get(_RAW)
        self._ticks: _Ticks | None = response.extensions.get(_TICKS)
        self._chunks = response.aiter_bytes()
        self._taken = 0

    async def read(self, deadline: float, *, hold: float = 0.0) -> bytes | None:
        """What has come; waits until there is something. None at the end.

        With ``hold`` also what comes within so many seconds and a tick after it, where many streams
        have something.
        """
        if self._raw is None or self._ticks is None:
            async with asyncio.timeout_at(deadline):
                return await anext(self._chunks, None)
        content = self._raw.content
        try:
            if hold:
                loop = asyncio.get_running_loop()
                if loop.time() >= deadline:  # what comes may be no token, again and again
                    raise TimeoutError
                woken = loop.create_future()
                wait = _Wait(content, self._taken, hold, deadline, woken)
                self._ticks.add(wait)
                try:
                    await woken
                finally:
                    self._ticks.waits.discard(wait)
                found = wait.rest()
            else:
                async with asyncio.timeout_at(deadline):
                    found = await content.readany()
        except TimeoutError:  # is an OSError
            raise
        except (aiohttp.ClientError, OSError) as error:
            raise httpx.ReadError(str(error)) from error
        self._taken = content.total_bytes
        return found or None


class Connections:
    """Lends the synchronous client of this process and the asynchronous client of this loop."""

    def __init__(
        self,
        base_url: str,
        *,
        api_key: str | None,
        timeout: httpx.Timeout,
        transport: httpx.BaseTransport | None = None,
        async_transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        self.base_url = base_url.rstrip("/")
        self._headers = bearer(api_key)
        self._timeout = timeout
        self._transport = transport
        self._async_transport = async_transport
        self._lock = threading.Lock()
        self._pid = os.getpid()
        self._client: httpx.Client | None = None
        self._per_loop: dict[asyncio.AbstractEventLoop, httpx.AsyncClient] = {}

    def _forget_after_fork(self) -> None:
        # Two processes reading from one socket would swap answers; the parent's are left to it.
        if self._pid != os.getpid():
            self._pid = os.getpid()
            self._client = None
            self._per_loop = {}

    def client(self) -> httpx.Client:
        with self._lock:
            self._forget_after_fork()
            if self._client is None:
                self._client = httpx.Client(
                    base_url=self.base_url,
                    headers=self._headers,
                    timeout=self._timeout,
                    limits=LIMITS,
                    transport=self._transport,
                    verify=verify_context(self.base_url),
                    trust_env=False,
                )
            return self._client

    def async_client(self) -> httpx.AsyncClient:
        """The client of the running loop."""
        loop = asyncio.get_running_loop()
        with self._lock:
            self._forget_after_fork()
            # A closed loop has closed its sockets; what is left of its client is memory.
            for other in [known for known in self._per_loop if known.is_closed()]:
                del self._per_loop[other]
            client = self._per_loop.get(loop)
            if client is None or client.is_closed:
                client = httpx.AsyncClient(
                    base_url=self.base_url,
                    headers=self._headers,
                    timeout=self._timeout,
                    transport=self._async_transport
                    or StreamingTransport(verify_context(self.base_url)),
                    trust_env=False,
                )
                self._per_loop[loop] = client
            return client

    async def aclose(self) -> None:
        """Close what this loop opened."""
        with self._lock:
            client = self._per_loop.pop(asyncio.get_running_loop(), None)
        if client is not None:
            await client.aclose()

    def close(self) -> None:
        with self._lock:
            client, self._client = self._client, None
        if client is not None:
            client.close()
