"""Files embedded in Office documents as OLE objects, as attachments ([MS-OLEDS] 2.3)."""

from __future__ import annotations

import io
import struct
import zipfile
from collections.abc import Iterator
from functools import partial
from typing import Any, Final

import olefile

from ingestion.attachments import Attachment

_NATIVE: Final = "\x01Ole10Native"
_PACKAGE: Final = "Package"
_CONTENTS: Final = "CONTENTS"
_MAIN_FOLDERS: Final = {"word/": ".docx", "xl/": ".xlsx", "ppt/": ".pptx"}
_READ_ERRORS: Final = (OSError, ValueError, LookupError, TypeError, AttributeError, struct.error)


def embedded_objects(container: Any, label: str = "object") -> Iterator[Attachment]:
    """Of an open OLE container: packaged files, OOXML documents and PDFs.

    Those without a name of their own are called ``label``.
    """
    for path in container.listdir():
        name = path[-1]
        if name not in (_NATIVE, _PACKAGE, _CONTENTS):
            continue
        try:
            with container.openstream(path) as stream:
                data = stream.read()
            found = _file_in(name, data, label)
        except _READ_ERRORS:
            continue  # a damaged object; the document around it is read
        if found is not None:
            yield Attachment(found[0], partial(bytes, found[1]), len(found[1]))


def objects_in_package(archive: zipfile.ZipFile) -> Iterator[Attachment]:
    """Of an OOXML document: what lies in its ``embeddings`` folder."""
    for member in archive.infolist():
        folder, _, name = member.filename.rpartition("/")
        if not folder.endswith("embeddings") or not name:
            continue
        try:
            data = archive.read(member)
        except (zipfile.BadZipFile, *_READ_ERRORS):
            continue
        if not name.endswith(".bin"):
            yield Attachment(name, partial(bytes, data), len(data))
        elif olefile.isOleFile(data):
            try:
                with olefile.OleFileIO(io.BytesIO(data)) as container:
                    yield from list(embedded_objects(container, name.removesuffix(".bin")))
            except _READ_ERRORS:
                continue


def _file_in(stream: str, data: bytes, label: str) -> tuple[str, bytes] | None:
    if stream == _NATIVE:
        return _native(data)
    if data.startswith(b"%PDF-"):
        return f"{label}.pdf", data
    if data.startswith(b"PK\x03\x04"):
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            names = archive.namelist()
        for folder, extension in _MAIN_FOLDERS.items():
            if any(name.startswith(folder) for name in names):
                return f"{label}{extension}", data
    return None


def _native(data: bytes) -> tuple[str, bytes] | None:
    """Label, original path, temporary path, then the file."""
    at = 6
    label_end = data.index(b"\0", at)
    label = data[at:label_end]
    at = data.index(b"\0", label_end + 1) + 1 + 4
    length = struct.unpack_from("<I", data, at)[0]
    at += 4 + length
    size = struct.unpack_from("<I", data, at)[0]
    content = data[at + 4 : at + 4 + size]
    name = label.decode("cp1252", "replace").replace("\\", "/").rpartition("/")[2]
    return (name, content) if content else None
