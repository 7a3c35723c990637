"""Server-sent events from bytes, as the HTML standard reads them, as far as chat streams need."""

from __future__ import annotations

import re
from typing import Final

_LINE_END: Final = re.compile(rb"\r\n|\n|\r")
MAX_LINE_BYTES: Final = 4 * 1024 * 1024


class SSELineTooLongError(ValueError):
    """A line grew past ``MAX_LINE_BYTES``: not a chat stream."""


class SSEParser:
    """Feed chunks as they come, get the data of each whole event.

    Lines are cut as bytes and decoded whole, so a character split over two chunks survives.
    Comments and fields other than ``data`` are ignored.
    """

    def __init__(self) -> None:
        self._pieces: list[bytes] = []
        self._size = 0
        self._data: list[str] = []
        self._after_cr = False

    def feed(self, chunk: bytes) -> list[str]:
        """The data of each event that ends in ``chunk``. Raises SSELineTooLongError."""
        if self._after_cr and chunk:
            self._after_cr = False
            if chunk.startswith(b"\n"):
                chunk = chunk[1:]
        self._after_cr = chunk.endswith(b"\r")
        *lines, rest = chunk.split(b"\n") if b"\r" not in chunk else _LINE_END.split(chunk)
        if lines and self._pieces:
            lines[0] = b"".join((*self._pieces, lines[0]))
            self._pieces, self._size = [], 0
        events: list[str] = []
        for line in lines:
            self._read(line, events)
        if rest:
            self._pieces.append(rest)
            self._size += len(rest)
            if self._size > MAX_LINE_BYTES:
                raise SSELineTooLongError(f"a line is longer than {MAX_LINE_BYTES} bytes")
        return events

    def close(self) -> list[str]:
        """The last event when the stream ended without its blank line."""
        events: list[str] = []
        if self._pieces:
            self._read(b"".join(self._pieces), events)
            self._pieces, self._size = [], 0
        self._read(b"", events)
        return events

    def _read(self, line: bytes, events: list[str]) -> None:
        if not line:
            if self._data:
                events.append("\n".join(self._data))
                self._data = []
            return
        if line.startswith(b"data: "):  # as every server writes it
            self._data.append(line[6:].decode("utf-8", errors="replace"))
        elif line.startswith(b"data"):
            name, _, value = line.decode("utf-8", errors="replace").partition(":")
            if name == "data":
                self._data.append(value.removeprefix(" "))
