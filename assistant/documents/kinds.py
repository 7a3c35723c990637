"""What people call the files: a handful of kinds, each of several media types."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

_OOXML: Final = "application/vnd.openxmlformats-officedocument."
_ODF: Final = "application/vnd.oasis.opendocument."


@dataclass(frozen=True, slots=True)
class Kind:
    """``name`` is stable and used in addresses and the API, ``words`` is for people."""

    name: str
    words: str
    media_types: tuple[str, ...]


KINDS: Final = (
    Kind("pdf", "PDF", ("application/pdf",)),
    Kind(
        "word",
        "Word and other writing",
        (
            "application/msword",
            _OOXML + "wordprocessingml.document",
            _ODF + "text",
            "application/rtf",
        ),
    ),
    Kind(
        "slides",
        "Presentations",
        (
            "application/vnd.ms-powerpoint",
            _OOXML + "presentationml.presentation",
            _ODF + "presentation",
        ),
    ),
    Kind(
        "table",
        "Tables",
        (
            "application/vnd.ms-excel",
            "application/vnd.ms-excel.sheet.binary.macroenabled.12",
            _OOXML + "spreadsheetml.sheet",
            _ODF + "spreadsheet",
            "text/csv",
            "text/tab-separated-values",
        ),
    ),
    Kind("mail", "E-mail", ("message/rfc822", "application/vnd.ms-outlook", "application/mbox")),
    Kind("web", "Web pages", ("text/html",)),
    Kind("text", "Plain text", ("text/plain", "text/markdown", "text/x-rst", "text/x-org")),
    Kind(
        "picture",
        "Pictures",
        (
            "image/png",
            "image/jpeg",
            "image/tiff",
            "image/bmp",
            "image/gif",
            "image/webp",
            "image/heic",
        ),
    ),
    Kind("book", "E-books", ("application/epub+zip",)),
    Kind("data", "Data", ("application/json", "application/xml", "application/yaml")),
    Kind("archive", "Archives", ("application/zip",)),
)
BY_NAME: Final = {kind.name: kind for kind in KINDS}


def kinds_of(media_types: frozenset[str]) -> list[Kind]:
    """Those that at least one of ``media_types`` belongs to, in the order of ``KINDS``."""
    return [kind for kind in KINDS if media_types.intersection(kind.media_types)]
