"""Word documents of before 2007 (.doc), read from their OLE streams ([MS-DOC]).

Text comes from the piece table, the role of each paragraph from the paragraph properties and the
style sheet. Written here because no kept package keeps headings, lists and tables of this format.
"""

from __future__ import annotations

import io
import re
import struct
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import olefile

from ingestion.elements import ElementKind
from ingestion.errors import FailureCode, IngestionError
from ingestion.parsers.blocks import Block, Extraction, attach, clean
from ingestion.parsers.ole_objects import embedded_objects

_MAGIC: Final = (0xA5EC, 0xA5DC)  # Word 97 and later; Word 6 and 95
_FIRST_WORD_97: Final = 0x00C1
_ENCRYPTED: Final = 0x0100
_TABLE_1: Final = 0x0200
_FC_STYLES: Final = 0x00A2
_FC_PARAGRAPHS: Final = 0x0102
_FC_CLX: Final = 0x01A2
_LENGTHS: Final = 0x4C  # main text, footnotes, headers, macros, comments, endnotes, text boxes
_PAGE: Final = 512
_SPRM_SIZES: Final = (1, 1, 2, 4, 2, 2, 0, 3)
_IN_TABLE, _ROW_END, _INNER_CELL, _INNER_ROW_END = 0x2416, 0x2417, 0x244B, 0x244C
_LIST_LEVEL, _LIST_ID, _OUTLINE_LEVEL = 0x260A, 0x460B, 0x2640
_LONG_SPRM: Final = frozenset({0xD608, 0xD606})
_TITLE_STYLE: Final = 62
_NO_STYLE: Final = 0xFFF
_MAX_STYLE_DEPTH: Final = 12
_FIELD_BEGIN, _FIELD_SEPARATOR, _FIELD_END = "\x13", "\x14", "\x15"
_PARAGRAPH_ENDS: Final = re.compile("[\r\x07\x0c]")
_SPECIAL: Final = str.maketrans(
    {"\x0b": " ", "\x1e": "-", "\x1f": None, "\x01": None, "\x02": None, "\x05": None, "\x08": None}
)
_DAMAGE: Final = (struct.error, IndexError, OSError)


class _Paragraph(NamedTuple):
    text: str
    end: str  # the character that ends it
    properties: dict[int, int]
    style: int


@dataclass(frozen=True, slots=True)
class _Style:
    level: int  # heading level, 0 for none; -1 for the title
    list_id: int


def parse_doc(data: bytes) -> Extraction:
    """Headings, lists, tables, footnotes and text boxes; documents embedded in it likewise.

    Raises IngestionError: password_protected, corrupt_file.
    """
    with olefile.OleFileIO(io.BytesIO(data)) as container:
        blocks: list[Block] = []
        for path in _word_storages(container):
            try:
                blocks += _Document(container, path).blocks()
            except _DAMAGE as error:
                if path == ():
                    raise IngestionError(FailureCode.CORRUPT_FILE, cause=repr(error)) from error
        attachments = list(embedded_objects(container))
        title = clean(_title(container))
    return attach(Extraction(blocks, "doc", title=title), attachments)


def _word_storages(container: Any) -> list[tuple[str, ...]]:
    """The document itself first, then Word documents embedded in it."""
    found = [tuple(name[:-1]) for name in container.listdir() if name[-1] == "WordDocument"]
    return sorted(set(found), key=lambda path: (len(path), path))


def _title(container: Any) -> str:
    try:
        title = container.get_metadata().title
    except (*_DAMAGE, ValueError, TypeError, AttributeError, OverflowError):
        return ""
    if isinstance(title, bytes):
        return title.decode("cp1252", "replace")
    return title or ""


