"""The text layer of a PDF, page by page, with the place of every line. Uses pdfium alone."""

from __future__ import annotations

import ctypes
import math
import unicodedata
from collections.abc import Callable, Iterator
from typing import Any, Final, NamedTuple

import pypdfium2
import pypdfium2.raw as pdfium

from ingestion.errors import FailureCode, IngestionError
from ingestion.parsers.blocks import Extraction, LineBox, clean
from ingestion.parsers.pdf_layout import PdfLine, blocks_from_lines

_PASSWORD_ERRORS: Final = (pdfium.FPDF_ERR_PASSWORD, pdfium.FPDF_ERR_SECURITY)
_LINE_END_HYPHEN: Final = "\ufffe"  # pdfium's mark for a hyphen that it took to be a line's end
_LIGATURES: Final = str.maketrans(
    {chr(0xFB00 + i): text for i, text in enumerate(("ff", "fi", "fl", "ffi", "ffl", "st", "st"))}
)
_SCALE: Final = 1_000_000
_MAX_OUTLINE: Final = 2_000
_MAX_PAGES_NAMED: Final = 20

_SCAN: Final = (
    "It looks like a scan: run text recognition (OCR) on it and upload the result. Recognising"
    " text in images is not available here yet."
)


class _PageView(NamedTuple):
    """A page as shown: affine map from page units to fractions, and its height in points."""

    a: float
    b: float
    c: float
    d: float
    e: float
    f: float
    height: float

    def box(self, left: float, bottom: float, right: float, top: float) -> LineBox:
        xs = [self.a * x + self.c * y + self.e for x, y in ((left, bottom), (right, top))]
        ys = [self.b * x + self.d * y + self.f for x, y in ((left, bottom), (right, top))]
        return LineBox(min(xs), min(ys), max(xs), max(ys))


def parse_pdf(
    data: bytes, *, max_pages: int, on_page: Callable[[int, int], None] | None = None
) -> Extraction:
    """Lines of every page put together to paragraphs and headings.

    ``on_page(done, total)`` is called after each page. Raises IngestionError: password_protected,
    corrupt_file, too_many_pages, no_text.
    """
    document = _open(data)
    try:
        total = len(document)
        if total > max_pages:
            raise IngestionError(
                FailureCode.TOO_MANY_PAGES, pages=f"{total:,}", limit=f"{max_pages:,}"
            )
        if total == 0:
            raise IngestionError(FailureCode.CORRUPT_FILE, cause="no pages")
        pages, without_text, unreadable = _read_pages(document, on_page)
        if not any(pages):
            if len(unreadable) == total:
                raise IngestionError(FailureCode.CORRUPT_FILE, cause="no page could be read")
            raise IngestionError(FailureCode.NO_TEXT, scanned=f" ({total} page(s))", hint=_SCAN)
        warnings = []
        if without_text:
            warnings.append(f"No text on {_page_list(without_text)}: scanned or empty.")
        if unreadable:
            warnings.append(f"Could not read {_page_list(unreadable)}: damaged.")
        return Extraction(
            blocks_from_lines(pages, _outline(document)),
            "pypdfium2",
            title=_title(document),
            page_count=total,
            warnings=warnings,
        )
    finally:
        document.close()


def _open(data: bytes) -> Any:
    try:
        return pypdfium2.PdfDocument(data)
    except pypdfium2.PdfiumError as error:
        code = pdfium.FPDF_GetLastError()
        if code in _PASSWORD_ERRORS or getattr(error, "err_code", None) in _PASSWORD_ERRORS:
            raise IngestionError(FailureCode.PASSWORD_PROTECTED) from error
        raise IngestionError(FailureCode.CORRUPT_FILE, cause=str(error)) from error


def _read_pages(
    document: Any, on_page: Callable[[int, int], None] | None
) -> tuple[list[list[PdfLine]], list[int], list[int]]:
    """Lines of each page, the numbers of pages without text, and of pages that cannot be read."""
    pages: list[list[PdfLine]] = []
    without_text: list[int] = []
    unreadable: list[int] = []
    total = len(document)
    for index in range(total):
        lines: list[PdfLine] = []
        try:
            page = document[index]
        except pypdfium2.PdfiumError:
            unreadable.append(index + 1)
        else:
            try:
                lines = list(_page_lines(page))
                if not lines:
                    without_text.append(index + 1)
            except pypdfium2.PdfiumError:
                unreadable.append(index + 1)
            finally:
                page.close()
        pages.append(lines)
        if on_page is not None:
            on_page(index + 1, total)
    return pages, without_text, unreadable


def _page_lines(page: Any) -> Iterator[PdfLine]:
    text_page = page.get_textpage()
    try:
        text = _characters(text_page)
        if not text.strip("\r\n\t \0\ufffe"):
            return
        view = _view(page)
        for start, end, hyphenated in _split_lines(text):
            shown = clean(text[start:end].translate(_LIGATURES))
            if not shown:
                continue
            if unicodedata.combining(shown[0]):  # would melt into the line before
                shown = "\u25cc" + shown
            boxes = _rectangles(text_page, start, end - start, view)
            size = _font_size(text_page, text, start, end, view)
            yield PdfLine(shown, _union(boxes), size, hyphenated)
    finally:
        text_page.close()


