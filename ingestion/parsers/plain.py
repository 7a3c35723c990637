"""Plain text, and structured text that is kept as it is (JSON, XML, YAML)."""

from __future__ import annotations

import re
from typing import Any, Final

from ingestion.elements import ElementKind
from ingestion.parsers import unstructured_engine as engine
from ingestion.parsers.blocks import Block, Extraction, clean_verbatim
from ingestion.parsers.decoding import decode

_BLANK_LINES: Final = re.compile(r"\n[ \t]*\n+")
_PIECE: Final = 100_000
_LONGEST_WRAPPED: Final = 130
_OWN_LINE: Final = re.compile(r"[-*•‣◦·–—>|#\[]|\d{1,3}[.)]\s|\d{4}-\d\d-\d\d|\w[\w ]{0,30}: ")
_NUMBERED: Final = re.compile(r"\d{1,3}[.)]\s")


def parse_text(data: bytes) -> Extraction:
    """Paragraphs at blank lines, wrapped lines joined. Headings are not guessed."""
    text, encoding = decode(data)
    return Extraction(blocks_from_text(text), "unstructured", metadata={"encoding": encoding})


def parse_verbatim(data: bytes) -> Extraction:
    """Each stretch between blank lines, with its lines and indentation."""
    text, encoding = decode(data)
    text = clean_verbatim(text)
    blocks = [Block(ElementKind.CODE, part) for part in _BLANK_LINES.split(text)]
    return Extraction(blocks, "text", metadata={"encoding": encoding})


def blocks_from_text(text: str) -> list[Block]:
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    blocks: list[Block] = []
    for piece in _pieces(text):
        elements = engine.partition_text(
            text=piece, languages=engine.NO_LANGUAGES, paragraph_grouper=_one_line_per_paragraph
        )
        blocks.extend(_block(element) for element in elements)
    return blocks


def _pieces(text: str) -> list[str]:
    """Cut at blank lines, because unstructured's paragraph patterns are not linear in length."""
    pieces: list[str] = []
    at = 0
    while len(text) - at > _PIECE:
        cut = text.find("\n\n", at + _PIECE)
        if cut < 0:
            break
        pieces.append(text[at:cut])
        at = cut
    pieces.append(text[at:])
    return [piece for piece in pieces if piece.strip()]


def _one_line_per_paragraph(text: str) -> str:
    """Joins lines that were wrapped; unstructured then takes each line for a paragraph.

    A line goes on in the next one when it is about as long as the longest beside it, unless that
    is too long to have been wrapped, or unless the next line begins something of its own.
    """
    paragraphs: list[str] = []
    for part in _BLANK_LINES.split(text):
        lines = [line.strip() for line in part.split("\n")]
        width = max(map(len, lines), default=0)
        previous = ""
        for line in lines:
            is_wrapped = 0.6 * width <= len(previous) and width <= _LONGEST_WRAPPED
            if previous and is_wrapped and not _OWN_LINE.match(line):
                paragraphs[-1] += " " + line
            else:
                paragraphs.append(line)
            previous = line
    return "\n".join(paragraphs)


def _block(element: Any) -> Block:
    if element.category == "ListItem" or _NUMBERED.match(element.text):
        return Block(ElementKind.LIST_ITEM, element.text)
    return Block(ElementKind.PARAGRAPH, element.text)
