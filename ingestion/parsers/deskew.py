"""Pictures that were scanned or photographed askew, or upside down."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any, Final

from PIL import Image

from ingestion.parsers.blocks import LineBox
from ingestion.parsers.pdf_lines import PdfLine

_LARGEST_ANGLE: Final = 20
_SEARCH_SIDE: Final = 700
_CLEARLY_BETTER: Final = 1.2


@dataclass(frozen=True, slots=True)
class Straightened:
    """``picture`` turned by ``angle`` degrees; ``back`` puts found lines where they really are."""

    picture: Any
    back: Callable[[list[PdfLine]], list[PdfLine]]


def straighten(picture: Any) -> Straightened | None:
    """The grey ``picture`` with level lines; None when no angle makes them clearly leveller."""
    small = picture.copy()
    small.thumbnail((_SEARCH_SIDE, _SEARCH_SIDE), Image.Resampling.BOX)
    scores = {
        angle: _levelness(small, angle) for angle in range(-_LARGEST_ANGLE, _LARGEST_ANGLE + 1)
    }
    best = max(scores, key=scores.__getitem__)
    if not best or scores[best] < _CLEARLY_BETTER * scores[0]:
        return None
    finer = [best + tenth / 4 for tenth in range(-3, 4)]
    return turn(picture, max(finer, key=lambda candidate: _levelness(small, candidate)))


def turn(picture: Any, angle: float) -> Straightened:
    """``picture`` turned anticlockwise by ``angle`` degrees."""
    turned = picture.rotate(angle, Image.Resampling.BICUBIC, expand=True, fillcolor=255)

    def back(lines: list[PdfLine]) -> list[PdfLine]:
        return [_turned_back(line, angle, turned.size, picture.size) for line in lines]

    return Straightened(turned, back)


def _levelness(picture: Any, angle: float) -> float:
    """How sharply dark and bright rows alternate."""
    rows = picture.rotate(angle, fillcolor=255).resize((1, picture.height), Image.Resampling.BOX)
    levels: bytes = rows.tobytes()
    return float(sum((below - above) ** 2 for above, below in pairwise(levels)))


def _turned_back(
    line: PdfLine, angle: float, turned: tuple[int, int], original: tuple[int, int]
) -> PdfLine:
    def place(box: LineBox) -> LineBox:
        return _place(box, math.radians(angle), turned, original)

    return replace(
        line,
        box=place(line.box) if line.box else None,
        words=tuple((start, end, place(box)) for start, end, box in line.words),
    )


def _place(
    box: LineBox, angle: float, turned: tuple[int, int], original: tuple[int, int]
) -> LineBox:
    """The upright rectangle around the turned one."""
    xs, ys = [], []
    for x, y in ((box.x0, box.y0), (box.x1, box.y0), (box.x0, box.y1), (box.x1, box.y1)):
        dx, dy = (x - 0.5) * turned[0], (y - 0.5) * turned[1]
        xs.append((math.cos(angle) * dx - math.sin(angle) * dy) / original[0] + 0.5)
        ys.append((math.sin(angle) * dx + math.cos(angle) * dy) / original[1] + 0.5)
    return LineBox(*(min(1.0, max(0.0, edge)) for edge in (min(xs), min(ys), max(xs), max(ys))))
