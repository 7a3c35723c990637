"""Tables as text: CSV and TSV.

Read with the standard library rather than unstructured, whose pandas turns cells that say "NA",
"null" or "None" into nothing.
"""

from __future__ import annotations

import csv
import io
import re
from collections import Counter
from typing import Final

from ingestion.elements import ElementKind
from ingestion.parsers.blocks import Block, Extraction
from ingestion.parsers.decoding import decode

_DELIMITERS: Final = (",", ";", "\t", "|")
_SAMPLE_ROWS: Final = 50
_MAX_FIELD: Final = 10_000_000


def parse_csv(data: bytes) -> Extraction:
    """One table; the delimiter (comma, semicolon, tab or bar) is found from the first rows."""
    return _delimited(data, _DELIMITERS)


def parse_tsv(data: bytes) -> Extraction:
    return _delimited(data, ("\t", ",", ";", "|"))


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
