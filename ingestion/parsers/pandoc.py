"""Formats that pandoc turns into HTML: RTF, OpenDocument text, EPUB, reStructuredText, Org."""

from __future__ import annotations

import re
import subprocess
import tempfile
from functools import cache
from typing import Final

import pypandoc

from ingestion.elements import ElementKind
from ingestion.parsers.blocks import Block, Extraction
from ingestion.parsers.decoding import decode
from ingestion.parsers.html import blocks_from_html

# pandoc's own default title is the name of the file, which here is a pipe.
_TEMPLATE: Final = b"<html><head><title>$title/first$</title></head><body>$body$</body></html>"
_MAX_CAUSE: Final = 400
_BINARY: Final = re.compile(rb"\\bin(\d{1,9}) ?")
# "\\u246?x" without a space after the number: pandoc 3.9 takes "x" for the fallback too.
_UNENDED: Final = re.compile(rb"(?<!\\)(\\u-?\d{1,5})(?![ \d])")
_FALLBACK: Final = rb"(?:\\'[0-9a-fA-F]{2}|[^\\{}])?"
_SURROGATES: Final = re.compile(rb"\\u(-?\d{1,5}) ?" + _FALLBACK + rb"\\u(-?\d{1,5})")
_PRIVATE_USE: Final = 0xE000
_MAX_STAND_INS: Final = 0x1900
_BRACES: Final = re.compile(rb"\\[\\{}]|[{}]")
_MAX_OPEN_GROUPS: Final = 100


class PandocError(Exception):
    """pandoc ended with an error; the text is what it said."""


def parse_rtf(data: bytes) -> Extraction:
    """Characters above U+FFFF travel as private ones, because pandoc drops surrogate pairs."""
    stand_ins: dict[int, str] = {}

    def stand_in(match: re.Match[bytes]) -> bytes:
        high, low = (int(number) & 0xFFFF for number in match.groups())
        if not (0xD800 <= high < 0xDC00 <= low < 0xE000) or len(stand_ins) >= _MAX_STAND_INS:
            return match[0]
        code = _PRIVATE_USE + len(stand_ins)
        stand_ins[code] = chr(0x10000 + ((high - 0xD800) << 10) + low - 0xDC00)
        return rb"\u%d" % (code - 0x10000)

    prepared = _SURROGATES.sub(stand_in, _without_binary(data))
    prepared = _UNENDED.sub(rb"\1 ", prepared)
    missing = _open_groups(prepared)
    html = html_of(prepared + b"}" * missing, "rtf")
    title, blocks = blocks_from_html(html.translate(stand_ins))
    warnings = ["The end of the file is missing; what is there was read."] if missing else []
    return Extraction(blocks, "pandoc rtf", title=title, warnings=warnings)


def _open_groups(data: bytes) -> int:
    depth = 0
    for match in _BRACES.finditer(data):
        depth += {b"{": 1, b"}": -1}.get(match[0], 0)
    return min(max(depth, 0), _MAX_OPEN_GROUPS)


def _without_binary(data: bytes) -> bytes:
    """RTF without the stretches of raw bytes that ``\\bin`` announces: pictures."""
    parts: list[bytes] = []
    at = 0
    while match := _BINARY.search(data, at):
        parts.append(data[at : match.start()])
        at = match.end() + int(match[1])
    return b"".join([*parts, data[at:]])


def parse_odt(data: bytes) -> Extraction:
    return _through_pandoc(data, "odt")


def parse_epub(data: bytes) -> Extraction:
    return _through_pandoc(data, "epub")


def parse_rst(data: bytes) -> Extraction:
    """A document's only top heading, which pandoc takes for its title, stays in the text."""
    extraction = _through_pandoc(decode(data)[0].encode(), "rst")
    if extraction.title:
        heading = Block(ElementKind.HEADING, extraction.title, level=1)
        extraction.blocks = [heading, *extraction.blocks]
    return extraction


def parse_org(data: bytes) -> Extraction:
    return _through_pandoc(decode(data)[0].encode(), "org")


def _through_pandoc(data: bytes, source_format: str) -> Extraction:
    title, blocks = blocks_from_html(html_of(data, source_format))
    return Extraction(blocks, f"pandoc {source_format}", title=title)


def html_of(data: bytes, source_format: str) -> str:
    """HTML of a document.

    ``--sandbox`` keeps pandoc from reading files that a document names. Raises PandocError.
    """
    command = [_program(), "--sandbox", "--from", source_format, "--to", "html", "--wrap", "none"]
    with tempfile.NamedTemporaryFile(suffix=".html") as template:
        template.write(_TEMPLATE)
        template.flush()
        done = subprocess.run(  # noqa: S603 - fixed command, no shell
            [*command, "--template", template.name], input=data, capture_output=True, check=False
        )
    if done.returncode != 0:
        message = done.stderr.decode("utf-8", "replace").strip()[:_MAX_CAUSE]
        raise PandocError(f'pandoc exitcode "{done.returncode}": {message}')
    return done.stdout.decode("utf-8", "replace")


@cache
def _program() -> str:
    return str(pypandoc.get_pandoc_path())
