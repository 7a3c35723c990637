"""PowerPoint through unstructured."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Iterator
from typing import Any

from ingestion.elements import ElementKind
from ingestion.parsers import unstructured_engine as engine
from ingestion.parsers.blocks import Block, Extraction, attach
from ingestion.parsers.html import rows_of_table
from ingestion.parsers.office_title import core_title
from ingestion.parsers.ole_objects import objects_in_package


def parse_pptx(data: bytes) -> Extraction:
    """Slides as pages, speaker notes included. Only a slide's own title is a heading."""
    elements = engine.partition_pptx(
        file=io.BytesIO(data), languages=engine.NO_LANGUAGES, include_slide_notes=True
    )
    pages = [element.metadata.page_number or 1 for element in elements]
    extraction = Extraction(
        list(_pptx_blocks(elements)),
        "unstructured",
        title=core_title(data),
        page_count=max(pages, default=None),
    )
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        return attach(extraction, list(objects_in_package(archive)))


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


def _table(element: Any, page: int | None) -> Block:
    rows = rows_of_table(element.metadata.text_as_html or "")
    if not any(any(row) for row in rows):
        return Block(ElementKind.PARAGRAPH, element.text, page=page)
    return Block(ElementKind.TABLE, rows=rows, page=page)