class _Document:
    """One WordDocument stream and its table stream."""

    def __init__(self, container: Any, path: tuple[str, ...]) -> None:
        self._word = _read(container, path, "WordDocument")
        magic, version = struct.unpack_from("<HH", self._word)
        flags = struct.unpack_from("<H", self._word, 10)[0]
        if magic not in _MAGIC:
            raise IngestionError(FailureCode.CORRUPT_FILE, cause=f"magic {magic:x}")
        if flags & _ENCRYPTED:
            raise IngestionError(FailureCode.PASSWORD_PROTECTED)
        self._is_old = version < _FIRST_WORD_97
        self._pieces: list[tuple[int, int, int, bool]] = []  # characters from, to, at, is wide
        if self._is_old:
            return
        self._table = _read(container, path, "1Table" if flags & _TABLE_1 else "0Table")
        self._pieces = list(_pieces(self._part(_FC_CLX)))
        self._runs = list(_paragraph_runs(self._word, self._part(_FC_PARAGRAPHS)))
        self._run_starts = [run[0] for run in self._runs]
        self._styles = _styles(self._part(_FC_STYLES))

    def blocks(self) -> list[Block]:
        if self._is_old:
            return self._old_blocks()
        main, footnotes, headers, macros, comments, endnotes, boxes = struct.unpack_from(
            "<7i", self._word, _LENGTHS
        )
        ends = [0]
        for length in (main, footnotes, headers, macros, comments, endnotes, boxes):
            ends.append(ends[-1] + max(0, length))
        blocks: list[Block] = []
        for part in (0, 1, 5, 6):  # without page headers, macros and comments
            blocks += _Layout(self._styles).run(self._paragraphs(ends[part], ends[part + 1]))
        return blocks

    def _part(self, at: int) -> bytes:
        offset, length = struct.unpack_from("<II", self._word, at)
        return self._table[offset : offset + length]

    def _old_blocks(self) -> list[Block]:
        start = struct.unpack_from("<I", self._word, 0x18)[0]
        length = struct.unpack_from("<I", self._word, 0x34)[0]
        text = _without_fields(self._word[start : start + length].decode("cp1252", "replace"))
        return [
            Block(ElementKind.PARAGRAPH, part.translate(_SPECIAL))
            for part in _PARAGRAPH_ENDS.split(text)
        ]

    def _paragraphs(self, begin: int, stop: int) -> Iterator[_Paragraph]:
        """Paragraphs of characters [begin, stop). Their properties hang at their last character."""
        text: list[str] = []
        for first, last, at, wide in self._pieces:
            first_kept, last_kept = max(first, begin), min(last, stop)
            if first_kept >= last_kept:
                continue
            width = 2 if wide else 1
            start = at + (first_kept - first) * width
            raw = self._word[start : start + (last_kept - first_kept) * width]
            piece = raw.decode("utf-16-le" if wide else "cp1252", "replace")
            position = 0
            for match in _PARAGRAPH_ENDS.finditer(piece):
                text.append(piece[position : match.start()])
                style, properties = self._properties(start + match.start() * width)
                yield _Paragraph("".join(text), match[0], properties, style)
                text, position = [], match.end()
            text.append(piece[position:])
        if any(text):
            yield _Paragraph("".join(text), "\r", {}, 0)

    def _properties(self, offset: int) -> tuple[int, dict[int, int]]:
        index = bisect_right(self._run_starts, offset) - 1
        if index < 0 or offset >= self._runs[index][1]:
            return 0, {}
        _, _, style, grpprl = self._runs[index]
        return style, _sprms(grpprl)


class _Layout:
    """Paragraphs to Blocks: cells to tables, fields to what they show."""

    def __init__(self, styles: list[_Style]) -> None:
        self._styles = styles
        self._open_fields: list[bool] = []  # for each open field, whether its result has begun
        self._cell: list[str] = []
        self._row: list[str] = []
        self._rows: list[tuple[str, ...]] = []

    def run(self, paragraphs: Iterator[_Paragraph]) -> Iterator[Block]:
        for paragraph in paragraphs:
            text = self._shown(paragraph.text).translate(_SPECIAL)
            if paragraph.properties.get(_IN_TABLE) or paragraph.end == "\x07":
                self._add_to_table(text, paragraph)
                continue
            yield from self._table()
            if text.strip():
                yield self._block(text, paragraph)
        yield from self._table()

    def _add_to_table(self, text: str, paragraph: _Paragraph) -> None:
        if paragraph.properties.get(_ROW_END) and paragraph.end == "\x07":
            self._rows.append(tuple(self._row))
            self._row = []
            return
        self._cell.append(text)
        if paragraph.end == "\x07":
            self._row.append(" ".join(self._cell))
            self._cell = []

    def _table(self) -> Iterator[Block]:
        if self._cell:
            self._row.append(" ".join(self._cell))
        if self._row:
            self._rows.append(tuple(self._row))
        if self._rows:
            yield Block(ElementKind.TABLE, rows=tuple(self._rows))
        self._cell, self._row, self._rows = [], [], []

    def _block(self, text: str, paragraph: _Paragraph) -> Block:
        style = self._styles[paragraph.style] if paragraph.style < len(self._styles) else None
        outline = paragraph.properties.get(_OUTLINE_LEVEL)
        level = outline + 1 if outline is not None and outline < 9 else 0
        if outline is None and style:
            level = style.level
        if level:
            return Block(ElementKind.HEADING, text, level=max(1, level))
        listed = paragraph.properties.get(_LIST_ID, style.list_id if style else 0)
        if listed and listed < 0x7FF:
            depth = paragraph.properties.get(_LIST_LEVEL, 0)
            return Block(ElementKind.LIST_ITEM, text, level=min(depth, 8))
        return Block(ElementKind.PARAGRAPH, text)

    def _shown(self, text: str) -> str:
        if not self._open_fields and _FIELD_BEGIN not in text:
            return text
        kept = []
        for character in text:
            if character == _FIELD_BEGIN:
                self._open_fields.append(False)
            elif character == _FIELD_SEPARATOR and self._open_fields:
                self._open_fields[-1] = True
            elif character == _FIELD_END and self._open_fields:
                self._open_fields.pop()
            elif all(self._open_fields):
                kept.append(character)
        return "".join(kept)


