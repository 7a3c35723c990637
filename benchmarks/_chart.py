"""A line chart as SVG, both axes logarithmic, without a plotting library."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from xml.sax.saxutils import escape

_WIDTH, _HEIGHT, _LEFT, _RIGHT, _TOP, _BOTTOM = 760, 420, 60, 220, 20, 50
_COLOURS = ("#1b6ca8", "#c2571a", "#2e7d32", "#6a4fa3", "#a8327e", "#5d6d1e", "#8a1c1c", "#0f766e")


def write_chart(
    file: Path, lines: Mapping[str, Sequence[tuple[float, float]]], *, x: str, y: str
) -> None:
    """Points (x, y), both above zero, one line for each name."""
    points = [point for line in lines.values() for point in line]
    left, right = _decades(px for px, _ in points)
    low, high = _decades(py for _, py in points)

    def at(px: float, py: float) -> tuple[float, float]:
        across = (math.log10(px) - left) / max(right - left, 1)
        up = (math.log10(max(py, 10**low)) - low) / max(high - low, 1)
        return (
            _LEFT + across * (_WIDTH - _LEFT - _RIGHT),
            _HEIGHT - _BOTTOM - up * (_HEIGHT - _TOP - _BOTTOM),
        )

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}"'
        ' font-family="sans-serif" font-size="12">',
        '<rect width="100%" height="100%" fill="white"/>',
    ]
    for decade in range(low, high + 1):
        (x0, y0), (x1, _) = at(10**left, 10**decade), at(10**right, 10**decade)
        parts.append(f'<path d="M{x0:.1f} {y0:.1f}H{x1:.1f}" stroke="#ddd"/>')
        parts.append(
            f'<text x="{x0 - 6:.1f}" y="{y0 + 4:.1f}" text-anchor="end">{10**decade:g}</text>'
        )
    for decade in range(left, right + 1):
        (x0, y0), (_, y1) = at(10**decade, 10**low), at(10**decade, 10**high)
        parts.append(f'<path d="M{x0:.1f} {y0:.1f}V{y1:.1f}" stroke="#ddd"/>')
        parts.append(
            f'<text x="{x0:.1f}" y="{y0 + 16:.1f}" text-anchor="middle">{10**decade:,}</text>'
        )
    for number, (name, line) in enumerate(lines.items()):
        colour = _COLOURS[number % len(_COLOURS)]
        dashes = ' stroke-dasharray="5 3"' if number >= len(_COLOURS) else ""
        path = " L".join(f"{px:.1f} {py:.1f}" for px, py in (at(*point) for point in line))
        parts.append(f'<path d="M{path}" fill="none" stroke="{colour}" stroke-width="2"{dashes}/>')
        top = _TOP + 12 + 18 * number
        start = _WIDTH - _RIGHT + 14
        parts.append(
            f'<path d="M{start} {top - 4}h18" stroke="{colour}" stroke-width="2"{dashes}/>'
        )
        parts.append(f'<text x="{start + 24}" y="{top}">{escape(name)}</text>')
    middle = (_LEFT + _WIDTH - _RIGHT) / 2
    parts.append(f'<text x="{middle}" y="{_HEIGHT - 12}" text-anchor="middle">{escape(x)}</text>')
    parts.append(
        f'<text transform="translate(16 {_HEIGHT / 2}) rotate(-90)" text-anchor="middle">'
        f"{escape(y)}</text></svg>"
    )
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("\n".join(parts) + "\n", encoding="utf-8")


def _decades(values: object) -> tuple[int, int]:
    """The powers of ten around all ``values``."""
    logs = [math.log10(value) for value in values if value > 0]  # type: ignore[attr-defined]
    return math.floor(min(logs)), max(math.ceil(max(logs)), math.floor(min(logs)) + 1)
