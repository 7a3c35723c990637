"""Word and PowerPoint through unstructured."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Iterator
from typing import Any, Final

from lxml import etree

from ingestion.elements import ElementKind
from ingestion.parsers import unstructured_engine as engine
from ingestion.parsers.blocks import Block, Extraction, clean
from ingestion.parsers.html import rows_of_table

_TITLE: Final = "{http://purl.org/dc/elements/1.1/}title"
_MARGINS: Final = frozenset({"Header", "Footer"})
# Titles that Office templates and converters leave behind say nothing about the document.
_PLACEHOLDERS: Final = frozenset(
    {"powerpoint presentation", "slide 1", "untitled", "microsoft word document", "word document"}
)


def parse_docx(data: bytes) -> Extraction:
    """Headings by style, lists, tables. Page headers and footers go to ``metadata``.

    Pages are not known: Word decides them when it prints.
    """
    elements = engine.partition_docx(file=io.BytesIO(data), languages=engine.NO_LANGUAGES)
    margins = list(dict.fromkeys(clean(e.text) for e in elements if e.category in _MARGINS))
    blocks = list(_docx_blocks(elements))
    if not blocks:
        blocks = [Block(ElementKind.PARAGRAPH, text) for text in margins]
    return Extraction(
        blocks,
        "unstructured",
        title=_core_title(data),
        metadata={"page_margins": margins[:20]} if margins else {},
    )


def parse_pptx(data: bytes) -> Extraction:
    """Slides as pages, speaker notes included. Only a slide's own title is a heading."""
    elements = engine.partition_pptx(
        file=io.BytesIO(data), languages=engine.NO_LANGUAGES, include_slide_notes=True
    )
    pages = [element.metadata.page_number or 1 for element in elements]
    return Extraction(
        list(_pptx_blocks(elements)),
        "unstructured",
        title=_core_title(data),
        page_count=max(pages, default=None),
    )


def _docx_blocks(elements: list[Any]) -> Iterator[Block]:
    for element in elements:
        depth = element.metadata.category_depth or 0
        match element.category:
            case "Header" | "Footer" | "PageBreak" | "Image":
                continue
            case "Title":
                yield Block(ElementKind.HEADING, element.text, level=depth + 1)
            case "Table":
                yield _table(element)
            case "ListItem":
                yield Block(ElementKind.LIST_ITEM, element.text, level=depth)
            case _:
                yield Block(ElementKind.PARAGRAPH, element.text)


def _pptx_blocks(elements: list[Any]) -> Iterator[Block]:
    for element in elements:
        page = element.metadata.page_number
        depth = element.metadata.category_depth or 0
        match element.category:
            case "PageBreak" | "Image":
                continue
            case "Title" if depth == 0:
                yield Block(ElementKind.HEADING, element.text, level=1, page=page)
            case "Table":
                yield _table(element, page)
            case "ListItem":
                yield Block(ElementKind.LIST_ITEM, element.text, level=depth, page=page)
            case _:
                yield Block(ElementKind.PARAGRAPH, element.text, page=page)


def _table(element: Any, page: int | None = None) -> Block:
    rows = rows_of_table(element.metadata.text_as_html or "")
    if not any(any(row) for row in rows):
        return Block(ElementKind.PARAGRAPH, element.text, page=page)
    return Block(ElementKind.TABLE, rows=rows, page=page)


def _core_title(data: bytes) -> str:
    """Title in the document's properties, unless it is a template's."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            core = archive.read("docProps/core.xml")
        parser = etree.XMLParser(resolve_entities=False, no_network=True, load_dtd=False)
        title = clean(etree.fromstring(core, parser).findtext(_TITLE) or "")
    except (KeyError, zipfile.BadZipFile, etree.XMLSyntaxError):
        return ""
    return "" if title.lower() in _PLACEHOLDERS else title
