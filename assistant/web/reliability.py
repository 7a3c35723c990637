"""The reliability plot of the relevance: predicted chance against the share that did answer."""

from __future__ import annotations

from dataclasses import dataclass
from math import sqrt

from assistant.retrieval.calibration import Calibrated

# Of the drawing, in its own units: a square with room for the words of the axes.
SIDE = 240
LEFT = 56
TOP = 8


@dataclass(frozen=True, slots=True)
class Dot:
    """A bin at its place in the drawing; ``radius`` grows with the questions in it."""

    x: float
    y: float
    radius: float
    words: str


@dataclass(frozen=True, slots=True)
class Plot:
    """``points`` are the dots as an SVG list, ``ticks`` places and words of both axes."""

    dots: list[Dot]
    points: str
    threshold: float
    ticks: list[tuple[float, float, str]]
    left: int = LEFT
    top: int = TOP
    right: int = LEFT + SIDE
    bottom: int = TOP + SIDE


def plot_of(calibrated: Calibrated) -> Plot | None:
    """None for a calibration that kept no bins."""
    bins = [each for each in calibrated.bins if each.count]
    if not bins:
        return None
    most = max(each.count for each in bins)
    dots = [
        Dot(
            x=_x(each.predicted),
            y=_y(each.observed),
            radius=round(2 + 5 * sqrt(each.count / most), 1),
            words=f"Predicted {each.predicted:.0%}, answered {each.observed:.0%}"
            f" of {each.count:,} questions",
        )
        for each in bins
    ]
    return Plot(
        dots=dots,
        points=" ".join(f"{dot.x},{dot.y}" for dot in dots),
        threshold=_x(calibrated.threshold),
        ticks=[(_x(share), _y(share), f"{share:.0%}") for share in (0, 0.25, 0.5, 0.75, 1)],
    )


def _x(share: float) -> float:
    return round(LEFT + SIDE * share, 1)


def _y(share: float) -> float:
    return round(TOP + SIDE * (1 - share), 1)
