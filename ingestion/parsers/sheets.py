"""Excel workbooks.

Read with openpyxl rather than unstructured, whose pandas turns cells that say "NA", "null" or
"None" into nothing and takes seven times as long on large sheets.
"""

from __future__ import annotations

import datetime
import io
import re
import warnings
import zipfile
from collections.abc import Iterable, Iterator, Sequence
from typing import Final

from openpyxl import load_workbook

from ingestion.elements import ElementKind
from ingestion.parsers.blocks import Block, Extraction, attach, clean
from ingestion.parsers.ole_objects import objects_in_package

_MAX_COLUMNS: Final = 1_000
_MAX_EMPTY_ROWS: Final = 10_000
_DEFAULT_SHEET: Final = re.compile(r"(sheet|tabelle|feuil|hoja|foglio|лист)\s?\d+", re.IGNORECASE)


def parse_xlsx(data: bytes) -> Extraction:
    """Sheets as pages. Stretches of rows between empty rows become tables, lone cells text."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        book = load_workbook(io.BytesIO(data), read_only=True, data_only=True, keep_links=False)
        sheets = book.worksheets
        for sheet in sheets:
            sheet.reset_dimensions()  # files of other programs declare them wrongly
        blocks = blocks_of_book(
            [
                (sheet.title, sheet.iter_rows(values_only=True, max_col=_MAX_COLUMNS))
                for sheet in sheets
            ]
        )
        title = clean(book.properties.title or "")
    extraction = Extraction(
        blocks, "openpyxl", title=title, page_count=len(sheets), heading_is_title=False
    )
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        return attach(extraction, list(objects_in_package(archive)))


def blocks_of_book(sheets: Sequence[tuple[str, Iterable[tuple[object, ...]]]]) -> list[Block]:
    """Tables and lone cells of each sheet, from its name and the values of its cells, as a page.

    The name is its heading, unless it is the only one and has what the program called it.
    """
    blocks: list[Block] = []
    for number, (name, rows) in enumerate(sheets, start=1):
        found = list(_sheet_blocks(_stop_after_the_end(rows), page=number))
        if found and not (len(sheets) == 1 and _DEFAULT_SHEET.fullmatch(name)):
            blocks.append(Block(ElementKind.HEADING, name, level=1, page=number))
        blocks.extend(found)
    return blocks


def _stop_after_the_end(rows: Iterable[tuple[object, ...]]) -> Iterator[list[str]]:
    """Rows as text. Formatting can extend a sheet to a million empty rows; those end it."""
    empty = 0
    for row in rows:
        cells = [_cell_text(value) for value in row]
        empty = 0 if any(cells) else empty + 1
        if empty > _MAX_EMPTY_ROWS:
            return
        yield cells


def _sheet_blocks(rows: Iterator[list[str]], *, page: int) -> Iterator[Block]:
    group: list[list[str]] = []
    for row in rows:
        if any(row):
            group.append(row)
        elif group:
            yield from _group_blocks(group, page=page)
            group = []
    yield from _group_blocks(group, page=page)


def _group_blocks(group: list[list[str]], *, page: int) -> Iterator[Block]:
    """Rows with one filled cell above a table are its label, not its header."""
    at = 0
    while at < len(group) and sum(map(bool, group[at])) == 1:
        at += 1
    table = group[at:]
    for row in group[:at]:
        yield Block(ElementKind.PARAGRAPH, next(filter(None, row)), page=page)
    if table:
        first = min(next(i for i, cell in enumerate(row) if cell) for row in table if any(row))
        yield Block(ElementKind.TABLE, rows=tuple(tuple(row[first:]) for row in table), page=page)


def _cell_text(value: object) -> str:
    match value:
        case None:
            return ""
        case bool():
            return "TRUE" if value else "FALSE"
        case float() if value.is_integer() and abs(value) < 1e15:
            return str(int(value))
        case float():
            return f"{value:.15g}"
        case datetime.datetime() if value.time() == datetime.time():
            return value.date().isoformat()
        case datetime.datetime():
            return value.isoformat(sep=" ", timespec="seconds")
        case _:
            return clean(str(value))