def _characters(text_page: Any) -> str:
    """Exactly one character per pdfium character index."""
    count = text_page.count_chars()
    if count <= 0:
        return ""
    buffer = (ctypes.c_ushort * (count + 1))()
    written = pdfium.FPDFText_GetText(text_page, 0, count, buffer)
    if written == count + 1:
        text = bytes(buffer)[: 2 * count].decode("utf-16-le", "surrogatepass")
        if len(text) == count:
            return text
    codes = [pdfium.FPDFText_GetUnicode(text_page, index) for index in range(count)]
    return "".join(chr(code) if code < 0x110000 else "\ufffd" for code in codes)


def _split_lines(text: str) -> Iterator[tuple[int, int, bool]]:
    """Start and end of each line and whether its last word goes on in the next."""
    start = 0
    for index, character in enumerate(text):
        if character in "\r\n\ufffe\x02":
            if index > start:
                yield start, index, character in (_LINE_END_HYPHEN, "\x02")
            start = index + 1
    if len(text) > start:
        yield start, len(text), False


def _view(page: Any) -> _PageView:
    """Where pdfium would draw the page's points, which accounts for crop box and rotation."""
    points = []
    for x, y in ((0.0, 0.0), (1000.0, 0.0), (0.0, 1000.0)):
        device_x, device_y = ctypes.c_int(), ctypes.c_int()
        pdfium.FPDF_PageToDevice(page, 0, 0, _SCALE, _SCALE, 0, x, y, device_x, device_y)
        points.append((device_x.value / _SCALE, device_y.value / _SCALE))
    (e, f), (x1, y1), (x2, y2) = points
    return _PageView(
        (x1 - e) / 1000, (y1 - f) / 1000, (x2 - e) / 1000, (y2 - f) / 1000, e, f, page.get_height()
    )


def _rectangles(text_page: Any, start: int, count: int, view: _PageView) -> list[LineBox]:
    left, top, right, bottom = (ctypes.c_double() for _ in range(4))
    boxes = []
    for index in range(pdfium.FPDFText_CountRects(text_page, start, count)):
        if pdfium.FPDFText_GetRect(text_page, index, left, top, right, bottom):
            edges = (left.value, bottom.value, right.value, top.value)
            if all(map(math.isfinite, edges)):
                boxes.append(view.box(*edges))
    return boxes


def _union(boxes: list[LineBox]) -> LineBox | None:
    if not boxes:
        return None
    return LineBox(
        min(box.x0 for box in boxes),
        min(box.y0 for box in boxes),
        max(box.x1 for box in boxes),
        max(box.y1 for box in boxes),
    )


def _font_size(text_page: Any, text: str, start: int, end: int, view: _PageView) -> float:
    """Height in points of the font's box at the line's first visible character, as shown."""
    first = next((i for i in range(start, end) if not text[i].isspace()), start)
    rectangle = pdfium.FS_RECTF()
    if not pdfium.FPDFText_GetLooseCharBox(text_page, first, rectangle):
        return 0.0
    box = view.box(rectangle.left, rectangle.bottom, rectangle.right, rectangle.top)
    size = (box.y1 - box.y0) * view.height
    return round(size, 1) if math.isfinite(size) else 0.0


def _outline(document: Any) -> dict[tuple[int, str], int]:
    """(page, title in lower case) of bookmarks to their level from 1."""
    found: dict[tuple[int, str], int] = {}
    try:
        for bookmark in document.get_toc(max_depth=6):
            title = clean(bookmark.get_title() or "").lower()
            destination = bookmark.get_dest()
            index = destination.get_index() if destination is not None else None
            if title and index is not None:
                found.setdefault((index + 1, title), bookmark.level + 1)
            if len(found) >= _MAX_OUTLINE:
                break
    except (pypdfium2.PdfiumError, ValueError, UnicodeError, RecursionError):
        pass  # a broken outline costs its headings, not the document
    return found


def _title(document: Any) -> str:
    try:
        title = clean(document.get_metadata_value("Title") or "")
    except (pypdfium2.PdfiumError, UnicodeError):
        return ""
    is_file_name = title.lower().startswith("microsoft word - ") or (
        "." in title[-5:] and " " not in title
    )
    return "" if is_file_name or title.lower() in ("untitled", "untitled document") else title


def _page_list(numbers: list[int]) -> str:
    """``pages 2, 4-7``."""
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][1] + 1:
            runs[-1][1] = number
        else:
            runs.append([number, number])
    named = ", ".join(f"{a}" if a == b else f"{a}-{b}" for a, b in runs[:_MAX_PAGES_NAMED])
    more = " and others" if len(runs) > _MAX_PAGES_NAMED else ""
    return f"{'page' if len(numbers) == 1 else 'pages'} {named}{more}"
