"""Server-sent events as a response that no proxy buffers and no cache keeps."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing

from django.http import StreamingHttpResponse


class _Events(StreamingHttpResponse):
    def __init__(self, frames: AsyncGenerator[str, None]) -> None:
        super().__init__(frames, content_type="text/event-stream; charset=utf-8")
        self._frames = frames

    async def __aiter__(self) -> AsyncGenerator[bytes, None]:
        # Django's own goes through two generators, and looks the character set up for every piece.
        async with aclosing(self._frames):
            async for frame in self._frames:
                yield frame.encode()


def event_stream(frames: AsyncGenerator[str, None]) -> StreamingHttpResponse:
    """``frames`` are encoded events; closing the response closes their generator."""
    response = _Events(frames)
    response["Cache-Control"] = "no-store"
    response["X-Accel-Buffering"] = "no"
    response["X-Content-Type-Options"] = "nosniff"
    return response
