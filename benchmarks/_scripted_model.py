"""A model server at a fixed pace for ``benchmarks.streaming``, which costs next to nothing.

    python -m benchmarks._scripted_model PORT

It reads the seconds to the first token, the tokens a second and their number out of the question,
as ``(first 0.05 rate 100 tokens 200)``; with ``at 123.4`` for ``first 0.05`` it begins at that
moment of the machine's monotonic clock. Every token is the moment it was sent, in tenths of a
millisecond of that clock, so that whoever reads it can tell the delay. They make sentences of
twenty; one sentence in five cites. Each stream ends its sentences at a place of its own.
"""

from __future__ import annotations

import asyncio
import itertools
import re
import sys
import time
from typing import cast

import uvloop

_SCRIPT = re.compile(rb"\((first|at) ([\d.]+) rate ([\d.]+) tokens (\d+)\)")
_HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: %s\r\ntransfer-encoding: chunked\r\n\r\n"
_TOKEN = (
    b'data: {"id":"chatcmpl-1","object":"chat.completion.chunk","created":1,"model":"scripted",'
    b'"choices":[{"index":0,"delta":{"content":"%s "},"logprobs":null,"finish_reason":null}]}\n\n'
)
_END = (
    b'data: {"id":"chatcmpl-1","object":"chat.completion.chunk","choices":[{"index":0,"delta":{},'
    b'"finish_reason":"stop"}]}\n\ndata: {"id":"chatcmpl-1","choices":[],"usage":'
    b'{"prompt_tokens":1,"completion_tokens":%d,"total_tokens":1}}\n\ndata: [DONE]\n\n'
)
_MODELS = b'{"object":"list","data":[{"id":"scripted","object":"model","max_model_len":32768}]}'


# Tokens of a sentence, and from one citation to the next.
_SENTENCE = 20
_PERIOD = 100
_places = itertools.count(0, 37)


def _chunk(body: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(body), body)


class _Connection(asyncio.Protocol):
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._request = b""

    def connection_lost(self, error: Exception | None) -> None:
        _running.discard(self)

    def data_received(self, data: bytes) -> None:
        self._request += data
        head, end, body = self._request.partition(b"\r\n\r\n")
        length = re.search(rb"(?i)content-length: (\d+)", head)
        if not end or len(body) < int(length[1] if length else 0):
            return
        self._request = b""
        if not head.startswith(b"POST"):
            json = b'{"active": %d}' % len(_running) if b"/state " in head else _MODELS
            self._transport.write(_HEAD % b"application/json" + _chunk(json) + b"0\r\n\r\n")
            return
        _running.add(self)
        kind, *numbers = (_SCRIPT.findall(body) or [(b"first", 0.05, 100, 200)])[-1]
        first, rate, tokens = map(float, numbers)
        if kind == b"at":
            first = max(0.0, first - time.monotonic())
        self._left, self._tokens, self._pause = int(tokens), int(tokens), 1 / rate
        self._place = next(_places) % _PERIOD
        self._transport.write(_HEAD % b"text/event-stream")
        self._loop = asyncio.get_running_loop()
        self._due = self._loop.time() + first
        self._loop.call_at(self._due, self._say)

    def _say(self) -> None:
        if self._transport.is_closing():
            return
        if not self._left:
            _running.discard(self)
            self._transport.write(_chunk(_END % self._tokens) + b"0\r\n\r\n")
            return
        self._left -= 1
        place = (self._left + self._place) % _PERIOD
        end = b" [1]." if not place else b"" if place % _SENTENCE else b"."
        self._transport.write(_chunk(_TOKEN % (b"%d%s" % (time.monotonic() * 10_000, end))))
        self._due += self._pause
        self._loop.call_at(self._due, self._say)


# Streams that are being sent; ``/state`` tells how many.
_running: set[_Connection] = set()


async def main(port: int) -> None:
    loop = asyncio.get_running_loop()
    server = await loop.create_server(_Connection, "127.0.0.1", port, backlog=1024)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(main(int(sys.argv[1])))
