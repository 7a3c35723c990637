"""Many readers at once for ``benchmarks.streaming``, in a process of their own.

Reads a job as JSON from standard input: ``urls`` and ``bodies`` (one for each stream), ``headers``,
``follow`` (an address with ``{}`` for the id of the answer, or "") and ``ramp`` (seconds over which
they begin). Prints a JSON list with, for each stream, the status, when its request was sent and all
pieces as ``[milliseconds, text]``, on the machine's monotonic clock.
"""

from __future__ import annotations

import asyncio
import json
import re
import sys
import time
from typing import Any, cast
from urllib.parse import urlsplit

import uvloop


class _Stream(asyncio.Protocol):
    """Keeps what comes and when; it is looked at afterwards, so that reading costs little."""

    def __init__(self, request: bytes) -> None:
        self._request = request
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.pieces: list[tuple[float, bytes]] = []
        self.sent = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)
        self.sent = time.monotonic() * 1000
        self.transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        self.pieces.append((time.monotonic() * 1000, data))
        if data.endswith(b"0\r\n\r\n"):
            self.transport.close()

    def connection_lost(self, error: Exception | None) -> None:
        if not self.done.done():
            self.done.set_result(None)


async def _ask(url: str, headers: dict[str, str], body: Any) -> _Stream:
    parts = urlsplit(url)
    method, content = ("GET", b"") if body is None else ("POST", json.dumps(body).encode())
    lines = [f"{method} {parts.path} HTTP/1.1", f"Host: {parts.netloc}", "Connection: close"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    lines += ["Content-Type: application/json", f"Content-Length: {len(content)}", "", ""]
    request = "\r\n".join(lines).encode() + content
    stream = _Stream(request)
    loop, host, port = asyncio.get_running_loop(), parts.hostname or "", parts.port or 80
    await loop.create_connection(lambda: stream, host, port)
    async with asyncio.timeout(300):
        await stream.done
    return stream


async def _read(
    url: str, follow: str, headers: dict[str, str], body: Any, wait: float
) -> dict[str, Any]:
    """One answer; with ``follow`` the first request names it and a second one reads its events."""
    await asyncio.sleep(wait)
    sent = time.monotonic() * 1000
    try:
        stream = await _ask(url, headers, body)
        asked = _ANSWER.search(b"".join(data for _, data in stream.pieces)) if follow else None
        if asked:
            stream = await _ask(follow.format(asked[1].decode()), headers, None)
    except (OSError, TimeoutError) as error:
        return {"status": 0, "sent": sent, "pieces": [], "error": repr(error)}
    whole = b"".join(data for _, data in stream.pieces[:1])
    return {
        "status": int(whole[9:12] or 0),
        "sent": sent,
        "pieces": [[at, data.decode("utf-8", "replace")] for at, data in stream.pieces],
    }


_ANSWER = re.compile(rb'"answer":\s*{"id":\s*"([0-9a-f-]{36})"')


async def main() -> None:
    job = json.load(sys.stdin)
    targets = job["urls"]
    step = job["ramp"] / max(1, len(targets))
    results = await asyncio.gather(
        *(
            _read(url, job["follow"], job["headers"], body, i * step)
            for i, (url, body) in enumerate(zip(targets, job["bodies"], strict=True))
        )
    )
    json.dump(results, sys.stdout)


if __name__ == "__main__":
    uvloop.run(main())
