"""Where a passage or a quote came from: page, heading path, character offsets, boxes."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class PageBox:
    """A rectangle on a page that shows ``[char_start, char_end)`` of the version's text.

    ``x0`` to ``y1`` are fractions of the page's width and height, origin top left.
    """

    page: int
    char_start: int
    char_end: int
    x0: float
    y0: float
    x1: float
    y1: float

    def overlaps(self, char_start: int, char_end: int) -> bool:
        return self.char_start < char_end and self.char_end > char_start


@dataclass(frozen=True, slots=True)
class Locator:
    """Half-open character range in the stored text of one DocumentVersion, and how to find it.

    ``page`` counts from 1 and is None for formats without pages.
    """

    char_start: int
    char_end: int
    heading_path: tuple[str, ...] = ()
    page: int | None = None
    boxes: tuple[PageBox, ...] = ()

    def to_json(self) -> dict[str, Any]:
        data: dict[str, Any] = {
            "heading_path": list(self.heading_path),
            "char_start": self.char_start,
            "char_end": self.char_end,
        }
        if self.page is not None:
            data["page"] = self.page
        if self.boxes:
            data["boxes"] = [asdict(box) for box in self.boxes]
        return data

    def narrowed(self, char_start: int, char_end: int) -> Locator:
        """The part that shows ``[char_start, char_end)``, with the boxes of those lines only."""
        boxes = tuple(box for box in self.boxes if box.overlaps(char_start, char_end))
        page = boxes[0].page if boxes else self.page
        return Locator(char_start, char_end, self.heading_path, page, boxes)

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Locator:
        """Raises KeyError or TypeError for anything that ``to_json`` did not write."""
        return cls(
            char_start=data["char_start"],
            char_end=data["char_end"],
            heading_path=tuple(data.get("heading_path", ())),
            page=data.get("page"),
            boxes=tuple(PageBox(**box) for box in data.get("boxes", ())),
        )
