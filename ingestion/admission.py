"""Cheap checks of an upload before anything is stored or parsed; safe in the web process.

Reads the start of the file and, for zip containers, their directory. Nothing is unpacked except
two small members whose size is bounded, and the file's name is never used as a path.
"""

from __future__ import annotations

import io
import re
import struct
import zipfile
import zlib
from typing import BinaryIO, Final

import olefile

from ingestion.errors import FailureCode, IngestionError, readable_bytes
from ingestion.parsers.decoding import looks_like_text
from ingestion.parsing_limits import Limits

_OOXML: Final = "application/vnd.openxmlformats-officedocument."
DOCX: Final = _OOXML + "wordprocessingml.document"
PPTX: Final = _OOXML + "presentationml.presentation"
XLSX: Final = _OOXML + "spreadsheetml.sheet"
XLSB: Final = "application/vnd.ms-excel.sheet.binary.macroenabled.12"
DOC: Final = "application/msword"
PPT: Final = "application/vnd.ms-powerpoint"
XLS: Final = "application/vnd.ms-excel"
MSG: Final = "application/vnd.ms-outlook"
_ODF: Final = "application/vnd.oasis.opendocument."
ODT: Final = _ODF + "text"
ODS: Final = _ODF + "spreadsheet"
ODP: Final = _ODF + "presentation"
EPUB: Final = "application/epub+zip"
PDF: Final = "application/pdf"
RTF: Final = "application/rtf"
ZIP: Final = "application/zip"
PNG: Final = "image/png"
JPEG: Final = "image/jpeg"
TIFF: Final = "image/tiff"
BMP: Final = "image/bmp"
GIF: Final = "image/gif"
WEBP: Final = "image/webp"
HEIC: Final = "image/heic"
IMAGES: Final = frozenset({PNG, JPEG, TIFF, BMP, GIF, WEBP, HEIC})

SUPPORTED: Final[dict[str, str]] = {
    ".md": "text/markdown",
    ".markdown": "text/markdown",
    ".txt": "text/plain",
    ".text": "text/plain",
    ".log": "text/plain",
    ".html": "text/html",
    ".htm": "text/html",
    ".xhtml": "text/html",
    ".json": "application/json",
    ".xml": "application/xml",
    ".yml": "application/yaml",
    ".yaml": "application/yaml",
    ".csv": "text/csv",
    ".tsv": "text/tab-separated-values",
    ".rst": "text/x-rst",
    ".org": "text/x-org",
    ".eml": "message/rfc822",
    ".msg": MSG,
    ".mbox": "application/mbox",
    ".rtf": RTF,
    ".docx": DOCX,
    ".docm": DOCX,
    ".dotx": DOCX,
    ".pptx": PPTX,
    ".pptm": PPTX,
    ".ppsx": PPTX,
    ".potx": PPTX,
    ".xlsx": XLSX,
    ".xlsm": XLSX,
    ".xltx": XLSX,
    ".xlsb": XLSB,
    ".doc": DOC,
    ".dot": DOC,
    ".ppt": PPT,
    ".pps": PPT,
    ".xls": XLS,
    ".odt": ODT,
    ".ott": ODT,
    ".ods": ODS,
    ".ots": ODS,
    ".odp": ODP,
    ".otp": ODP,
    ".epub": EPUB,
    ".pdf": PDF,
    ".zip": ZIP,
    ".png": PNG,
    ".jpg": JPEG,
    ".jpeg": JPEG,
    ".tif": TIFF,
    ".tiff": TIFF,
    ".bmp": BMP,
    ".gif": GIF,
    ".webp": WEBP,
    ".heic": HEIC,
    ".heif": HEIC,
}
"""File name ending to media type: what can be read."""

SUPPORTED_IN_WORDS: Final = (
    "PDF, Word, PowerPoint, Excel, OpenDocument, RTF, EPUB, HTML, Markdown, plain text, CSV, "
    "e-mail (.eml, .msg), images, ZIP, JSON, XML, YAML"
)

