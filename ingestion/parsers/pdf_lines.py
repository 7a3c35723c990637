"""The line of a page: what is read of a PDF or a picture before it is put into paragraphs."""

from __future__ import annotations

from dataclasses import dataclass

from ingestion.parsers.blocks import LineBox


@dataclass(frozen=True, slots=True)
class PdfLine:
    """One line as shown. ``size`` is the font's height in points, 0 when unknown.

    ``hyphenated`` lines end within a word; the hyphen itself is not in ``text``. ``begins`` says
    whether the line begins a paragraph, None leaves that to the geometry. ``words`` are offsets
    into ``text`` with the box of each word, where boxes are known that finely.
    """

    text: str
    box: LineBox | None
    size: float = 0.0
    hyphenated: bool = False
    begins: bool | None = None
    words: tuple[tuple[int, int, LineBox], ...] = ()
