"""Pictures of documents: PNG, JPEG, TIFF with many pages, BMP, GIF, WebP, HEIC."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any, Final

import pi_heif
from PIL import Image, ImageOps, UnidentifiedImageError

from ingestion.errors import FailureCode, IngestionError
from ingestion.parsers.blocks import Extraction
from ingestion.parsers.ocr import MAX_PIXELS, GreyImage, Recogniser
from ingestion.parsers.page_numbers import page_list
from ingestion.parsers.pdf_layout import blocks_from_lines
from ingestion.parsers.pdf_lines import PdfLine
from ingestion.parsing_limits import Limits

_FORMATS: Final = ("PNG", "JPEG", "TIFF", "BMP", "GIF", "WEBP", "HEIF")
_GUESSED_DPI: Final = 200
_SMALL_SIDE: Final = 1_000  # print in pictures smaller than this is too small for Tesseract
_NO_WORDS: Final = (
    "Text recognition (languages: {languages}) found no words. If there are some, upload a sharper"
    " or larger picture."
)

Image.MAX_IMAGE_PIXELS = None  # checked here, with words for people
pi_heif.register_heif_opener()


def parse_image(
    data: bytes,
    *,
    limits: Limits,
    on_page: Callable[[int, int], None] | None = None,
    on_seconds: Callable[[float], None] | None = None,
) -> Extraction:
    """The text recognised in each frame (TIFF) or in the picture.

    Raises IngestionError: ocr_unavailable, image_too_large, too_many_pages, corrupt_file, no_text.
    """
    recogniser = Recogniser(limits, on_seconds)
    pages: list[list[PdfLine]] = []
    unread: list[int] = []
    with _open(data) as image:
        total = getattr(image, "n_frames", 1) if image.format == "TIFF" else 1
        if total > limits.max_pages:
            raise IngestionError(
                FailureCode.TOO_MANY_PAGES, pages=f"{total:,}", limit=f"{limits.max_pages:,}"
            )
        _check_size(image, limits)
        if recogniser.problem:
            raise IngestionError(FailureCode.OCR_UNAVAILABLE, reason=recogniser.problem)
        for number in range(1, total + 1):
            lines = (
                None if recogniser.is_exhausted else recogniser.lines(_frame(image, number, limits))
            )
            if lines is None:
                unread.append(number)
            pages.append(lines or [])
            if on_page is not None:
                on_page(number, total)
    if not any(pages) and not unread:
        raise IngestionError(
            FailureCode.NO_TEXT, hint=_NO_WORDS.format(languages=limits.ocr_languages)
        )
    return Extraction(
        blocks_from_lines(pages, {}),
        "tesseract",
        page_count=total,
        warnings=[f"Not read, because recognising took too long: {page_list(unread)}."]
        if unread
        else [],
        heading_is_title=False,
    )


def _open(data: bytes) -> Any:
    try:
        return Image.open(io.BytesIO(data), formats=_FORMATS)
    except (UnidentifiedImageError, OSError, SyntaxError) as error:
        raise IngestionError(FailureCode.CORRUPT_FILE, cause=repr(error)) from error


def _frame(image: Any, number: int, limits: Limits) -> GreyImage:
    """One frame, upright and grey on white, at a size that Tesseract reads well."""
    try:
        image.seek(number - 1)
        _check_size(image, limits)
        flat = _on_white(ImageOps.exif_transpose(image))
    except (OSError, SyntaxError, EOFError) as error:
        raise IngestionError(FailureCode.CORRUPT_FILE, cause=repr(error)) from error
    width, height = flat.size
    scale = (
        2.0
        if max(width, height) < _SMALL_SIDE
        else min(1.0, (MAX_PIXELS / (width * height)) ** 0.5)
    )
    if scale != 1.0:
        size = (max(1, round(width * scale)), max(1, round(height * scale)))
        flat = flat.resize(size, Image.Resampling.BICUBIC)
    return GreyImage.of(flat, _GUESSED_DPI)


def _check_size(image: Any, limits: Limits) -> None:
    """By the header alone; nothing is decoded yet."""
    width, height = image.size
    if width * height > limits.max_image_pixels:
        raise IngestionError(
            FailureCode.IMAGE_TOO_LARGE,
            pixels=f"{width * height / 1e6:.0f}",
            limit=f"{limits.max_image_pixels / 1e6:.0f}",
        )


def _on_white(image: Any) -> Any:
    if image.mode in ("1", "L", "RGB", "YCbCr", "CMYK"):
        return image.convert("L")
    if image.mode in ("I", "I;16", "I;16B", "F"):  # 16 bits per point
        return image.convert("I").point(lambda level: level / 257).convert("L")
    rgba = image.convert("RGBA")
    white = Image.new("RGBA", rgba.size, (255, 255, 255, 255))
    return Image.alpha_composite(white, rgba).convert("L")
