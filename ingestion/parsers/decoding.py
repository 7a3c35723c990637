"""Bytes of unknown encoding to text."""

from __future__ import annotations

import codecs
import re
from typing import Final

_BOMS: Final = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),  # before UTF-16: its mark begins with UTF-16's
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_DECLARED: Final = re.compile(
    rb"""(?:<\?xml[^>]{0,200}encoding\s*=\s*|<meta[^>]{0,200}charset\s*=\s*)["']?([\w.:-]{2,40})""",
    re.IGNORECASE,
)
# What a browser reads when a page declares one of these (WHATWG Encoding, section 4.2).
_BROWSER_ALIASES: Final = {"iso-8859-1": "cp1252", "latin1": "cp1252", "us-ascii": "cp1252"}
_SAMPLE: Final = 64 << 10
_CONTROLS: Final = frozenset(range(32)) - frozenset(b"\t\n\r\f\x1b") | {0x7F}


def decode(data: bytes) -> tuple[str, str]:
    """Text and the name of the encoding used; never raises.

    Order: byte order mark, UTF-8, UTF-16 without a mark, the encoding the file declares (HTML,
    XML), the best guess of charset-normalizer over the first 64 KiB, Windows-1252.
    """
    encoding = _find_encoding(data)
    return data.decode(encoding, errors="replace").removeprefix("\ufeff"), encoding


def looks_like_text(data: bytes) -> bool:
    """Whether ``data`` (a sample from the start of a file) is text in some encoding."""
    if any(data.startswith(mark) for mark, _ in _BOMS):
        return True
    if _utf16_without_mark(data):
        return True
    if b"\0" in data:
        return False
    if _is_utf8(data, truncated=True):
        return _share_of_controls(data) < 0.02
    guess = _guess(data)
    return guess is not None and _share_of_controls(data.decode(guess, "replace").encode()) < 0.02


def _find_encoding(data: bytes) -> str:
    for mark, encoding in _BOMS:
        if data.startswith(mark):
            return encoding
    if b"\0" not in data[:_SAMPLE] and _is_utf8(data, truncated=False):
        return "utf-8"
    if utf16 := _utf16_without_mark(data):
        return utf16
    if (match := _DECLARED.search(data[:4096])) and (found := _usable(match[1].decode(), data)):
        return found
    return _guess(data) or "cp1252"


def _usable(name: str, data: bytes) -> str | None:
    name = _BROWSER_ALIASES.get(name.lower(), name)
    try:
        text = data.decode(name, errors="replace")
    except (LookupError, UnicodeError):
        return None
    return name if text.count("\ufffd") <= len(text) // 200 else None


def _is_utf8(data: bytes, *, truncated: bool) -> bool:
    try:
        codecs.getincrementaldecoder("utf-8")().decode(data, final=not truncated)
    except UnicodeDecodeError:
        return False
    return True


def _utf16_without_mark(data: bytes) -> str | None:
    """UTF-16 of mostly Latin text shows as a NUL in nearly every second byte."""
    sample = data[:4096]
    if len(sample) < 8:
        return None
    even, odd = sample[0::2].count(0), sample[1::2].count(0)
    half = len(sample) // 2
    if odd > 0.7 * half and even < 0.05 * half:
        return "utf-16-le"
    if even > 0.7 * half and odd < 0.05 * half:
        return "utf-16-be"
    return None


def _guess(data: bytes) -> str | None:
    from charset_normalizer import from_bytes  # 50 ms, and only odd encodings need it

    best = from_bytes(data[:_SAMPLE]).best()
    return best.encoding if best is not None else None


def _share_of_controls(data: bytes) -> float:
    return sum(byte in _CONTROLS for byte in data) / max(1, len(data))
