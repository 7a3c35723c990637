"""Server-sent events as a response that no proxy buffers and no cache keeps."""

from __future__ import annotations

from collections.abc import AsyncIterator

from django.http import StreamingHttpResponse


class _Events(StreamingHttpResponse):
    def make_bytes(self, value: object) -> bytes:
        # Django looks the character set up in the headers for every piece.
        return value.encode() if isinstance(value, str) else super().make_bytes(value)


def event_stream(frames: AsyncIterator[str]) -> StreamingHttpResponse:
    """``frames`` are encoded events; closing the response closes their generator."""
    response = _Events(frames, content_type="text/event-stream; charset=utf-8")
    response["Cache-Control"] = "no-store"
    response["X-Accel-Buffering"] = "no"
    response["X-Content-Type-Options"] = "nosniff"
    return response
