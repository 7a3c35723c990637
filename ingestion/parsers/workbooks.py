"""Workbooks that openpyxl does not read (.xls, .xlsb, .ods), through calamine."""

from __future__ import annotations

import datetime
import tempfile
from collections.abc import Iterator

import python_calamine

from ingestion.errors import FailureCode, IngestionError
from ingestion.parsers.blocks import Extraction
from ingestion.parsers.sheets import blocks_of_book


def parse_xls(data: bytes) -> Extraction:
    return _workbook(data, ".xls")


def parse_xlsb(data: bytes) -> Extraction:
    return _workbook(data, ".xlsb")


def parse_ods(data: bytes) -> Extraction:
    return _workbook(data, ".ods")


def _workbook(data: bytes, extension: str) -> Extraction:
    """Sheets as pages, laid out like those of an .xlsx.

    Read from a file, because only then does calamine tell an encrypted workbook from a damaged
    one. Raises IngestionError: password_protected.
    """
    with tempfile.NamedTemporaryFile(suffix=extension) as file:
        file.write(data)
        file.flush()
        try:
            return _read(python_calamine.CalamineWorkbook.from_path(file.name))
        except python_calamine.PasswordError as error:
            raise IngestionError(FailureCode.PASSWORD_PROTECTED) from error
        except BaseException as error:
            # calamine's words for a broken container and for a broken record; the latter is no
            # Exception.
            if not isinstance(error, OSError) and type(error).__name__ != "PanicException":
                raise
            raise IngestionError(FailureCode.CORRUPT_FILE, cause=repr(error)[:300]) from error


def _read(book: python_calamine.CalamineWorkbook) -> Extraction:
    names = [
        sheet.name
        for sheet in book.sheets_metadata
        if sheet.typ == python_calamine.SheetTypeEnum.WorkSheet
    ]
    # Taken one after the other: a sheet is in memory as a whole while its rows are read.
    blocks = blocks_of_book([(name, _values(book, name)) for name in names])
    return Extraction(blocks, "calamine", page_count=len(names), heading_is_title=False)


def _values(book: python_calamine.CalamineWorkbook, name: str) -> Iterator[tuple[object, ...]]:
    """calamine gives "" for empty cells and a time of day or a length for times."""
    for row in book.get_sheet_by_name(name).iter_rows():
        yield tuple(
            str(value) if isinstance(value, datetime.timedelta | datetime.time) else value
            for value in row
        )
