"""PDF: the text layer page by page, with places; text recognition for pages without one."""

from __future__ import annotations

import ctypes
import math
import unicodedata
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from itertools import pairwise
from typing import Any, Final, NamedTuple

import pypdfium2
import pypdfium2.raw as pdfium

from ingestion.attachments import Attachment, UnreadableAttachmentError
from ingestion.errors import FailureCode, IngestionError
from ingestion.parsers.blocks import Extraction, LineBox, attach, clean
from ingestion.parsers.ocr import GreyImage, Recogniser
from ingestion.parsers.page_numbers import page_list
from ingestion.parsers.pdf_extras import embedded_files, field_values
from ingestion.parsers.pdf_layout import blocks_from_lines
from ingestion.parsers.pdf_lines import PdfLine
from ingestion.parsers.pdf_scan import needs_recognition, readable_characters, render
from ingestion.parsing_limits import Limits

_PASSWORD_ERRORS: Final = (pdfium.FPDF_ERR_PASSWORD, pdfium.FPDF_ERR_SECURITY)
_LINE_END_HYPHEN: Final = "\ufffe"  # pdfium's mark for a hyphen that it took to be a line's end
_LIGATURES: Final = str.maketrans(
    {chr(0xFB00 + i): text for i, text in enumerate(("ff", "fi", "fl", "ffi", "ffl", "st", "st"))}
)
_SCALE: Final = 1_000_000
_LEAST_GAP: Final = 5.0  # points
_WIDE_CHARACTER: Final = 0.62  # of the height of print; an average one has less than half
_MAX_OUTLINE: Final = 2_000

_THUMBNAIL_DPI: Final = 36
_EMPTY: Final = (
    "Its pages are empty, or hold pictures in which text recognition found no words. If there are"
    " some, scan it again at 300 dpi."
)


class _PageView(NamedTuple):
    """A page as shown: affine map from page units to fractions, and its size in points."""

    a: float
    b: float
    c: float
    d: float
    e: float
    f: float
    height: float
    width: float

    def box(self, left: float, bottom: float, right: float, top: float) -> LineBox:
        xs = [self.a * x + self.c * y + self.e for x, y in ((left, bottom), (right, top))]
        ys = [self.b * x + self.d * y + self.f for x, y in ((left, bottom), (right, top))]
        return LineBox(min(xs), min(ys), max(xs), max(ys))


def parse_pdf(
    data: bytes,
    *,
    limits: Limits,
    on_page: Callable[[int, int], None] | None = None,
    on_seconds: Callable[[float], None] | None = None,
) -> Extraction:
    """Lines of every page put together to paragraphs and headings; scanned pages are recognised.

    ``on_page(done, total)`` is called after each page, ``on_seconds`` after each one recognised.
    Raises IngestionError: password_protected, corrupt_file, too_many_pages, no_text,
    ocr_unavailable.
    """
    document = _open(data)
    try:
        total = len(document)
        if total > limits.max_pages:
            raise IngestionError(
                FailureCode.TOO_MANY_PAGES, pages=f"{total:,}", limit=f"{limits.max_pages:,}"
            )
        if total == 0:
            raise IngestionError(FailureCode.CORRUPT_FILE, cause="no pages")
        reading = _Reading(document, on_page)
        reading.read_text()
        attachments = embedded_files(document)
        reading.recognise(limits, on_seconds)
        reading.require_text(has_more=bool(attachments))
        extraction = Extraction(
            blocks_from_lines(reading.pages, _outline(document)),
            reading.parser,
            title=_title(document),
            page_count=total,
            warnings=reading.warnings(),
        )
        return attach(extraction, [_loaded(attachment) for attachment in attachments])
    finally:
        document.close()


def _loaded(attachment: Attachment) -> Attachment:
    """Read now, because the document is closed when attachments are handed on."""
    try:
        return replace(attachment, read=partial(bytes, attachment.read()))
    except UnreadableAttachmentError:
        return replace(attachment, read=_unreadable)


def _unreadable() -> bytes:
    raise UnreadableAttachmentError


