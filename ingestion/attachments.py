"""Files inside a file: attachments of a message, members of an archive, files in a PDF.

No Django here: both sides of the sandbox use it, the child to make names and the worker to check
that it did.
"""

from __future__ import annotations

import posixpath
import re
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from ingestion.errors import FailureCode, IngestionError, readable_bytes
from ingestion.parsing_limits import Limits

OnAttachment = Callable[[str, bytes], None]
"""Called with a clean, relative name (``clean_name``), unique in its document, and the bytes."""

_MAX_NAME: Final = 400
_MAX_PART: Final = 120
_NUMBER_ROOM: Final = 20
_UNWANTED: Final = re.compile(
    "[\x00-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2066-\u2069\ufeff\ufffe\uffff\ud800-\udfff]"
)
_SYSTEM_LITTER: Final = frozenset({".ds_store", "thumbs.db", "desktop.ini", "__macosx"})
_DRIVE: Final = re.compile(r"^(?:[A-Za-z]:\s*)+")
_MAX_RAW: Final = 4_000
_MAX_NAMED: Final = 5


class UnreadableAttachmentError(Exception):
    """One attachment is damaged; the others and the document are not."""


@dataclass(frozen=True, slots=True)
class Attachment:
    """A file inside a document. ``size`` in bytes is what is known before ``read`` is called.

    ``read`` may raise UnreadableAttachmentError.
    """

    name: str
    read: Callable[[], bytes]
    size: int = 0


def clean_name(raw: str) -> str:
    """A relative name with "/" between its parts; "" when nothing of it can be kept.

    No drive, no leading slash, no ".." or ".", no control, bidirectional or invisible characters,
    NFC, at most 400 characters.
    """
    text = unicodedata.normalize("NFC", _UNWANTED.sub("", raw[:_MAX_RAW])).replace("\\", "/")
    parts = []
    for part in text.split("/"):
        part = _shorten(" ".join(_DRIVE.sub("", part.strip()).split()))
        if part.strip(". "):
            parts.append(part)
    while len(parts) > 1 and len("/".join(parts)) > _MAX_NAME:
        parts.pop(0)
    return "/".join(parts)


def is_clean_name(name: str) -> bool:
    """Whether a name that comes from the child keeps what ``clean_name`` promises."""
    return (
        0 < len(name) <= _MAX_NAME + _NUMBER_ROOM
        and unicodedata.is_normalized("NFC", name)
        and not _UNWANTED.search(name)
        and "\\" not in name
        and not _DRIVE.match(name)
        and all(part.strip(". ") and part == part.strip() for part in name.split("/"))
    )


def is_litter(name: str) -> bool:
    """Whether an operating system put this member into the archive for itself."""
    parts = name.lower().split("/")
    return any(part in _SYSTEM_LITTER for part in parts) or parts[-1].startswith("._")


class AttachmentSender:
    """Hands attachments on under clean, unique names and within the limits."""

    def __init__(self, on_attachment: OnAttachment, limits: Limits) -> None:
        self._send = on_attachment
        self._limits = limits
        self._used: dict[str, int] = {}
        self._bytes = 0
        self._too_large: list[str] = []
        self._damaged: list[str] = []

    def send(self, attachment: Attachment) -> None:
        """Empty, oversized and damaged ones are left out. Raises IngestionError: archive_bomb."""
        name = self._unique(clean_name(attachment.name) or "attachment")
        if attachment.size > self._limits.max_bytes:
            self._too_large.append(name)
            return
        try:
            data = attachment.read()
        except UnreadableAttachmentError:
            self._damaged.append(name)
            return
        if not data:
            return
        if len(data) > self._limits.max_bytes:
            self._too_large.append(name)
            return
        self._bytes += len(data)
        if len(self._used) > self._limits.max_attachments:
            raise IngestionError(
                FailureCode.ARCHIVE_BOMB,
                reason=f"more than {self._limits.max_attachments:,} files inside",
            )
        if self._bytes > self._limits.max_attachment_bytes:
            raise IngestionError(
                FailureCode.ARCHIVE_BOMB,
                reason=f"more than {readable_bytes(self._limits.max_attachment_bytes)} inside",
            )
        self._send(name, data)

    def warnings(self) -> list[str]:
        warnings = []
        if self._too_large:
            limit = readable_bytes(self._limits.max_bytes)
            warnings.append(
                f"Larger than the {limit} allowed, so not read: {_listed(self._too_large)}."
            )
        if self._damaged:
            warnings.append(f"Damaged, so not read: {_listed(self._damaged)}.")
        return warnings

    def _unique(self, name: str) -> str:
        """``name``, or ``stem (2).ext`` and so on when it is taken; case is no difference."""
        stem, extension = posixpath.splitext(name)
        number = self._used.get(name.casefold(), 0)
        candidate = name
        while candidate.casefold() in self._used:
            number += 1
            candidate = f"{stem} ({number + 1}){extension}"
        self._used[name.casefold()] = number
        self._used.setdefault(candidate.casefold(), 0)
        return candidate


def not_read_warning(names: list[str]) -> str:
    """What to say when there is nobody to take the attachments."""
    return f"{len(names)} attachment(s) were not read: {_listed(names)}."


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - _MAX_NAMED} more" if len(names) > _MAX_NAMED else ""
    return ", ".join(names[:_MAX_NAMED]) + more


def _shorten(part: str) -> str:
    """At most 120 characters, the ending kept."""
    if len(part) <= _MAX_PART:
        return part
    stem, extension = posixpath.splitext(part)
    extension = extension[:16]
    return " ".join(stem[: _MAX_PART - len(extension)].split()) + extension
