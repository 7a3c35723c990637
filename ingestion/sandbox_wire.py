"""What travels between worker, zygote and child: JSON and byte frames, never pickle.

A request goes to the zygote as one datagram with three descriptors: the document to read, the
pipe the child writes its frames to, and the pipe the zygote reports on. A frame is a kind byte, a
length of four bytes (big endian) and that many bytes.
"""

from __future__ import annotations

import json
import os
import socket
import struct
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from enum import IntEnum
from typing import Final

from ingestion.parsing_limits import Limits

MAX_REQUEST: Final = 16 << 10
_HEADER: Final = struct.Struct(">BI")
_STATUS: Final = struct.Struct(">BiQ")
_NAME_LENGTH: Final = struct.Struct(">H")


class FrameKind(IntEnum):
    """What a frame from the child holds."""

    PROGRESS = 1  # {"done", "total"}
    DOCUMENT = 2  # ingestion.parsing_json
    FAILURE = 3  # {"code", "parameters", "cause"}
    ATTACHMENT = 4  # length of the name (two bytes, big endian), the name in UTF-8, the bytes
    RECOGNISED = 5  # {"seconds"} spent recognising the text of one picture


class StatusKind(IntEnum):
    """What the zygote reports of a child."""

    STARTED = 1
    ENDED = 2  # with the wait status and the peak memory in bytes


class OversizedFrameError(Exception):
    """The child sent more than the limit on its output."""


@dataclass(frozen=True, slots=True)
class Request:
    """One document for a child to parse. ``directory`` is its private, empty working directory.

    ``attachments``: whether the worker wants the files inside the document.
    """

    media_type: str
    directory: str
    limits: Limits
    attachments: bool = False

    def encode(self) -> bytes:
        return json.dumps(
            {
                "media_type": self.media_type,
                "directory": self.directory,
                "limits": asdict(self.limits),
                "attachments": self.attachments,
            }
        ).encode()

    @classmethod
    def decode(cls, data: bytes) -> Request:
        raw = json.loads(data)
        return cls(raw["media_type"], raw["directory"], Limits(**raw["limits"]), raw["attachments"])


def send_request(control: socket.socket, request: Request, descriptors: list[int]) -> None:
    socket.send_fds(control, [request.encode()], descriptors)


def receive_request(control: socket.socket) -> tuple[Request, list[int]] | None:
    """The next request, or None when the worker has closed its end or is gone."""
    data, descriptors, _, _ = socket.recv_fds(control, MAX_REQUEST, 3)
    if not data:
        return None
    for descriptor in descriptors:
        os.set_inheritable(descriptor, False)
    return Request.decode(data), descriptors


def write_frame(descriptor: int, kind: FrameKind, payload: bytes) -> None:
    view = memoryview(_HEADER.pack(kind, len(payload)) + payload)
    while view:
        view = view[os.write(descriptor, view) :]


class FrameReader:
    """Puts frames together from the bytes of a pipe.

    At most ``limit`` bytes in all, and beside them ``attachment_limit`` bytes of attachments.
    """

    def __init__(self, limit: int, attachment_limit: int = 0) -> None:
        self._buffer = bytearray()
        self._left = limit
        self._attachments_left = attachment_limit
        self._paid = False  # whether the frame at the start of the buffer is counted

    def feed(self, data: bytes) -> Iterator[tuple[int, bytes]]:
        """Frames completed by ``data``; raises OversizedFrameError."""
        self._buffer += data
        while len(self._buffer) >= _HEADER.size:
            kind, length = _HEADER.unpack_from(self._buffer)
            if not self._paid:
                self._pay(kind, length)
            if len(self._buffer) < _HEADER.size + length:
                return
            self._paid = False
            payload = bytes(memoryview(self._buffer)[_HEADER.size : _HEADER.size + length])
            del self._buffer[: _HEADER.size + length]
            yield kind, payload

    def _pay(self, kind: int, length: int) -> None:
        self._left -= _HEADER.size
        if kind == FrameKind.ATTACHMENT:
            self._attachments_left -= length
        else:
            self._left -= length
        if min(self._left, self._attachments_left) < 0:
            raise OversizedFrameError
        self._paid = True


def write_attachment(descriptor: int, name: str, data: bytes) -> None:
    raw = name.encode()
    write_frame(descriptor, FrameKind.ATTACHMENT, _NAME_LENGTH.pack(len(raw)) + raw + data)


def split_attachment(payload: bytes) -> tuple[str, bytes]:
    """Name and bytes; raises ValueError when the frame is too short or the name is not UTF-8."""
    if len(payload) < _NAME_LENGTH.size:
        raise ValueError("short attachment frame")
    end = _NAME_LENGTH.size + _NAME_LENGTH.unpack_from(payload)[0]
    if len(payload) < end:
        raise ValueError("short attachment frame")
    return payload[_NAME_LENGTH.size : end].decode(), payload[end:]


STATUS_SIZE: Final = _STATUS.size


def encode_status(kind: StatusKind, wait_status: int = 0, peak_bytes: int = 0) -> bytes:
    """Shorter than PIPE_BUF, so it is written whole or not at all."""
    return _STATUS.pack(kind, wait_status, peak_bytes)


def decode_status(data: bytes) -> tuple[StatusKind, int, int]:
    kind, wait_status, peak_bytes = _STATUS.unpack(data)
    return StatusKind(kind), wait_status, peak_bytes
