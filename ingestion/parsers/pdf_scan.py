"""Which PDF pages need text recognition, and their pictures."""

from __future__ import annotations

import math
from typing import Any, Final

import pypdfium2
import pypdfium2.raw as pdfium

from ingestion.parsers.ocr import MAX_PIXELS, GreyImage
from ingestion.parsers.pdf_lines import PdfLine

_FEW_CHARACTERS: Final = 50
_GARBLED_SHARE: Final = 0.3
_PICTURE_SHARE: Final = 0.5
_FORM_DEPTH: Final = 3
_MAX_OBJECTS: Final = 5_000


def needs_recognition(page: Any, lines: list[PdfLine]) -> bool:
    """No text layer, one that cannot be read, or a few stray characters over a large picture."""
    text = "".join(line.text for line in lines)
    readable = readable_characters(lines)
    if not readable:
        return True
    if sum(map(_is_garbled, text)) > _GARBLED_SHARE * len(text):
        return True
    return readable < _FEW_CHARACTERS and _picture_share(page) > _PICTURE_SHARE


def readable_characters(lines: list[PdfLine]) -> int:
    return sum(character.isalnum() for line in lines for character in line.text)


def render(page: Any, dpi: int) -> GreyImage:
    """The page as shown, grey; at fewer dots per inch when it is very large."""
    width, height = page.get_size()
    area = max(1.0, width * height)
    if not math.isfinite(area):
        raise pypdfium2.PdfiumError("page without a size")
    scale = min(dpi / 72, (MAX_PIXELS / area) ** 0.5)
    bitmap = page.render(scale=scale, grayscale=True)
    try:
        pixels = bytes(bitmap.buffer)
        if bitmap.stride != bitmap.width:
            pixels = b"".join(
                pixels[row * bitmap.stride :][: bitmap.width] for row in range(bitmap.height)
            )
        return GreyImage(bitmap.width, bitmap.height, pixels, max(36, round(scale * 72)))
    finally:
        bitmap.close()


def _is_garbled(character: str) -> bool:
    """Glyphs whose meaning the file does not tell."""
    return character == "\ufffd" or "\ue000" <= character <= "\uf8ff"


def _picture_share(page: Any) -> float:
    """Largest picture's area over the page's."""
    width, height = page.get_size()
    largest = 0.0
    objects = page.get_objects(filter=[pdfium.FPDF_PAGEOBJ_IMAGE], max_depth=_FORM_DEPTH)
    for number, picture in enumerate(objects):
        if number >= _MAX_OBJECTS:
            break
        try:
            left, bottom, right, top = picture.get_bounds()
        except pypdfium2.PdfiumError:
            continue
        largest = max(largest, abs(right - left) * abs(top - bottom))
    return float(largest / max(1.0, width * height))
