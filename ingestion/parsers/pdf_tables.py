"""Tables in PDF pages, found by cells that stand below one another. Pure functions over geometry.

Columns of running text look alike at first; their cells are long, and they are read one column
after the other.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Final

from ingestion.elements import ElementKind
from ingestion.parsers.blocks import CELL_SEPARATOR, Block, LineBox
from ingestion.parsers.pdf_lines import PdfLine

_MIN_ROWS: Final = 3
_MIN_COLUMNS: Final = 2
_ALIGNED: Final = 0.012  # of the page's width
_MOST: Final = 0.75
_LONG_CELL: Final = 38  # characters: what one column of a page with two holds
_MAX_STEP: Final = 3.5  # line heights between rows
_MAX_COLUMNS: Final = 40


@dataclass(frozen=True, slots=True)
class _Cell:
    text: str
    box: LineBox


@dataclass(slots=True)
class _Row:
    """Lines side by side. ``cells`` from left to right; ``lines`` are what they were made of."""

    cells: list[_Cell]
    lines: list[PdfLine]

    @property
    def top(self) -> float:
        return min(cell.box.y0 for cell in self.cells)

    @property
    def height(self) -> float:
        return max(cell.box.y1 - cell.box.y0 for cell in self.cells)


def split_tables(lines: list[PdfLine], page: int) -> Iterator[list[PdfLine] | Block]:
    """Stretches of running text and tables, in order. Columns of text come one after the other."""
    rows = _rows(lines)
    text: list[PdfLine] = []
    at = 0
    while at < len(rows):
        end = _end_of_grid(rows, at)
        if end - at < _MIN_ROWS:
            text += rows[at].lines
            at += 1
            continue
        grid = rows[at:end]
        columns = _columns(grid)
        if len(columns) >= _MIN_COLUMNS and _is_aligned(grid, columns):
            if _is_running_text(grid):
                text += _column_by_column(grid, columns)
            else:
                if text:
                    yield text
                text = []
                yield _table(grid, columns, page)
        else:
            for row in grid:
                text += row.lines
        at = end
    if text:
        yield text


def _rows(lines: list[PdfLine]) -> list[_Row]:
    rows: list[_Row] = []
    for line in lines:
        cells = _cells_of(line)
        if (
            rows
            and cells
            and rows[-1].cells
            and _stands_beside(rows[-1].cells[-1].box, cells[0].box)
        ):
            rows[-1].cells += cells
            rows[-1].lines.append(line)
        else:
            rows.append(_Row(cells, [line]))
    return rows


def _cells_of(line: PdfLine) -> list[_Cell]:
    if line.begins is not None or line.box is None:  # recognised in a picture, or without a place
        return []
    if not line.words:
        return [_Cell(line.text, line.box)]
    return [_Cell(line.text[start:end], box) for start, end, box in line.words]


def _stands_beside(left: LineBox, right: LineBox) -> bool:
    height = max(left.y1 - left.y0, right.y1 - right.y0, 1e-6)
    return right.x0 >= left.x1 - 0.002 and abs(right.y1 - left.y1) < 0.45 * height


def _end_of_grid(rows: list[_Row], at: int) -> int:
    """Where rows with several cells, not far from each other and in the same columns, end."""
    end = at
    columns: list[tuple[float, float]] = []
    while end < len(rows) and _MIN_COLUMNS <= len(rows[end].cells) <= _MAX_COLUMNS:
        if not _fits(rows[end], columns):
            break
        columns = _columns(rows[at : end + 1])
        if end > at:
            step = rows[end].top - rows[end - 1].top
            height = max(rows[end].height, rows[end - 1].height)
            if not 0 < step < _MAX_STEP * height:
                break
        end += 1
    return end


def _fits(row: _Row, columns: list[tuple[float, float]]) -> bool:
    """Whether no cell reaches over two columns and no column gets two cells."""
    taken: set[int] = set()
    for cell in row.cells:
        touched = {
            index
            for index, (left, right) in enumerate(columns)
            if cell.box.x0 < right - _ALIGNED / 2 and cell.box.x1 > left + _ALIGNED / 2
        }
        if len(touched) > 1 or touched & taken:
            return False
        taken |= touched
    return True


def _columns(grid: list[_Row]) -> list[tuple[float, float]]:
    """Left and right edge of each column: cells that overlap from above are in one."""
    spans = sorted((cell.box.x0, cell.box.x1) for row in grid for cell in row.cells)
    columns: list[tuple[float, float]] = []
    for left, right in spans:
        if columns and left < columns[-1][1] - _ALIGNED / 2:
            columns[-1] = (columns[-1][0], max(columns[-1][1], right))
        else:
            columns.append((left, right))
    return columns


def _is_aligned(grid: list[_Row], columns: list[tuple[float, float]]) -> bool:
    """Whether most rows fill most columns, each cell a column of its own."""
    full = 0
    for row in grid:
        places = [_column_of(cell, columns) for cell in row.cells]
        full += len(set(places)) == len(places) and len(places) > len(columns) / 2
    return full >= _MOST * len(grid)


def _column_of(cell: _Cell, columns: list[tuple[float, float]]) -> int:
    middle = (cell.box.x0 + cell.box.x1) / 2
    return min(
        range(len(columns)),
        key=lambda index: (
            abs(sum(columns[index]) / 2 - middle)
            if not columns[index][0] <= middle <= columns[index][1]
            else -1.0
        ),
    )


def _is_running_text(grid: list[_Row]) -> bool:
    lengths = [len(cell.text) for row in grid for cell in row.cells]
    return statistics.median(lengths) >= _LONG_CELL


def _column_by_column(grid: list[_Row], columns: list[tuple[float, float]]) -> list[PdfLine]:
    ordered: list[list[PdfLine]] = [[] for _ in columns]
    for row in grid:
        size, hyphenated = row.lines[-1].size, row.lines[-1].hyphenated
        for cell in row.cells:
            is_last = cell is row.cells[-1]
            line = PdfLine(cell.text, cell.box, size, hyphenated and is_last)
            ordered[_column_of(cell, columns)].append(_without_hyphen(line))
    return [line for column in ordered for line in column]


def _without_hyphen(line: PdfLine) -> PdfLine:
    """pdfium marks hyphens only at what it takes to be a line's end: not between columns."""
    if len(line.text) > 2 and line.text.endswith("-") and line.text[-2].islower():
        return replace(line, text=line.text[:-1], hyphenated=True)
    return line


def _table(grid: list[_Row], columns: list[tuple[float, float]], page: int) -> Block:
    """Rows of cells, and the box of each cell at its place in the table's text."""
    rows: list[list[list[_Cell]]] = []
    for row in grid:
        placed: list[list[_Cell]] = [[] for _ in columns]
        for cell in row.cells:
            placed[_column_of(cell, columns)].append(cell)
        rows.append(placed)
    texts = [tuple(" ".join(cell.text for cell in cells) for cells in row) for row in rows]
    places: list[tuple[int, int, LineBox]] = []
    position = 0
    for placed, cells_text in zip(rows, texts, strict=True):
        joined = CELL_SEPARATOR.join(cells_text)
        at = position - (len(joined) - len(joined.lstrip()))
        for cells, text in zip(placed, cells_text, strict=True):
            start = at
            for cell in cells:
                places.append((start, start + len(cell.text), cell.box))
                start += len(cell.text) + 1
            at += len(text) + len(CELL_SEPARATOR)
        position += len(joined.strip()) + 1
    return Block(ElementKind.TABLE, rows=tuple(texts), page=page, lines=tuple(places))
