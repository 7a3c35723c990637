"""OpenDocument presentations (.odp)."""

from __future__ import annotations

import io
import re
import zipfile
from collections.abc import Iterator
from typing import Any, Final

from lxml import etree

from ingestion.elements import ElementKind
from ingestion.parsers.blocks import Block, Extraction, clean

_NS: Final = {
    "office": "urn:oasis:names:tc:opendocument:xmlns:office:1.0",
    "draw": "urn:oasis:names:tc:opendocument:xmlns:drawing:1.0",
    "text": "urn:oasis:names:tc:opendocument:xmlns:text:1.0",
    "table": "urn:oasis:names:tc:opendocument:xmlns:table:1.0",
    "presentation": "urn:oasis:names:tc:opendocument:xmlns:presentation:1.0",
    "dc": "http://purl.org/dc/elements/1.1/",
}
_MAX_REPEATS: Final = 50
_FIELD: Final = re.compile(r"<[^<>]*>")  # "<number>": what a field shows in a master


def parse_odp(data: bytes) -> Extraction:
    """Slides as pages; a slide's title is its heading, its notes come after the rest."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        content = _xml(archive.read("content.xml"))
        names = archive.namelist()
        meta = _xml(archive.read("meta.xml")) if "meta.xml" in names else None
        styles = _xml(archive.read("styles.xml")) if "styles.xml" in names else None
    pages = content.findall(".//draw:page", _NS)
    blocks: list[Block] = []
    for number, page in enumerate(pages, start=1):
        blocks += _page_blocks(page, number)
    if styles is not None:
        blocks += _master_blocks(styles, content)
    title = "" if meta is None else meta.findtext(".//dc:title", "", _NS)
    return Extraction(blocks, "odp", title=title, page_count=len(pages) or None)


def _xml(data: bytes) -> Any:
    parser = etree.XMLParser(resolve_entities=False, no_network=True, load_dtd=False)
    return etree.fromstring(data, parser)


def _name(prefix: str, local: str) -> str:
    return f"{{{_NS[prefix]}}}{local}"


_CLASS: Final = _name("presentation", "class")
_TITLES: Final = ("title",)
_NOTES: Final = _name("presentation", "notes")
_LIST: Final = _name("text", "list")
_TABLE: Final = _name("table", "table")
_TEXT: Final = (_name("text", "p"), _name("text", "h"))


def _page_blocks(page: Any, number: int) -> Iterator[Block]:
    shapes = sorted(page, key=lambda shape: shape.get(_CLASS) not in _TITLES)
    for shape in sorted(shapes, key=lambda shape: shape.tag == _NOTES):
        is_title = shape.get(_CLASS) in _TITLES
        if is_title:
            text = " ".join(filter(None, (_text(node) for node in shape.iter(*_TEXT))))
            yield Block(ElementKind.HEADING, text, level=1, page=number)
        else:
            yield from _blocks([shape], number, -1)


def _blocks(node: Any, page: int | None, depth: int) -> Iterator[Block]:
    for child in node:
        if child.tag in _TEXT:
            kind = ElementKind.LIST_ITEM if depth >= 0 else ElementKind.PARAGRAPH
            yield Block(kind, _text(child), level=max(0, depth), page=page)
        elif child.tag == _TABLE:
            yield Block(ElementKind.TABLE, rows=tuple(_rows(child)), page=page)
        elif child.tag == _LIST:
            yield from _blocks(child, page, depth + 1)
        elif isinstance(child.tag, str):
            yield from _blocks(child, page, depth)


def _rows(table: Any) -> Iterator[tuple[str, ...]]:
    repeated = _name("table", "number-columns-repeated")
    for row in table.iter(_name("table", "table-row")):
        cells: list[str] = []
        for cell in row:
            count = cell.get(repeated, "1")
            text = clean(" ".join(_text(part) for part in cell.iter(*_TEXT)))
            cells += [text] * (min(int(count), _MAX_REPEATS) if count.isdigit() else 1)
        yield tuple(cells)


def _text(node: Any) -> str:
    """Text with the spaces, tabs and line breaks that ODF writes as elements."""
    parts = [node.text or ""]
    for child in node:
        if child.tag in (_name("text", "s"), _name("text", "tab"), _name("text", "line-break")):
            parts.append(" ")
        elif isinstance(child.tag, str) and child.tag != _name("office", "annotation"):
            parts.append(_text(child))
        parts.append(child.tail or "")
    return "".join(parts)


def _master_blocks(styles: Any, content: Any) -> list[Block]:
    """What the masters in use show on every slide, once: text that is not a placeholder's.

    Footers that the slides fill in are declared in the content instead.
    """
    blocks: dict[str, Block] = {}
    declared = ("footer-decl", "header-decl")
    for name in declared:
        for node in content.iter(_name("presentation", name)):
            text = clean(_text(node))
            blocks.setdefault(text, Block(ElementKind.PARAGRAPH, text))
    for master in styles.findall(".//{*}master-page"):
        for shape in master:
            if shape.tag == _NOTES or shape.get(_name("presentation", "placeholder")):
                continue
            if shape.get(_CLASS) in ("title", "outline", "subtitle", "notes", "page"):
                continue
            for block in _blocks(shape, None, -1):
                if not _FIELD.fullmatch(block.text.strip()):
                    blocks.setdefault(block.text, block)
    return list(blocks.values())
