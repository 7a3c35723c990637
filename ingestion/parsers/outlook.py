"""Outlook messages (.msg): an OLE container of MAPI properties ([MS-OXMSG], [MS-OXRTFCP])."""

from __future__ import annotations

import codecs
import datetime
import io
import struct
from collections.abc import Iterator
from email.message import EmailMessage
from functools import partial
from typing import Any, Final

import olefile

from ingestion.attachments import Attachment
from ingestion.errors import FailureCode, IngestionError
from ingestion.parsers.blocks import Block, Extraction, clean
from ingestion.parsers.decoding import decode
from ingestion.parsers.html import blocks_from_html
from ingestion.parsers.mail import file_stem, mail_extraction
from ingestion.parsers.pandoc import html_of
from ingestion.parsers.plain import blocks_from_text

_SUBJECT: Final = 0x0037
_BODY: Final = 0x1000
_RTF: Final = 0x1009
_HTML: Final = 0x1013
_MESSAGE_CLASS: Final = 0x001A
_SENT: Final = 0x0039
_RECEIVED: Final = 0x0E06
_CODE_PAGES: Final = (0x3FDE, 0x3FFD)  # of the body as sent, of the message's own strings
_SENDERS: Final = ((0x0042, 0x5D02), (0x0C1A, 0x5D01), (0x0C1A, 0x0C1F))  # name, address
_RECIPIENT_KIND: Final = 0x0C15
_RECIPIENT_KINDS: Final = {1: "To", 2: "Cc"}
_DISPLAYED: Final = {"To": 0x0E04, "Cc": 0x0E03}
_FILE_NAMES: Final = (0x3707, 0x3704, 0x3001)
_MIME_TYPE: Final = 0x370E
_DATA: Final = "__substg1.0_37010102"
_EMBEDDED: Final = "__substg1.0_3701000D"
_UNICODE, _BYTES, _BINARY = 0x1F, 0x1E, 0x102
_EPOCH: Final = datetime.datetime(1601, 1, 1, tzinfo=datetime.UTC)
_MAX_DEPTH: Final = 4
_MAX_PARTS: Final = 5_000
_ENCRYPTED_TYPES: Final = frozenset({"application/pgp-encrypted", "multipart/encrypted"})
_LZFU: Final = 0x75465A4C
_LZFU_START: Final = (
    rb"{\rtf1\ansi\mac\deff0\deftab720{\fonttbl;}{\f0\fnil \froman \fswiss \fmodern \fscript "
    rb"\fdecor MS Sans SerifSymbolArialTimes New RomanCourier{\colortbl\red0\green0\blue0"
    b"\r\n"
    rb"\par \pard\plain\f0\fs20\b\i\u\tab\tx"
)
_MAX_RTF: Final = 64 << 20


def parse_msg(data: bytes) -> Extraction:
    """Laid out like any e-mail. Attached messages are handed on as .eml files.

    Raises IngestionError: password_protected for encrypted messages.
    """
    with olefile.OleFileIO(io.BytesIO(data)) as container:
        message = _Message(container, ())
        attachments = list(message.attachments())
        body = message.body()
        if message.is_encrypted() and not body:
            raise IngestionError(
                FailureCode.PASSWORD_PROTECTED, protection="encryption", guard="it"
            )
        subject = message.text(_SUBJECT)
        if not body and not subject and not attachments:
            return Extraction([], "outlook")
        return mail_extraction("outlook", subject, message.people(), body, attachments)


