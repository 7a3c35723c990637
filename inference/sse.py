"""Server-sent events from bytes, as the HTML standard reads them, as far as chat streams need."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

_LINE_END: Final = re.compile(rb"\r\n|\n|\r")
MAX_LINE_BYTES: Final = 4 * 1024 * 1024


class SSELineTooLongError(ValueError):
    """A line grew past ``MAX_LINE_BYTES``: not a chat stream."""


class SSEParser:
    """Feed chunks as they come; yields the data of each whole event.

    Lines are cut as bytes and decoded whole, so a character split over two chunks survives.
    Comments and fields other than ``data`` are ignored.
    """

    def __init__(self) -> None:
        self._pieces: list[bytes] = []
        self._size = 0
        self._data: list[str] = []
        self._after_cr = False

    def feed(self, chunk: bytes) -> Iterator[str]:
        if self._after_cr and chunk:
            self._after_cr = False
            if chunk.startswith(b"\n"):
                chunk = chunk[1:]
        self._after_cr = chunk.endswith(b"\r")
        at = 0
        for end in _LINE_END.finditer(chunk):
            self._pieces.append(chunk[at : end.start()])
            at = end.end()
            line = b"".join(self._pieces)
            self._pieces, self._size = [], 0
            yield from self._line(line)
        if rest := chunk[at:]:
            self._pieces.append(rest)
            self._size += len(rest)
            if self._size > MAX_LINE_BYTES:
                raise SSELineTooLongError(f"a line is longer than {MAX_LINE_BYTES} bytes")

    def close(self) -> Iterator[str]:
        """The last event when the stream ended without its blank line."""
        if self._pieces:
            yield from self._line(b"".join(self._pieces))
            self._pieces, self._size = [], 0
        yield from self._line(b"")

    def _line(self, line: bytes) -> Iterator[str]:
        if not line:
            if self._data:
                event, self._data = "\n".join(self._data), []
                yield event
            return
        name, _, value = line.decode("utf-8", errors="replace").partition(":")
        if name == "data":
            self._data.append(value.removeprefix(" "))