def _without_fields(text: str) -> str:
    return _Layout([])._shown(text)


def _read(container: Any, path: tuple[str, ...], name: str) -> bytes:
    with container.openstream([*path, name]) as stream:
        data: bytes = stream.read()
        return data


def _pieces(clx: bytes) -> Iterator[tuple[int, int, int, bool]]:
    at = 0
    while at < len(clx) and clx[at] == 1:  # property modifications, not needed
        at += 3 + struct.unpack_from("<H", clx, at + 1)[0]
    if at >= len(clx) or clx[at] != 2:
        raise IndexError("no piece table")
    length = struct.unpack_from("<I", clx, at + 1)[0]
    plc = clx[at + 5 : at + 5 + length]
    count = (len(plc) - 4) // 12
    borders = struct.unpack_from(f"<{count + 1}I", plc)
    for index in range(count):
        position = struct.unpack_from("<I", plc, (count + 1) * 4 + index * 8 + 2)[0]
        is_narrow = bool(position & 0x4000_0000)
        position &= 0x3FFF_FFFF
        offset = position // 2 if is_narrow else position
        yield borders[index], borders[index + 1], offset, not is_narrow


def _paragraph_runs(word: bytes, plc: bytes) -> Iterator[tuple[int, int, int, bytes]]:
    """Offset from, offset to, style and properties, in the order of the stream."""
    count = max(0, (len(plc) - 4) // 8)
    pages = struct.unpack_from(f"<{count}I", plc, (count + 1) * 4) if count else ()
    for number in pages:
        page = word[(number & 0x3FFFFF) * _PAGE :][:_PAGE]
        if len(page) < _PAGE:
            continue
        runs = page[-1]
        borders = struct.unpack_from(f"<{runs + 1}I", page)
        for index in range(runs):
            at = page[(runs + 1) * 4 + index * 13] * 2
            style, grpprl = 0, b""
            if at:
                size = page[at] * 2 - 1
                if size < 0:
                    at += 1
                    size = page[at] * 2
                body = page[at + 1 : at + 1 + size]
                if len(body) >= 2:
                    style, grpprl = struct.unpack_from("<H", body)[0], body[2:]
            yield borders[index], borders[index + 1], style, grpprl


def _sprms(grpprl: bytes) -> dict[int, int]:
    """Property codes to their values, as far as those are numbers."""
    found: dict[int, int] = {}
    at = 0
    while at + 2 <= len(grpprl):
        code = grpprl[at] | grpprl[at + 1] << 8
        at += 2
        size = _SPRM_SIZES[code >> 13]
        if code >> 13 == 6:
            if code in _LONG_SPRM:
                size = int.from_bytes(grpprl[at : at + 2], "little") + 1
            else:
                size = (grpprl[at] if at < len(grpprl) else 0) + 1
        else:
            found[code] = int.from_bytes(grpprl[at : at + size], "little")
        at += size
    return found


def _styles(sheet: bytes) -> list[_Style]:
    if len(sheet) < 6:
        return []
    header = struct.unpack_from("<H", sheet)[0]
    count, base_size = struct.unpack_from("<HH", sheet, 2)
    at = 2 + header
    raw: list[tuple[int, int, dict[int, int]]] = []  # identifier, base style, properties
    for _ in range(min(count, 4096)):
        if at + 2 > len(sheet):
            break
        size = struct.unpack_from("<H", sheet, at)[0]
        raw.append(_style_definition(sheet[at + 2 : at + 2 + size], base_size))
        at += 2 + size + (size & 1)
    return [_resolved(raw, index) for index in range(len(raw))]


def _style_definition(data: bytes, base_size: int) -> tuple[int, int, dict[int, int]]:
    if len(data) < base_size + 2 or len(data) < 4:
        return 0xFFE, _NO_STYLE, {}
    identifier, kind_and_base = struct.unpack_from("<HH", data)
    properties: dict[int, int] = {}
    if kind_and_base & 0xF == 1:  # a paragraph style: its first part is paragraph properties
        at = base_size + 2 + 2 * struct.unpack_from("<H", data, base_size)[0] + 2
        at += at & 1
        if at + 4 <= len(data):
            size = struct.unpack_from("<H", data, at)[0]
            properties = _sprms(data[at + 4 : at + 2 + size])
    return identifier & 0xFFF, kind_and_base >> 4, properties


def _resolved(raw: list[tuple[int, int, dict[int, int]]], index: int) -> _Style:
    """Heading level and list of a style, inherited from the styles it is based on."""
    level = list_id = 0
    for _ in range(_MAX_STYLE_DEPTH):
        if index >= len(raw):
            break
        identifier, base, properties = raw[index]
        outline = properties.get(_OUTLINE_LEVEL, 9)
        if not level:
            if 1 <= identifier <= 9:
                level = identifier
            elif identifier == _TITLE_STYLE:
                level = -1
            elif outline < 9:
                level = outline + 1
        list_id = list_id or properties.get(_LIST_ID, 0)
        index = base
    return _Style(level, list_id)
