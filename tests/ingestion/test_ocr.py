"""Text recognition: which pages, which words where, and what is said when it cannot be done."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path

import pypdfium2
import pytest
from PIL import Image, ImageDraw, ImageFont

from ingestion import admission
from ingestion.elements import Box, ParsedDocument
from ingestion.errors import FailureCode, IngestionError
from ingestion.parsing import parse_document
from ingestion.parsing_limits import Limits
from tests.ingestion.programs import needs_tesseract
from tests.ingestion.test_parsing import PAGE, assert_promises, make_pdf

LIMITS = Limits()
WORDS = ("Alpine meadows bloom in June", "Quarterly budget of the harbour office")


def read(data: bytes, name: str, limits: Limits = LIMITS) -> ParsedDocument:
    media_type = admission.inspect_bytes(data, filename=name, limits=limits)
    document = parse_document(data, media_type=media_type, limits=limits)
    assert_promises(document)
    return document


def refusal(data: bytes, name: str, limits: Limits = LIMITS) -> IngestionError:
    with pytest.raises(IngestionError) as caught:
        read(data, name, limits)
    return caught.value


def picture(lines: tuple[str, ...] = WORDS, turn: float = 0) -> Image.Image:
    image = Image.new("L", (1700, 1100), 255)
    draw = ImageDraw.Draw(image)
    font = ImageFont.load_default(size=44)
    for number, line in enumerate(lines):
        draw.text((200, 250 + 220 * number), line, fill=0, font=font)
    return image.rotate(turn, Image.Resampling.BICUBIC, expand=True, fillcolor=255)


def saved(image: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def scan(*pages: Image.Image | None) -> bytes:
    """A PDF of pictures; None makes a page with text."""
    document = pypdfium2.PdfDocument.new()
    for image in pages:
        if image is None:
            document.import_pages(pypdfium2.PdfDocument(make_pdf([PAGE])))
            continue
        page = document.new_page(image.width * 72 / 200, image.height * 72 / 200)
        shown = pypdfium2.PdfImage.new(document)
        shown.load_jpeg(io.BytesIO(saved(image, "JPEG", quality=95)), inline=True)
        shown.set_matrix(pypdfium2.PdfMatrix().scale(*page.get_size()))
        page.insert_obj(shown)
        page.gen_content()
    buffer = io.BytesIO()
    document.save(buffer)
    return buffer.getvalue()


def darkest(image: Image.Image) -> int:
    return min(image.tobytes())


def boxes_of(document: ParsedDocument, words: str) -> list[Box]:
    start = document.text.index(words)
    end = start + len(words)
    return [box for box in document.boxes if box.char_start < end and box.char_end > start]


@needs_tesseract
@pytest.mark.parametrize("turn", [0, 90, 180, 270, 7, -4])
def test_words_are_found_with_their_places_however_the_page_lies(turn: float) -> None:
    document = read(saved(picture(turn=turn), "PNG"), "a.png")
    for line in WORDS:
        assert line in document.text
    (box,) = boxes_of(document, "budget")
    assert document.text[box.char_start : box.char_end] == "budget"
    # The word is dark, what lies beside its line is not.
    image = picture(turn=turn)
    x0, x1 = (round(edge * image.width) for edge in (box.x0, box.x1))
    y0, y1 = (round(edge * image.height) for edge in (box.y0, box.y1))
    assert darkest(image.crop((x0, y0, x1, y1))) < 60
    blank = Image.new("L", image.size, 255)
    for other in document.boxes:
        edges = (
            int(other.x0 * image.width) - 8,
            int(other.y0 * image.height) - 8,
            int(other.x1 * image.width) + 8,
            int(other.y1 * image.height) + 8,
        )
        image.paste(blank.crop(edges), edges)
    assert darkest(image) > 100, "there is ink outside the boxes"


@needs_tesseract
def test_only_pages_without_text_are_recognised() -> None:
    seen: list[float] = []
    progress: list[tuple[int, int]] = []
    data = scan(None, picture(), None, Image.new("L", (1700, 1100), 255))
    document = parse_document(
        data,
        media_type=admission.PDF,
        limits=LIMITS,
        on_progress=lambda done, total: progress.append((done, total)),
        on_recognised=seen.append,
    )
    assert len(seen) == 1
    assert progress == [(1, 4), (2, 4), (3, 4), (4, 4)]
    assert {element.page for element in document.elements if element.page} == {1, 2, 3}
    (box,) = boxes_of(document, "harbour")
    assert box.page == 2 and 0 < box.x0 < box.x1 < 1
    assert document.warnings == () and document.parser == "pypdfium2+tesseract"


@needs_tesseract
def test_tiff_pages() -> None:
    pages = [picture((line,)) for line in WORDS]
    data = saved(pages[0], "TIFF", save_all=True, append_images=pages[1:])
    document = read(data, "a.tif")
    assert document.page_count == 2
    assert boxes_of(document, "Alpine")[0].page == 1
    assert boxes_of(document, "budget")[0].page == 2
    assert refusal(data, "a.tif", Limits(max_pages=1)).code is FailureCode.TOO_MANY_PAGES


@needs_tesseract
@pytest.mark.parametrize("kind", ["PNG", "JPEG", "BMP", "GIF", "WEBP"])
def test_the_bytes_tell_the_kind_of_picture(kind: str) -> None:
    assert "Alpine meadows" in read(saved(picture(), kind), "a.png").text


@needs_tesseract
def test_transparent_and_sixteen_bit_pictures() -> None:
    clear = Image.new("RGBA", (1700, 1100), (0, 0, 0, 0))
    clear.putalpha(picture().point(lambda level: 255 - level))
    assert "Alpine meadows" in read(saved(clear, "PNG"), "a.png").text
    deep = picture().convert("I").point(lambda level: level * 257)
    assert "Alpine meadows" in read(saved(deep, "TIFF"), "a.tif").text


@needs_tesseract
def test_a_picture_without_words_says_so() -> None:
    gradient = Image.linear_gradient("L").resize((800, 600))
    error = refusal(saved(gradient, "PNG"), "a.png")
    assert error.code is FailureCode.NO_TEXT
    assert "Text recognition (languages: eng) found no words" in error.detail


def test_a_missing_language_is_said_with_what_to_do() -> None:
    limits = Limits(ocr_languages="eng+tlh")
    error = refusal(saved(picture(), "PNG"), "a.png", limits)
    assert error.code is FailureCode.OCR_UNAVAILABLE
    assert "administrator" in error.detail
    error = refusal(scan(picture()), "a.pdf", limits)
    assert error.code is FailureCode.OCR_UNAVAILABLE
    document = read(scan(None, picture(), picture()), "a.pdf", limits)
    assert "No text on pages 2-3: scanned" in document.warnings[0]


def test_a_missing_program_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ingestion.parsers.ocr.shutil.which", lambda _: None)
    error = refusal(saved(picture(), "PNG"), "a.png")
    assert "the program Tesseract is not installed" in error.detail
    error = refusal(saved(picture(), "PNG"), "a.png", Limits(ocr_languages=""))
    assert "text recognition is switched off" in error.detail


def test_blank_pages_need_no_recognition() -> None:
    blank = scan(Image.new("L", (500, 500), 255))
    error = refusal(blank, "a.pdf", Limits(ocr_languages="tlh"))
    assert error.code is FailureCode.NO_TEXT


@needs_tesseract
def test_limits_on_pages_and_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = scan(picture(), picture(), picture())
    document = read(data, "a.pdf", Limits(max_ocr_pages=2))
    assert document.warnings[0].endswith("page 3.")
    slow = tmp_path / "tesseract"
    slow.write_text('#!/bin/sh\n[ "$1" = --list-langs ] && printf "List:\\neng\\n" || sleep 30\n')
    slow.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    error = refusal(data, "a.pdf", Limits(ocr_page_seconds=0.2))
    assert error.code is FailureCode.PARSE_TIMEOUT


def test_image_bombs_are_seen_by_their_header() -> None:
    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 0, 0, 0, 0)
    chunk = b"IHDR" + header
    data = (
        b"\x89PNG\r\n\x1a\n"
        + struct.pack(">I", len(header))
        + chunk
        + struct.pack(">I", zlib.crc32(chunk))
        + struct.pack(">I", 10)
        + b"IDAT"
        + zlib.compress(bytes(100))[:10]
    )
    error = refusal(data, "a.png")
    assert error.code is FailureCode.IMAGE_TOO_LARGE
    assert "3600 million pixels" in error.detail


def test_damaged_pictures() -> None:
    data = saved(picture(), "PNG")
    assert refusal(data[:2000], "a.png").code is FailureCode.CORRUPT_FILE
    assert refusal(b"GIF89a" + bytes(50), "a.gif").code is FailureCode.CORRUPT_FILE
