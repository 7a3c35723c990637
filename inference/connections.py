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
from math import ceil
from typing import Final, cast

import aiohttp
import httpx
from httpx_aiohttp import AiohttpTransport
from httpx_aiohttp.transport import AiohttpResponseStream

# The extension of a response with aiohttp's own.
_RAW: Final = "aiohttp"
# Streams that wait wake at these moments, many in one turn of the loop; it is what a token that
# comes just as the time is over has left to be among them.
_TICK_SECONDS: Final = 0.01
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

    def _session(self) -> aiohttp.ClientSession:
        # Idle connections go before vLLM's own five seconds are over. No limit: admission has one.
        connector = aiohttp.TCPConnector(limit=0, ssl=self.ssl_context, keepalive_timeout=4)
        return aiohttp.ClientSession(connector=connector, cookie_jar=aiohttp.DummyCookieJar())

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
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
            response.extensions[_RAW] = stream._aiohttp_response
        return response


class Body:
    """What comes of a streamed response, as much at a time as there is. Raises httpx.HTTPError."""

    def __init__(self, response: httpx.Response) -> None:
        self._raw: aiohttp.ClientResponse | None = response.extensions.get(_RAW)
        self._chunks = response.aiter_bytes()

    async def read(self) -> bytes | None:
        """What has come; waits until there is something. None at the end."""
        if self._raw is None:
            return await anext(self._chunks, None)
        try:
            return await self._raw.content.readany() or None
        except (aiohttp.ClientError, OSError) as error:
            raise httpx.ReadError(str(error)) from error

    async def during(self, seconds: float) -> bytes:
        """What comes within ``seconds`` and a tick.

        Empty where that cannot be told, or when it broke.
        """
        if self._raw is None or (connection := self._raw.connection) is None:
            return b""
        # One read and one parse for all of it: it waits in the socket.
        if (transport := connection.transport) is not None:
            transport.pause_reading()
        now = asyncio.get_running_loop().time()
        await asyncio.sleep(ceil((now + seconds) / _TICK_SECONDS) * _TICK_SECONDS - now)
        if transport is not None:
            transport.resume_reading()
        # The loop looks at the socket, then reads it.
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        try:
            return self._raw.content.read_nowait()
        except (aiohttp.ClientError, OSError):  # reading on says so
            return b""


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