_OLE_FORMATS: Final = frozenset({DOC, PPT, XLS, MSG})
_CONTAINERS: Final = frozenset({DOCX, PPTX, XLSX, XLSB, ODT, ODS, ODP, EPUB, ZIP})
_BINARY: Final = _CONTAINERS | _OLE_FORMATS | {PDF, RTF}
_NAMES: Final = {
    PDF: "a PDF",
    RTF: "an RTF document",
    DOCX: "a Word document (.docx)",
    PPTX: "a PowerPoint presentation (.pptx)",
    XLSX: "an Excel workbook (.xlsx)",
    XLSB: "a binary Excel workbook (.xlsb)",
    DOC: "a Word document in the format of before 2007 (.doc)",
    PPT: "a PowerPoint presentation in the format of before 2007 (.ppt)",
    XLS: "an Excel workbook in the format of before 2007 (.xls)",
    MSG: "an Outlook message (.msg)",
    ODT: "an OpenDocument text (.odt)",
    ODS: "an OpenDocument spreadsheet (.ods)",
    ODP: "an OpenDocument presentation (.odp)",
    EPUB: "an e-book (.epub)",
    ZIP: "a ZIP archive",
    PNG: "a PNG image",
    JPEG: "a JPEG image",
    TIFF: "a TIFF image",
    BMP: "a BMP image",
    GIF: "a GIF image",
    WEBP: "a WebP image",
    HEIC: "a HEIC image",
}
_IMAGE_SIGNATURES: Final[tuple[tuple[int, bytes, str], ...]] = (
    (0, b"\x89PNG\r\n\x1a\n", PNG),
    (0, b"\xff\xd8\xff", JPEG),
    (0, b"GIF8", GIF),
    (0, b"II*\0", TIFF),
    (0, b"MM\0*", TIFF),
    (0, b"II+\0", TIFF),
    (0, b"MM\0+", TIFF),
    (8, b"WEBP", WEBP),
    (6, b"\0\0\0\0", BMP),  # with the letters BM in front, see _image_type
    *((4, b"ftyp" + brand, HEIC) for brand in (b"hei", b"hev", b"mif1", b"msf1", b"avif")),
)
_SIGNATURES: Final[tuple[tuple[int, bytes, str], ...]] = (
    (4, b"ftyp", "a video"),
    (0, b"RIFF", "a sound or video file"),
    (0, b"ID3", "a sound file"),
    (0, b"OggS", "a sound or video file"),
    (0, b"\x1aE\xdf\xa3", "a video file"),
    (0, b"7z\xbc\xaf\x27\x1c", "a 7-Zip archive"),
    (0, b"Rar!\x1a\x07", "a RAR archive"),
    (0, b"\x1f\x8b", "a gzip archive"),
    (0, b"BZh", "a bzip2 archive"),
    (0, b"\xfd7zXZ\0", "an xz archive"),
    (0, b"\x28\xb5\x2f\xfd", "a Zstandard archive"),
    (257, b"ustar", "a tar archive"),
    (0, b"\x7fELF", "a program"),
    (0, b"MZ\x90", "a program"),
    (0, b"SQLite format 3\0", "a database"),
)
_OLE: Final = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"
_OLE_STREAMS: Final = {
    "worddocument": DOC,
    "powerpoint document": PPT,
    "workbook": XLS,
    "book": XLS,
    "__properties_version1.0": MSG,
    "visiodocument": "a Visio drawing",
    "quill": "a Publisher document",
}
_MAIN_PART: Final = re.compile(rb'ContentType="([^"]{1,200}\.main\+xml|[^"]{1,200}binary[^"]*)"')
# Where programs put the main part when its type is not declared for it by name.
_MAIN_PARTS: Final = {
    "word/document.xml": DOCX,
    "ppt/presentation.xml": PPTX,
    "xl/workbook.xml": XLSX,
    "xl/workbook.bin": XLSB,
}
_HEAD: Final = 64 << 10
_SMALL_MEMBER: Final = 1 << 20
_RATIO_COUNTS_FROM: Final = 32 << 20
_END_RECORD: Final = b"PK\x05\x06"


def inspect(stream: BinaryIO, *, filename: str, size: int, limits: Limits) -> str:
    """The media type of an upload that may be stored and parsed.

    ``stream`` is seekable and is left at its start; ``size`` is its length in bytes. Raises
    IngestionError: empty_file, too_large, unsupported_type, type_mismatch, password_protected,
    archive_bomb or corrupt_file. Whether a PDF needs a password only its parser can tell.
    """
    if size == 0:
        raise IngestionError(FailureCode.EMPTY_FILE)
    if size > limits.max_bytes:
        raise IngestionError(FailureCode.TOO_LARGE, limit=readable_bytes(limits.max_bytes))
    extension = extension_of(filename)
    expected = SUPPORTED.get(extension)
    if expected is None:
        raise IngestionError(
            FailureCode.UNSUPPORTED_TYPE,
            found=extension or "no file name ending",
            supported=SUPPORTED_IN_WORDS,
        )
    try:
        stream.seek(0)
        return _require(stream, expected, extension=extension, size=size, limits=limits)
    finally:
        stream.seek(0)


