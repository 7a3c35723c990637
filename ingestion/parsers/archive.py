"""ZIP archives: a listing as text, the members as attachments."""

from __future__ import annotations

import io
import zipfile
import zlib
from functools import partial

from ingestion.attachments import Attachment, UnreadableAttachmentError, clean_name, is_litter
from ingestion.elements import ElementKind
from ingestion.errors import readable_bytes
from ingestion.parsers.blocks import Block, Extraction
from ingestion.parsers.decoding import decode

_UTF8_NAME = 0x800


def parse_zip(data: bytes) -> Extraction:
    """A table of the members, and each of them as an attachment under its path in the archive.

    What operating systems add for themselves is left out.
    """
    archive = zipfile.ZipFile(io.BytesIO(data))
    members = [
        (name, member)
        for member, name in zip(archive.infolist(), _names(archive), strict=True)
        if not member.is_dir() and name and not is_litter(name)
    ]
    rows = [("File", "Size")]
    rows += [(name, readable_bytes(member.file_size)) for name, member in members]
    blocks = [
        Block(ElementKind.PARAGRAPH, f"An archive of {len(members):,} files."),
        Block(ElementKind.TABLE, rows=tuple(rows)),
    ]
    attachments = [
        Attachment(name, partial(_content, archive, member), member.file_size)
        for name, member in members
    ]
    return Extraction(blocks if members else [], "zip", attachments=attachments)


def _names(archive: zipfile.ZipFile) -> list[str]:
    """Clean names. Those without the UTF-8 flag are in whatever the packing system used."""
    raw = [
        b"" if member.flag_bits & _UTF8_NAME else _original_bytes(member.filename)
        for member in archive.infolist()
    ]
    odd = b"\n".join(name for name in raw if not name.isascii())
    encoding = decode(odd)[1] if odd else "ascii"
    if encoding not in ("utf-8", "ascii") and len(odd) < 24:
        encoding = "cp437"  # too little to tell, so what the format says
    return [
        clean_name(name.decode(encoding, "replace") if name else member.filename)
        for member, name in zip(archive.infolist(), raw, strict=True)
    ]


def _original_bytes(name: str) -> bytes:
    try:
        return name.encode("cp437")
    except UnicodeEncodeError:  # a Unicode path field replaced it
        return b""


def _content(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> bytes:
    try:
        with archive.open(member) as stream:
            return stream.read(member.file_size + 1)
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, OSError) as error:
        raise UnreadableAttachmentError(repr(error)) from error
    except RuntimeError as error:  # encrypted although its directory entry denies it
        raise UnreadableAttachmentError(str(error)) from error
