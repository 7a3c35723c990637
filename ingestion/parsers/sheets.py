"""Tables: Excel workbooks, CSV and TSV.

Read with openpyxl and the standard library rather than unstructured, whose pandas turns cells
that say "NA", "null" or "None" into nothing and takes seven times as long on large sheets.
"""

from __future__ import annotations

import csv
import datetime
import io
import re
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Final

from openpyxl import load_workbook

from ingestion.elements import ElementKind
from ingestion.parsers.blocks import Block, Extraction, clean
from ingestion.parsers.decoding import decode

_DELIMITERS: Final = (",", ";", "\t", "|")
_SAMPLE_ROWS: Final = 50
_MAX_FIELD: Final = 10_000_000
_MAX_COLUMNS: Final = 1_000
_MAX_EMPTY_ROWS: Final = 10_000
_DEFAULT_SHEET: Final = re.compile(r"(sheet|tabelle|feuil|hoja|foglio|лист)\s?\d+", re.IGNORECASE)


def parse_csv(data: bytes) -> Extraction:
    """One table; the delimiter (comma, semicolon, tab or bar) is found from the first rows."""
    return _delimited(data, _DELIMITERS)


def parse_tsv(data: bytes) -> Extraction:
    return _delimited(data, ("\t", ",", ";", "|"))


def parse_xlsx(data: bytes) -> Extraction:
    """Sheets as pages. Stretches of rows between empty rows become tables, lone cells text."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        book = load_workbook(io.BytesIO(data), read_only=True, data_only=True, keep_links=False)
        blocks: list[Block] = []
        sheets = book.worksheets
        for number, sheet in enumerate(sheets, start=1):
            sheet.reset_dimensions()  # files of other programs declare them wrongly
            rows = sheet.iter_rows(values_only=True, max_col=_MAX_COLUMNS)
            found = list(_sheet_blocks(_stop_after_the_end(rows), page=number))
            if found and not (len(sheets) == 1 and _DEFAULT_SHEET.fullmatch(sheet.title)):
                blocks.append(Block(ElementKind.HEADING, sheet.title, level=1, page=number))
            blocks.extend(found)
        title = clean(book.properties.title or "")
    return Extraction(
        blocks, "openpyxl", title=title, page_count=len(sheets), heading_is_title=False
    )


def _delimited(data: bytes, delimiters: tuple[str, ...]) -> Extraction:
    text, encoding = decode(data)
    text = text.replace("\0", "")
    if declared := re.match(r"sep=(.)\r?\n", text):  # written by Excel
        delimiters, text = (declared[1],), text[declared.end() :]
    csv.field_size_limit(_MAX_FIELD)
    delimiter = _find_delimiter(text, delimiters)
    rows = list(csv.reader(io.StringIO(text, newline=""), delimiter=delimiter))
    blocks = [Block(ElementKind.TABLE, rows=tuple(tuple(row) for row in rows))]
    return Extraction(blocks, "csv", metadata={"encoding": encoding, "delimiter": delimiter})


def _find_delimiter(text: str, delimiters: tuple[str, ...]) -> str:
    """The delimiter that gives most rows of the sample the same number of columns above one."""
    sample = "\n".join(text[: 64 << 10].splitlines()[:_SAMPLE_ROWS])
    best, best_score = delimiters[0], 0.0
    for delimiter in delimiters:
        try:
            widths = Counter(
                len(row) for row in csv.reader(io.StringIO(sample), delimiter=delimiter)
            )
        except csv.Error:
            continue
        width, count = max(widths.items(), key=lambda item: (item[0] > 1, item[1], item[0]))
        score = count + min(width, 50) / 100 if width > 1 else 0.0
        if score > best_score:
            best, best_score = delimiter, score
    return best


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