def extension_of(filename: str) -> str:
    """The ending of a name in lower case with its dot, or "" when it has none."""
    match = re.search(r"\.[A-Za-z0-9]{1,12}$", filename.strip())
    return match[0].lower() if match else ""


def _require(stream: BinaryIO, expected: str, *, extension: str, size: int, limits: Limits) -> str:
    """The media type, which for images is what the bytes say, whatever the ending."""
    head = stream.read(_HEAD)
    image = _image_type(head)
    if image and expected in IMAGES:
        return image
    if head.startswith(_OLE):
        found = _identify_ole(stream)
    elif head.startswith((b"PK\x03\x04", _END_RECORD)):
        found = _identify_archive(stream, size=size, limits=limits)
    else:
        _require_single(head, expected, extension, image)
        return expected
    if found != expected:
        _mismatch(extension, _NAMES.get(found, found))
    return expected


def _require_single(head: bytes, expected: str, extension: str, image: str | None) -> None:
    """A file that is not a container with parts inside."""
    if image:
        _mismatch(extension, _NAMES[image])
    if expected in _BINARY or expected in IMAGES:
        _require_binary(head, expected, extension)
        return
    if b"%PDF-" in head[:1024]:
        _mismatch(extension, _NAMES[PDF])
    if head.lstrip()[:5] == b"{\\rtf":
        _mismatch(extension, _NAMES[RTF])
    if name := _known_binary(head):
        _mismatch(extension, name)
    if not looks_like_text(head):
        _mismatch(extension, "binary data, not text")


def _require_binary(head: bytes, expected: str, extension: str) -> None:
    is_pdf = b"%PDF-" in head[:1024]
    is_rtf = head.lstrip()[:5] == b"{\\rtf"
    if (expected == PDF and is_pdf) or (expected == RTF and is_rtf):
        return
    if is_pdf or is_rtf:
        _mismatch(extension, _NAMES[PDF if is_pdf else RTF])
    if name := _known_binary(head):
        _mismatch(extension, name)
    if looks_like_text(head):
        _mismatch(extension, "plain text")
    raise IngestionError(FailureCode.CORRUPT_FILE)


def _mismatch(extension: str, found: str) -> None:
    raise IngestionError(FailureCode.TYPE_MISMATCH, extension=extension, found=found)


def _known_binary(head: bytes) -> str | None:
    return next(
        (name for at, magic, name in _SIGNATURES if head[at : at + len(magic)] == magic), None
    )


def _image_type(head: bytes) -> str | None:
    for at, magic, media_type in _IMAGE_SIGNATURES:
        if head[at : at + len(magic)] == magic and (media_type != BMP or head[:2] == b"BM"):
            return media_type
    return None


def _identify_ole(stream: BinaryIO) -> str:
    """Media type or description of an OLE container (Office before 2007), by its top directory."""
    stream.seek(0)
    try:
        with olefile.OleFileIO(stream) as container:
            names = {name[0].lower() for name in container.listdir(streams=True)}
    except (OSError, ValueError, LookupError, TypeError, AttributeError, struct.error) as error:
        raise IngestionError(FailureCode.CORRUPT_FILE, cause=repr(error)) from error
    except RecursionError as error:
        raise IngestionError(FailureCode.CORRUPT_FILE, cause="directory too deep") from error
    if "\x09drmcontent" in names or "drmencryptedtransform" in names:
        raise IngestionError(
            FailureCode.PASSWORD_PROTECTED, protection="rights management", guard="it"
        )
    if "encryptedpackage" in names:  # an OOXML document with a password
        raise IngestionError(FailureCode.PASSWORD_PROTECTED)
    return next(
        (found for stream_name, found in _OLE_STREAMS.items() if stream_name in names),
        "an Office file of another kind",
    )