class _Message:
    """One message: the container itself, or a storage in it. Reads a property when asked."""

    def __init__(self, container: Any, path: tuple[str, ...], depth: int = 0) -> None:
        self._container = container
        self._path = path
        self._depth = depth
        self._fixed = self._properties(path, 24 if path else 32)
        self._encodings = [
            name for page in _CODE_PAGES if (name := _encoding(self._fixed.get(page)))
        ]

    def text(self, prop: int, path: tuple[str, ...] | None = None) -> str:
        return clean(self._raw_text(prop, path))

    def people(self) -> list[tuple[str, str]]:
        """From, To, Cc and Date as (name, value)."""
        recipients: dict[str, list[str]] = {"To": [], "Cc": []}
        for path in self._storages("__recip_version1.0_"):
            kind = _RECIPIENT_KINDS.get(self._properties(path, 8).get(_RECIPIENT_KIND, 0) & 0xF)
            person = _person(
                self.text(0x3001, path), self.text(0x39FE, path) or self.text(0x3003, path)
            )
            if kind and person:
                recipients[kind].append(person)
        people = [("From", self._sender())]
        for kind, shown in _DISPLAYED.items():
            people.append((kind, ", ".join(recipients[kind]) or self.text(shown)))
        return [*people, ("Date", self._date())]

    def body(self) -> list[Block]:
        html = self.stream(f"__substg1.0_{_HTML:04X}{_BINARY:04X}")
        page = self._decoded(html) if html else self._raw_text(_HTML)
        if page.strip() and (blocks := blocks_from_html(page)[1]):
            return blocks
        if plain := self._raw_text(_BODY).strip():
            return blocks_from_text(plain)
        rtf = self.stream(f"__substg1.0_{_RTF:04X}{_BINARY:04X}")
        return blocks_from_html(html_of(_decompress(rtf), "rtf"))[1] if rtf else []

    def is_encrypted(self) -> bool:
        if "smime" in self.text(_MESSAGE_CLASS).lower():
            return "multipartsigned" not in self.text(_MESSAGE_CLASS).lower()
        return any(
            self.text(_MIME_TYPE, path).lower() in _ENCRYPTED_TYPES
            for path in self._storages("__attach_version1.0_")
        )

    def attachments(self) -> Iterator[Attachment]:
        for number, path in enumerate(self._storages("__attach_version1.0_"), start=1):
            inside = (*path, _EMBEDDED)
            if self._container.exists([*inside, "__properties_version1.0"]):
                if self._depth < _MAX_DEPTH:
                    inner = _Message(self._container, inside, self._depth + 1)
                    name = f"{file_stem(inner.text(_SUBJECT))}.eml"
                    # Read now: the container is closed when the attachments are handed on.
                    yield Attachment(name, partial(bytes, inner.as_eml()))
                continue
            names = (self.text(prop, path) for prop in _FILE_NAMES)
            if data := self.stream(_DATA, path):
                name = next(filter(None, names), f"attachment {number}")
                yield Attachment(name, partial(bytes, data), len(data))

    def as_eml(self) -> bytes:
        """The message as RFC 822, for a message that is attached to another."""
        message = EmailMessage()
        for name, value in (("Subject", self.text(_SUBJECT)), *self.people()):
            if value:
                message[name] = value
        message.set_content(self._raw_text(_BODY))
        html = self.stream(f"__substg1.0_{_HTML:04X}{_BINARY:04X}")
        if page := (self._decoded(html) if html else self._raw_text(_HTML)):
            message.add_alternative(page, subtype="html")
        for attachment in self.attachments():
            message.add_attachment(
                attachment.read(),
                maintype="application",
                subtype="octet-stream",
                filename=attachment.name,
            )
        return message.as_bytes()

    def stream(self, name: str, path: tuple[str, ...] | None = None) -> bytes:
        full = [*(self._path if path is None else path), name]
        if not self._container.exists(full):
            return b""
        try:
            with self._container.openstream(full) as stream:
                data: bytes = stream.read()
        except OSError:  # a storage under a stream's name, or cut off
            return b""
        return data

    def _raw_text(self, prop: int, path: tuple[str, ...] | None = None) -> str:
        if wide := self.stream(f"__substg1.0_{prop:04X}{_UNICODE:04X}", path):
            return wide.decode("utf-16-le", "replace").rstrip("\0")
        return self._decoded(self.stream(f"__substg1.0_{prop:04X}{_BYTES:04X}", path)).rstrip("\0")

    def _decoded(self, data: bytes) -> str:
        for encoding in self._encodings:
            try:
                return data.decode(encoding)
            except UnicodeDecodeError:
                continue
        return decode(data)[0]

    def _sender(self) -> str:
        for name, address in _SENDERS:
            if person := _person(self.text(name), self.text(address)):
                return person
        return ""

    def _date(self) -> str:
        for prop in (_SENT, _RECEIVED):
            if ticks := self._fixed.get(prop):
                try:
                    when = _EPOCH + datetime.timedelta(microseconds=ticks // 10)
                except OverflowError:
                    continue
                return when.strftime("%a, %d %b %Y %H:%M:%S +0000")
        return ""

    def _storages(self, prefix: str) -> list[tuple[str, ...]]:
        depth = len(self._path)
        found = {
            tuple(name)
            for name in self._container.listdir(streams=False, storages=True)
            if len(name) == depth + 1
            and tuple(name[:depth]) == self._path
            and name[-1].startswith(prefix)
        }
        return sorted(found)[:_MAX_PARTS]

    def _properties(self, path: tuple[str, ...], header: int) -> dict[int, int]:
        """Properties of fixed length as integers."""
        data = self.stream("__properties_version1.0", path)
        usable = len(data) - (len(data) - header) % 16
        return {
            prop: value
            for _, prop, _, value in struct.iter_unpack("<HHIQ", data[header : max(header, usable)])
        }


def _person(name: str, address: str) -> str:
    if not address or address.startswith("/"):  # "/O=..." is an Exchange server's own name for it
        return name
    return f"{name} <{address}>" if name and name != address else address


def _encoding(code_page: int | None) -> str | None:
    if not code_page:
        return None
    page = code_page & 0xFFFF
    name = {65001: "utf-8", 20127: "ascii", 28591: "cp1252", 936: "gb18030", 50220: "iso2022_jp"}
    candidate = name.get(page) or (
        f"iso8859_{page - 28590}" if 28591 < page < 28607 else f"cp{page}"
    )
    try:
        return codecs.lookup(candidate).name
    except LookupError:
        return None


def _decompress(data: bytes) -> bytes:
    """RTF as Outlook packs it. Raises ValueError when it is not that."""
    if len(data) < 16:
        raise ValueError("short compressed RTF")
    _, raw_size, kind, _ = struct.unpack_from("<IIII", data)
    if kind != _LZFU:
        return data[16 : 16 + raw_size]
    window = bytearray(_LZFU_START.ljust(4096, b"\0"))
    write = len(_LZFU_START)
    out = bytearray()
    at = 16
    while at < len(data) and len(out) < _MAX_RTF:
        control = data[at]
        at += 1
        for bit in range(8):
            if control >> bit & 1:
                if at + 2 > len(data):
                    return bytes(out)
                token = data[at] << 8 | data[at + 1]
                at += 2
                offset, length = token >> 4, (token & 0xF) + 2
                if offset == write % 4096:  # the end mark
                    return bytes(out)
                for step in range(length):  # byte by byte: it may copy what it has just written
                    byte = window[(offset + step) % 4096]
                    out.append(byte)
                    window[write % 4096] = byte
                    write += 1
            elif at < len(data):
                out.append(data[at])
                window[write % 4096] = data[at]
                write += 1
                at += 1
    return bytes(out)
