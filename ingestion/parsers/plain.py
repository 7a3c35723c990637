"""Plain text, and structured text that is kept as it is (JSON, XML, YAML)."""

from __future__ import annotations

import re
from typing import Final

from ingestion.elements import ElementKind
from ingestion.parsers.blocks import Block, Extraction, clean_verbatim
from ingestion.parsers.decoding import decode

_BLANK_LINES: Final = re.compile(r"\n[ \t]*\n+")
_LONGEST_WRAPPED: Final = 130
_OWN_LINE: Final = re.compile(r"[-*•‣◦·–—>|#\[]|\d{1,3}[.)]\s|\d{4}-\d\d-\d\d|\w[\w ]{0,30}: ")
_BULLET: Final = re.compile(r"(?:[-*–+]\s+|[•‣◦·∙⁃●○■▪]\s*)+(?=\S)")
_NUMBERED: Final = re.compile(r"\d{1,3}[.)]\s")


def parse_text(data: bytes) -> Extraction:
    """Paragraphs at blank lines, wrapped lines joined. Headings are not guessed."""
    text, encoding = decode(data)
    return Extraction(blocks_from_text(text), "text", metadata={"encoding": encoding})


def parse_verbatim(data: bytes) -> Extraction:
    """Each stretch between blank lines, with its lines and indentation."""
    text, encoding = decode(data)
    text = clean_verbatim(text)
    blocks = [Block(ElementKind.CODE, part) for part in _BLANK_LINES.split(text)]
    return Extraction(blocks, "text", metadata={"encoding": encoding})


def blocks_from_text(text: str) -> list[Block]:
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    return [
        _block(paragraph) for part in _BLANK_LINES.split(text) for paragraph in _paragraphs(part)
    ]


def _paragraphs(part: str) -> list[str]:
    """The paragraphs of a stretch without blank lines: those that were wrapped are joined.

    A line goes on in the next one when it is about as long as the longest beside it, unless that
    is too long to have been wrapped, or unless the next line begins something of its own.
    """
    lines = [line.strip() for line in part.split("\n")]
    width = max(map(len, lines))
    paragraphs: list[list[str]] = []
    previous = ""
    for line in lines:
        is_wrapped = 0.6 * width <= len(previous) and width <= _LONGEST_WRAPPED
        if previous and is_wrapped and not _OWN_LINE.match(line):
            paragraphs[-1].append(line)
        else:
            paragraphs.append([line])
        previous = line
    return [" ".join(lines) for lines in paragraphs]


def _block(text: str) -> Block:
    if bullet := _BULLET.match(text):
        return Block(ElementKind.LIST_ITEM, text[bullet.end() :])
    if _NUMBERED.match(text):
        return Block(ElementKind.LIST_ITEM, text)
    return Block(ElementKind.PARAGRAPH, text)