def _identify_archive(stream: BinaryIO, *, size: int, limits: Limits) -> str:
    """Media type or description of a zip container, judged by its directory alone."""
    _bound_directory(stream, size=size, limits=limits)
    try:
        with zipfile.ZipFile(stream) as archive:
            members = archive.infolist()
            _bound_members(members, size=size, limits=limits)
            return _archive_type(archive)
    except (zipfile.BadZipFile, ValueError, OSError, struct.error, NotImplementedError) as error:
        raise IngestionError(FailureCode.CORRUPT_FILE, cause=repr(error)) from error


def _bound_directory(stream: BinaryIO, *, size: int, limits: Limits) -> None:
    """Refuse a huge central directory before zipfile makes an object of each entry."""
    stream.seek(max(0, size - (1 << 16) - 22 - 76))
    tail = stream.read()
    at = tail.rfind(_END_RECORD)
    if at < 0 or at + 22 > len(tail):
        raise IngestionError(FailureCode.CORRUPT_FILE, cause="no end of central directory")
    entries, directory_size = struct.unpack_from("<HL", tail, at + 10)
    if at >= 76 and tail[at - 20 : at - 16] == b"PK\x06\x07":  # zip64
        entries, directory_size = struct.unpack_from("<QQ", tail, at - 76 + 32)
    # An entry is 46 bytes and its name; names in documents are short.
    if entries > limits.archive_members or directory_size > limits.archive_members * 512:
        raise IngestionError(
            FailureCode.ARCHIVE_BOMB, reason=f"more than {limits.archive_members} files inside"
        )


def _bound_members(members: list[zipfile.ZipInfo], *, size: int, limits: Limits) -> None:
    unpacked = sum(member.file_size for member in members)
    packed = sum(member.compress_size for member in members)
    if len(members) > limits.archive_members:
        raise IngestionError(
            FailureCode.ARCHIVE_BOMB, reason=f"more than {limits.archive_members} files inside"
        )
    if unpacked > limits.archive_bytes:
        raise IngestionError(
            FailureCode.ARCHIVE_BOMB, reason=f"more than {readable_bytes(limits.archive_bytes)}"
        )
    if unpacked > _RATIO_COUNTS_FROM and unpacked > limits.archive_ratio * size:
        raise IngestionError(
            FailureCode.ARCHIVE_BOMB, reason=f"more than {limits.archive_ratio} times its size"
        )
    if packed > size:  # entries share the same bytes (Fifield, "A better zip bomb", 2019)
        raise IngestionError(FailureCode.ARCHIVE_BOMB, reason="its parts overlap")
    if any(member.flag_bits & 0x1 for member in members):
        raise IngestionError(FailureCode.PASSWORD_PROTECTED)


def _archive_type(archive: zipfile.ZipFile) -> str:
    names = {name.lower(): name for name in archive.namelist()}
    if "mimetype" in names:
        declared = _read_small(archive, names["mimetype"]).strip().decode("ascii", "replace")
        if declared == EPUB:
            return EPUB
        for known in (ODT, ODS, ODP):
            if declared.startswith(known):  # templates have "-template" after it
                return known
        if declared.startswith(_ODF):
            return f"an OpenDocument {declared.rpartition('.')[2][:20]}"
    if "[content_types].xml" in names:
        types = _read_small(archive, names["[content_types].xml"])
        for match in _MAIN_PART.finditer(types):
            part = match[1]
            if b"wordprocessingml." in part or b"ms-word." in part:
                return DOCX
            if b"presentationml." in part or b"ms-powerpoint." in part:
                return PPTX
            if b"spreadsheetml." in part:
                return XLSX
            if b"ms-excel." in part:
                return XLSB if b"binary" in part else XLSX
    for part, media_type in _MAIN_PARTS.items():
        if part in names:
            return media_type
    return "an Office file of another kind" if "[content_types].xml" in names else ZIP


def _read_small(archive: zipfile.ZipFile, name: str) -> bytes:
    """At most 1 MiB of one member, whatever its directory entry says."""
    try:
        with archive.open(name) as member:
            return member.read(_SMALL_MEMBER)
    except (zlib.error, EOFError, RuntimeError, KeyError) as error:
        raise IngestionError(FailureCode.CORRUPT_FILE, cause=repr(error)) from error


def inspect_bytes(data: bytes, *, filename: str, limits: Limits) -> str:
    """``inspect`` for a file already in memory."""
    return inspect(io.BytesIO(data), filename=filename, size=len(data), limits=limits)
