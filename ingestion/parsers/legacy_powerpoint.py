"""PowerPoint presentations of before 2007 (.ppt), read from their OLE streams ([MS-PPT]).

The stream is a log of edits: the persist directory says which copy of each slide counts.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final, NamedTuple

import olefile

from ingestion.elements import ElementKind
from ingestion.errors import FailureCode, IngestionError
from ingestion.parsers.blocks import Block, Extraction, attach
from ingestion.parsers.ole_objects import embedded_objects

_ENCRYPTED_TOKEN: Final = 0xF3D1C4DF
_SLIDE, _SLIDE_ATOM, _NOTES, _MAIN_MASTER = 1006, 1007, 1008, 1016
_PERSIST_ATOM: Final = 1011
_PLACEHOLDER_ATOM: Final = 3011
_OUTLINE_REFERENCE, _TEXT_HEADER, _TEXT_WIDE, _TEXT_NARROW = 3998, 3999, 4000, 4008
_SLIDE_LIST, _USER_EDIT, _PERSIST_DIRECTORY = 4080, 4085, 6002
_SHAPE: Final = 0xF004
_LIST_OF_SLIDES, _LIST_OF_MASTERS, _LIST_OF_NOTES = 0, 1, 2
_TITLES: Final = (0, 6)
_BODIES: Final = (1, 5, 7, 8)
_NOTES_TEXT: Final = 2
_MAX_EDITS: Final = 10_000
_MAX_DEPTH: Final = 30


class _Record(NamedTuple):
    kind: int
    instance: int
    is_container: bool
    start: int  # of its content
    end: int


@dataclass(slots=True)
class _Text:
    kind: int
    text: str = ""


@dataclass(slots=True)
class _Entry:
    """A slide, master or notes page in its list, with the texts that the list itself holds."""

    reference: int
    identifier: int
    texts: list[_Text] = field(default_factory=list)


def parse_ppt(data: bytes) -> Extraction:
    """Slides as pages, with their notes. What a master shows on every slide comes once, at the end.

    Raises IngestionError: password_protected, corrupt_file.
    """
    with olefile.OleFileIO(io.BytesIO(data)) as container:
        try:
            user = container.openstream("Current User").read()
            token, offset = struct.unpack_from("<II", user, 12)
            if token == _ENCRYPTED_TOKEN or container.exists("EncryptedSummary"):
                raise IngestionError(FailureCode.PASSWORD_PROTECTED)
            presentation = _Presentation(container.openstream("PowerPoint Document").read(), offset)
            blocks, slides = presentation.blocks()
        except (struct.error, IndexError, KeyError, OSError) as error:
            raise IngestionError(FailureCode.CORRUPT_FILE, cause=repr(error)) from error
        attachments = list(embedded_objects(container))
    return attach(
        Extraction(blocks, "ppt", page_count=slides or None, heading_is_title=True), attachments
    )


class _Presentation:
    def __init__(self, data: bytes, edit: int) -> None:
        self._data = data
        self._persist, document = self._directory(edit)
        self._document = self._record(self._persist[document])

    def blocks(self) -> tuple[list[Block], int]:
        """Blocks and the number of slides."""
        slides = self._list(_LIST_OF_SLIDES)
        notes = {entry.identifier: entry for entry in self._list(_LIST_OF_NOTES)}
        blocks: list[Block] = []
        for page, entry in enumerate(slides, start=1):
            slide = self._at(entry.reference)
            texts = self._slide_texts(slide, entry) if slide else entry.texts
            texts.sort(key=lambda text: text.kind not in _TITLES)
            for text in texts:
                blocks += _text_blocks(text, page)
            note = notes.get(self._notes_of(slide)) if slide else None
            if note and (found := self._at(note.reference)):
                for text in self._texts(found):
                    if text.kind == _NOTES_TEXT:
                        blocks += _text_blocks(text, page)
        return blocks + self._master_blocks(), len(slides)

    def _master_blocks(self) -> list[Block]:
        """Text boxes of masters; their placeholders only say where to click."""
        blocks: dict[str, Block] = {}
        for entry in self._list(_LIST_OF_MASTERS):
            master = self._at(entry.reference)
            if master is None:
                continue
            for shape in self._walk(master):
                if shape.kind != _SHAPE or self._is_placeholder(shape):
                    continue
                for text in self._texts(shape):
                    for block in _text_blocks(text, None):
                        blocks.setdefault(block.text, block)
        return list(blocks.values())

    def _is_placeholder(self, shape: _Record) -> bool:
        return any(record.kind == _PLACEHOLDER_ATOM for record in self._walk(shape))

    def _slide_texts(self, slide: _Record, entry: _Entry) -> list[_Text]:
        """Text of the slide's shapes; placeholders may refer to the text in the list."""
        texts: list[_Text] = []
        used: set[int] = set()
        for record in self._walk(slide):
            if record.kind == _OUTLINE_REFERENCE and record.end - record.start >= 4:
                index = struct.unpack_from("<I", self._data, record.start)[0]
                if index < len(entry.texts) and index not in used:
                    used.add(index)
                    texts.append(entry.texts[index])
            else:
                self._take(record, texts)
        left = [text for index, text in enumerate(entry.texts) if index not in used]
        return left + texts

    def _texts(self, parent: _Record) -> list[_Text]:
        texts: list[_Text] = []
        for record in self._walk(parent):
            self._take(record, texts)
        return texts

    def _take(self, record: _Record, texts: list[_Text]) -> None:
        """A header says what kind of text comes next; the text belongs to the last header."""
        raw = self._data[record.start : record.end]
        if record.kind == _TEXT_HEADER and len(raw) >= 4:
            texts.append(_Text(struct.unpack_from("<I", raw)[0]))
        elif record.kind in (_TEXT_WIDE, _TEXT_NARROW):
            text = raw.decode("utf-16-le" if record.kind == _TEXT_WIDE else "latin-1", "replace")
            if not texts or texts[-1].text:
                texts.append(_Text(4))
            texts[-1].text = text

    def _list(self, instance: int) -> list[_Entry]:
        entries: list[_Entry] = []
        for child in self._children(self._document):
            if child.kind != _SLIDE_LIST or child.instance != instance:
                continue
            for record in self._children(child):
                if record.kind == _PERSIST_ATOM and record.end - record.start >= 16:
                    reference, _, _, identifier = struct.unpack_from(
                        "<IIII", self._data, record.start
                    )
                    entries.append(_Entry(reference, identifier))
                elif entries:
                    self._take(record, entries[-1].texts)
        return entries

    def _notes_of(self, slide: _Record) -> int:
        for child in self._children(slide):
            if child.kind == _SLIDE_ATOM and child.end - child.start >= 20:
                reference: int = struct.unpack_from("<I", self._data, child.start + 16)[0]
                return reference
        return 0

    # Records

    def _at(self, reference: int) -> _Record | None:
        offset = self._persist.get(reference)
        return None if offset is None else self._record(offset)

    def _record(self, offset: int) -> _Record:
        head, kind, length = struct.unpack_from("<HHI", self._data, offset)
        start = offset + 8
        end = min(start + length, len(self._data))
        return _Record(kind, head >> 4, head & 0xF == 0xF, start, end)

    def _children(self, parent: _Record) -> Iterator[_Record]:
        at = parent.start
        while at + 8 <= parent.end:
            child = self._record(at)
            yield child._replace(end=min(child.end, parent.end))
            at = child.end

    def _walk(self, parent: _Record, depth: int = 0) -> Iterator[_Record]:
        for child in self._children(parent):
            yield child
            if child.is_container and depth < _MAX_DEPTH:
                yield from self._walk(child, depth + 1)

    def _directory(self, edit: int) -> tuple[dict[int, int], int]:
        """Where each object is, newest edit first, and the reference of the document itself."""
        persist: dict[int, int] = {}
        document = 0
        seen: set[int] = set()
        while edit not in seen and len(seen) < _MAX_EDITS:
            seen.add(edit)
            record = self._record(edit)
            if record.kind != _USER_EDIT:
                raise IndexError("no user edit")
            previous, directory, reference = struct.unpack_from(
                "<III", self._data, record.start + 8
            )
            document = document or reference
            for identifier, offset in self._persisted(directory):
                persist.setdefault(identifier, offset)
            if not previous:
                break
            edit = previous
        return persist, document

    def _persisted(self, directory: int) -> Iterator[tuple[int, int]]:
        record = self._record(directory)
        if record.kind != _PERSIST_DIRECTORY:
            return
        at = record.start
        while at + 4 <= record.end:
            packed = struct.unpack_from("<I", self._data, at)[0]
            first, count = packed & 0xFFFFF, packed >> 20
            at += 4
            for index in range(count):
                if at + 4 > record.end:
                    return
                yield first + index, struct.unpack_from("<I", self._data, at)[0]
                at += 4


def _text_blocks(text: _Text, page: int | None) -> Iterator[Block]:
    paragraphs = [part.replace("\x0b", " ") for part in text.text.split("\r")]
    paragraphs = [part for part in paragraphs if part.strip().strip("*")]
    if text.kind in _TITLES:
        if paragraphs:
            yield Block(ElementKind.HEADING, " ".join(paragraphs), level=1, page=page)
        return
    kind = ElementKind.LIST_ITEM if text.kind in _BODIES else ElementKind.PARAGRAPH
    for paragraph in paragraphs:
        yield Block(kind, paragraph, page=page)
