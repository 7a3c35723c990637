"""Word documents (.docx), read from their XML.

Read here rather than by unstructured, which leaves out footnotes and text boxes, refuses .docm,
loses the numbers of lists and takes several times as long.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from ingestion.elements import ElementKind
from ingestion.parsers.blocks import Block, Extraction, attach, clean
from ingestion.parsers.decoding import decode
from ingestion.parsers.html import blocks_from_html
from ingestion.parsers.mail import body_blocks
from ingestion.parsers.office_title import core_title
from ingestion.parsers.ole_objects import objects_in_package
from ingestion.parsers.plain import blocks_from_text
from ingestion.parsers.word_package import (
    R,
    Style,
    W,
    WordPackage,
    is_on,
    number_of,
    outline_level,
    value_of,
)

_MATH_TEXT: Final = "{http://schemas.openxmlformats.org/officeDocument/2006/math}t"
_FORMULA: Final = "{http://schemas.openxmlformats.org/officeDocument/2006/math}oMath"
_ALTERNATIVE: Final = (
    "{http://schemas.openxmlformats.org/markup-compatibility/2006}AlternateContent"
)
_FALLBACK: Final = "{http://schemas.openxmlformats.org/markup-compatibility/2006}Fallback"
_SKIPPED: Final = frozenset(
    W + tag
    for tag in (
        *("del", "moveFrom", "instrText", "delText", "delInstrText", "pPr", "rPr", "sdtPr"),
        *("commentReference", "annotationRef", "footnoteRef", "endnoteRef"),
    )
)
_TRANSPARENT: Final = frozenset(
    W + tag for tag in ("sdt", "sdtContent", "customXml", "ins", "moveTo")
)
_SPACES: Final = {W + "tab": " ", W + "br": "\n", W + "cr": "\n", W + "noBreakHyphen": "-"}
_NOTES: Final = (("footnote", "/footnotes"), ("endnote", "/endnotes"))
_NOTE_REFERENCES: Final = {W + "footnoteReference": "footnote", W + "endnoteReference": "endnote"}
_SEPARATORS: Final = frozenset({"separator", "continuationSeparator", "continuationNotice"})
_MAX_SPAN: Final = 50
_MAX_DEPTH: Final = 50
_MAX_MARGINS: Final = 20


def parse_docx(data: bytes) -> Extraction:
    """Headings, numbered lists and tables; text boxes where they are anchored; notes and what
    page headers and footers say once at the end. Comments and deleted text are left out.

    Pages are not known: Word decides them when it prints.
    """
    package = WordPackage(data)
    root = package.xml(package.main)
    body = root.find(W + "body") if root is not None else None
    if body is None:
        raise ValueError("no document body")
    reader = _Reader(package)
    blocks = list(reader.blocks(body))
    blocks += reader.notes()
    margins = reader.margins()
    blocks += [Block(ElementKind.PARAGRAPH, text) for text in margins]
    extraction = Extraction(
        blocks,
        "docx",
        title=core_title(data),
        metadata={"page_margins": margins} if margins else {},
    )
    return attach(extraction, list(objects_in_package(package.archive)))


class _Reader:
    def __init__(self, package: WordPackage) -> None:
        self._package = package
        self._boxes: list[Any] = []  # text boxes anchored in the paragraph at hand
        self._cited: dict[str, list[str]] = {"footnote": [], "endnote": []}

    def blocks(self, parent: Any, depth: int = 0) -> Iterator[Block]:
        """Of everything that stands in a body, a cell, a note or a text box."""
        if depth > _MAX_DEPTH:
            raise RecursionError("nested too deeply")
        for node in parent:
            if node.tag == W + "p":
                yield from self._paragraph(node, depth)
            elif node.tag == W + "tbl":
                yield from self._table(node, depth)
            elif node.tag == W + "altChunk":
                yield from self._foreign(node)
            elif node.tag in _TRANSPARENT:
                yield from self.blocks(node, depth + 1)

    def notes(self) -> Iterator[Block]:
        """Footnotes and endnotes in the order of their parts, with the numbers they have."""
        for kind, ending in _NOTES:
            root = self._package.part_by_type(ending)
            cited = self._cited[kind]
            for note in root.iter(W + kind) if root is not None else ():
                identifier = note.get(W + "id", "")
                if note.get(W + "type") in _SEPARATORS or identifier not in cited:
                    continue
                text = clean(" ".join(block.text for block in self.blocks(note)))
                if text:
                    number = cited.index(identifier) + 1
                    yield Block(ElementKind.PARAGRAPH, f"[{number}] {text}")

    def margins(self) -> list[str]:
        """Each header's and footer's text once; a lone page number is none."""
        texts: dict[str, None] = {}
        for ending in ("/header", "/footer"):
            for name in self._package.parts_by_type(ending):
                root = self._package.xml(name)
                for block in self.blocks(root) if root is not None else ():
                    rows = block.rows or ((block.text,),)
                    text = clean(" ".join(cell for row in rows for cell in row))
                    if sum(map(str.isalpha, text)) > 2:
                        texts[text] = None
        return list(texts)[:_MAX_MARGINS]

    def _paragraph(self, node: Any, depth: int) -> Iterator[Block]:
        text = "".join(self._text(node))
        boxes, self._boxes = self._boxes, []
        if text.strip():
            yield self._block(node.find(W + "pPr"), text)
        for box in boxes:
            yield from self.blocks(box, depth + 1)

    def _block(self, properties: Any, text: str) -> Block:
        style = self._package.styles.get(value_of(properties, "pStyle"), Style())
        level = outline_level(properties)
        level = style.level if level is None else level
        number, depth = number_of(properties)
        number = number or style.number
        depth = style.depth if depth is None else depth
        shown = self._package.numbering.next(number, depth) if number not in ("", "0") else ""
        if shown:
            text = f"{shown} {text.lstrip()}"
        if level:
            return Block(ElementKind.HEADING, text, level=level)
        if number not in ("", "0") or (style.is_list and number != "0"):
            return Block(ElementKind.LIST_ITEM, text, level=depth)
        return Block(ElementKind.PARAGRAPH, text)

    def _table(self, node: Any, depth: int) -> Iterator[Block]:
        rows = [list(_parts(row, W + "tc")) for row in _parts(node, W + "tr")]
        if all(len(row) <= 1 for row in rows):  # a frame around text
            for row in rows:
                for cell in row:
                    yield from self.blocks(cell, depth + 1)
            return
        yield Block(
            ElementKind.TABLE,
            rows=tuple(tuple(self._row(row, depth)) for row in rows),
        )

    def _row(self, cells: list[Any], depth: int) -> Iterator[str]:
        for cell in cells:
            properties = cell.find(W + "tcPr")
            merged = properties.find(W + "vMerge") if properties is not None else None
            if merged is not None and merged.get(W + "val") != "restart":
                yield ""  # goes on from the cell above
            else:
                yield _one_line(self.blocks(cell, depth + 1))
            span = value_of(properties, "gridSpan")
            yield from [""] * (min(int(span), _MAX_SPAN) - 1 if span.isdigit() else 0)

    def _foreign(self, node: Any) -> Iterator[Block]:
        """A document of another kind that Word shows in this place."""
        _, name = self._package.relations.get(node.get(R + "id", ""), ("", ""))
        raw = self._package.read(name) if name else None
        if raw is None:
            return
        extension = name.rpartition(".")[2].lower()
        if extension in ("htm", "html", "xhtml"):
            yield from blocks_from_html(decode(raw)[0])[1]
        elif extension in ("mht", "mhtml"):
            yield from body_blocks(raw)
        elif extension == "txt":
            yield from blocks_from_text(decode(raw)[0])

    def _text(self, node: Any) -> Iterator[str]:
        for child in node:
            tag = child.tag
            if tag in (W + "t", _MATH_TEXT):
                yield child.text or ""
            elif tag in _SPACES:
                yield _SPACES[tag]
            elif tag == W + "r" and is_on(child.find(W + "rPr"), "vanish"):
                continue
            elif tag == W + "txbxContent":
                self._boxes.append(child)
            elif tag in _NOTE_REFERENCES:
                yield self._citation(_NOTE_REFERENCES[tag], child.get(W + "id", ""))
            elif tag == _ALTERNATIVE:  # the same content twice, for new programs and for old ones
                yield from self._text([part for part in child if part.tag != _FALLBACK][:1])
            elif tag not in _SKIPPED and isinstance(tag, str):
                yield from self._text(child)
                if tag == _FORMULA:
                    yield " "

    def _citation(self, kind: str, identifier: str) -> str:
        cited = self._cited[kind]
        if identifier not in cited:
            cited.append(identifier)
        return f"[{cited.index(identifier) + 1}]"


def _parts(parent: Any, tag: str) -> Iterator[Any]:
    """Rows of a table or cells of a row, also where something transparent is around them."""
    for node in parent:
        if node.tag == tag:
            yield node
        elif node.tag in _TRANSPARENT:
            yield from _parts(node, tag)


def _one_line(blocks: Iterator[Block]) -> str:
    parts = []
    for block in blocks:
        rows = block.rows or ((block.text,),)
        parts += [cell for row in rows for cell in row if cell.strip()]
    return clean(" ".join(parts))