class _Reading:
    """The pages of one document while they are read: first their text layer, then pictures."""

    def __init__(self, document: Any, on_page: Callable[[int, int], None] | None) -> None:
        self._document = document
        self._total = len(document)
        self._on_page = on_page
        self._done = 0
        self._pictures: list[int] = []  # page indexes that need recognition
        self._unreadable: list[int] = []  # page numbers
        self._unread: list[int] = []
        self._problem = ""
        self.pages: list[list[PdfLine]] = [[] for _ in range(self._total)]
        self.parser = "pypdfium2"

    def read_text(self) -> None:
        self._document.init_forms()
        for index in range(self._total):
            page = self._load(index)
            if page is None:
                continue
            try:
                self.pages[index] = list(_page_lines(page))
                for value in field_values(self._document, page):
                    self.pages[index].append(PdfLine(value, None, begins=True))
                is_picture = needs_recognition(page, self.pages[index])
            except pypdfium2.PdfiumError:
                self._unreadable.append(index + 1)
                is_picture = False
            finally:
                page.close()
            if is_picture:
                self._pictures.append(index)
            else:
                self._count()

    def recognise(self, limits: Limits, on_seconds: Callable[[float], None] | None) -> None:
        """Replaces the lines of scanned pages where recognition finds more than there was."""
        if not self._pictures:
            return
        recogniser = Recogniser(limits, on_seconds)
        self._problem = recogniser.problem
        for index in self._pictures:
            if not self._problem and not recogniser.is_exhausted:
                self._recognise_page(index, recogniser, limits)
            elif not self._is_blank(index):
                self._unread.append(index + 1)
            self._count()

    def require_text(self, *, has_more: bool) -> None:
        if any(self.pages) or has_more:
            return
        if len(self._unreadable) == self._total:
            raise IngestionError(FailureCode.CORRUPT_FILE, cause="no page could be read")
        if self._problem and self._unread:
            raise IngestionError(FailureCode.OCR_UNAVAILABLE, reason=self._problem)
        if self._unread:
            raise IngestionError(FailureCode.PARSE_TIMEOUT, limit="time for text recognition")
        raise IngestionError(FailureCode.NO_TEXT, scanned=f" ({self._total} page(s))", hint=_EMPTY)

    def warnings(self) -> list[str]:
        warnings = []
        if self._unread and self._problem:
            pages = page_list(self._unread)
            warnings.append(f"No text on {pages}: scanned, and {self._problem} on this site.")
        elif self._unread:
            pages = page_list(self._unread)
            warnings.append(f"Not read, because recognising the text took too long: {pages}.")
        if self._unreadable:
            warnings.append(f"Could not read {page_list(self._unreadable)}: damaged.")
        return warnings

    def _recognise_page(self, index: int, recogniser: Recogniser, limits: Limits) -> None:
        image = self._picture(index, limits.ocr_dpi)
        if image is None:
            return
        lines = recogniser.lines(image)
        if lines is None:
            self._unread.append(index + 1)
        elif readable_characters(lines) > readable_characters(self.pages[index]):
            self.pages[index] = lines
            self.parser = "pypdfium2+tesseract"

    def _is_blank(self, index: int) -> bool:
        image = self._picture(index, _THUMBNAIL_DPI)
        return image is None or image.is_blank

    def _picture(self, index: int, dpi: int) -> GreyImage | None:
        page = self._load(index)
        if page is None:
            return None
        try:
            return render(page, dpi)
        except (pypdfium2.PdfiumError, ValueError):
            self._unreadable.append(index + 1)
            return None
        finally:
            page.close()

    def _load(self, index: int) -> Any:
        try:
            return self._document[index]
        except pypdfium2.PdfiumError:
            self._unreadable.append(index + 1)
            self._count()
            return None

    def _count(self) -> None:
        self._done += 1
        if self._on_page is not None:
            self._on_page(min(self._done, self._total), self._total)


def _open(data: bytes) -> Any:
    try:
        return pypdfium2.PdfDocument(data)
    except pypdfium2.PdfiumError as error:
        code = pdfium.FPDF_GetLastError()
        if code in _PASSWORD_ERRORS or getattr(error, "err_code", None) in _PASSWORD_ERRORS:
            raise IngestionError(FailureCode.PASSWORD_PROTECTED) from error
        raise IngestionError(FailureCode.CORRUPT_FILE, cause=str(error)) from error


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
            cells: tuple[tuple[int, int, LineBox], ...] = ()
            if _has_gap(boxes, size, view) or _is_stretched(_union(boxes), shown, size, view):
                cells = _cells(text_page, text[start:end], start, shown, size, view)
            yield PdfLine(shown, _union(boxes), size, hyphenated, words=cells)
    finally:
        text_page.close()


def _has_gap(boxes: list[LineBox], size: float, view: _PageView) -> bool:
    ordered = sorted(boxes, key=lambda box: box.x0)
    return any(_is_far(left, right, size, view) for left, right in pairwise(ordered))


def _is_stretched(box: LineBox | None, shown: str, size: float, view: _PageView) -> bool:
    """Much wider than its characters: cells that were set as one piece of text."""
    if box is None or " " not in shown:
        return False
    return (box.x1 - box.x0) * view.width > _WIDE_CHARACTER * size * len(shown)


def _is_far(left: LineBox, right: LineBox, size: float, view: _PageView) -> bool:
    """Farther apart than words are: at least the height of the print."""
    return (right.x0 - left.x1) * view.width > max(size, _LEAST_GAP)


def _cells(
    text_page: Any, raw: str, start: int, shown: str, size: float, view: _PageView
) -> tuple[tuple[int, int, LineBox], ...]:
    """Parts of a line that stand far apart, as offsets into ``shown``; empty when in doubt."""
    parts: list[tuple[int, list[LineBox]]] = []  # index of the first character, and the boxes
    edges = tuple(ctypes.c_double() for _ in range(4))
    for index, character in enumerate(raw):
        if character.isspace():
            continue
        if not pdfium.FPDFText_GetCharBox(text_page, start + index, *edges):
            return ()
        left, right, bottom, top = (edge.value for edge in edges)
        box = view.box(left, bottom, right, top)
        if parts and not _is_far(parts[-1][1][-1], box, size, view):
            parts[-1][1].append(box)
        else:
            parts.append((index, [box]))
    cells: list[tuple[int, int, LineBox]] = []
    position = 0
    borders = [*(first for first, _ in parts), len(raw)]
    for (_, boxes), (first, last) in zip(parts, pairwise(borders), strict=True):
        text = clean(raw[first:last].translate(_LIGATURES))
        around = _union(boxes)
        if not text or around is None or shown[position : position + len(text)] != text:
            return ()
        cells.append((position, position + len(text), around))
        position += len(text) + 1
    return tuple(cells) if position == len(shown) + 1 else ()


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
        *((x1 - e) / 1000, (y1 - f) / 1000, (x2 - e) / 1000, (y2 - f) / 1000),
        *(e, f, page.get_height(), page.get_width()),
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
