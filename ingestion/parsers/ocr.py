"""Text in pictures, by the program Tesseract: one picture at a time, one thread, bounded time.

Tesseract's hOCR output is used rather than its TSV because it also tells the size of the print;
boxes of words are the same. Both give places in the picture as it is, also for rotated text.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Final

from lxml import etree
from PIL import Image

from ingestion.parsers.blocks import LineBox, clean
from ingestion.parsers.deskew import straighten, turn
from ingestion.parsers.pdf_lines import PdfLine
from ingestion.parsing_limits import Limits

MAX_PIXELS: Final = 25_000_000
"""Pictures with more are made smaller before they are read: an A3 page at 300 dpi has 17."""

_PROGRAM: Final = "tesseract"
_AUTOMATIC_WITH_ROTATION, _AUTOMATIC, _SPARSE = "1", "3", "11"  # page segmentation modes
_LEAST_CONFIDENCE: Final = 40.0  # of a line, 0 to 100; what is read out of a photograph has less
_LEAST_CONFIDENCE_OF_SPARSE: Final = 80.0  # single words are easily seen where there are none
_LEAST_LETTERS_OF_SPARSE: Final = 3
_BLANK_SPREAD: Final = 24  # grey levels between the darkest and the brightest point
_LIST_SECONDS: Final = 30
_NUMBERS: Final = re.compile(r"(\w+) ([-\d. ]+)")
_LINES: Final = ("ocr_line", "ocr_header", "ocr_caption", "ocr_textfloat")


@dataclass(frozen=True, slots=True)
class GreyImage:
    """``pixels`` holds one byte per point, row by row from the top; ``dpi`` may be a guess."""

    width: int
    height: int
    pixels: bytes
    dpi: int

    @classmethod
    def of(cls, picture: Any, dpi: int) -> GreyImage:
        """From a Pillow image in mode "L"."""
        width, height = picture.size
        return cls(width, height, picture.tobytes(), dpi)

    @property
    def is_blank(self) -> bool:
        return max(self.pixels, default=0) - min(self.pixels, default=0) < _BLANK_SPREAD


class Recogniser:
    """Reads pictures within the limits of one document.

    ``on_seconds`` is told how long each picture took. ``problem`` is why nothing can be read here,
    as the end of "... because", or "" when all is well.
    """

    def __init__(self, limits: Limits, on_seconds: Callable[[float], None] | None = None) -> None:
        self._limits = limits
        self._on_seconds = on_seconds
        self._seconds_left = limits.ocr_seconds
        self._pictures_left = limits.max_ocr_pages
        self._mode = _AUTOMATIC
        self.problem = self._find_problem()

    @property
    def is_exhausted(self) -> bool:
        return self._seconds_left <= 0 or self._pictures_left <= 0

    def lines(self, image: GreyImage) -> list[PdfLine] | None:
        """Lines in reading order, each with the boxes of its words; None when time ran out."""
        if image.is_blank:
            return []
        self._pictures_left -= 1
        begun = time.monotonic()
        try:
            return self._best(image)
        except subprocess.TimeoutExpired:
            return None
        finally:
            seconds = time.monotonic() - begun
            self._seconds_left -= seconds
            if self._on_seconds is not None:
                self._on_seconds(seconds)

    def _best(self, image: GreyImage) -> list[PdfLine]:
        """As it is; where that reads badly, turned; where it finds nothing, word by word.

        Tesseract sees by itself that a page lies on its side or head, but not with few words.
        """
        lines, doubtful = self._read(image, self._mode)
        if doubtful >= _length(lines):
            picture = Image.frombytes("L", (image.width, image.height), image.pixels)
            for turned in (straighten(picture), turn(picture, 180) if doubtful else None):
                if turned is None:
                    continue
                found, _ = self._read(GreyImage.of(turned.picture, image.dpi), self._mode)
                if _length(found) > _length(lines):
                    lines = turned.back(found)
        return lines or [
            line
            for line in self._read(image, _SPARSE, _LEAST_CONFIDENCE_OF_SPARSE)[0]
            if sum(map(str.isalpha, line.text)) >= _LEAST_LETTERS_OF_SPARSE
        ]

    def _read(
        self, image: GreyImage, mode: str, least_confidence: float = _LEAST_CONFIDENCE
    ) -> tuple[list[PdfLine], int]:
        """Lines that can be trusted, and the number of characters in those that cannot."""
        doubtful: list[str] = []
        lines = list(_lines(self._run(image, mode), image, least_confidence, doubtful))
        return lines, sum(map(len, doubtful))

    def _find_problem(self) -> str:
        wanted = self._limits.ocr_languages
        if not wanted:
            return "text recognition is switched off"
        if shutil.which(_PROGRAM) is None:
            return "the program Tesseract is not installed"
        installed = _installed_languages()
        if missing := [name for name in wanted.split("+") if name not in installed]:
            return f"Tesseract's language data is not installed: {', '.join(missing)}"
        if "osd" in installed:
            self._mode = _AUTOMATIC_WITH_ROTATION
        return ""

    def _run(self, image: GreyImage, mode: str) -> bytes:
        command = [_PROGRAM, "stdin", "stdout", "-l", self._limits.ocr_languages]
        command += ["--psm", mode, "--dpi", str(image.dpi), "hocr"]
        header = b"P5 %d %d 255\n" % (image.width, image.height)
        done = subprocess.run(  # noqa: S603 - fixed command, no shell
            command,
            input=header + image.pixels,
            capture_output=True,
            check=False,
            timeout=min(self._limits.ocr_page_seconds, max(1.0, self._seconds_left)),
        )
        # It fails on pictures in which it finds nothing at all, for example one point high.
        return done.stdout if done.returncode == 0 else b""


def _length(lines: list[PdfLine]) -> int:
    return sum(len(line.text) for line in lines)


def _installed_languages() -> frozenset[str]:
    done = subprocess.run(  # noqa: S603 - fixed command, no shell
        [_PROGRAM, "--list-langs"],
        capture_output=True,
        check=False,
        timeout=_LIST_SECONDS,
    )
    return frozenset(done.stdout.decode("utf-8", "replace").split("\n")[1:])


def _lines(
    page: bytes, image: GreyImage, least_confidence: float, doubtful: list[str]
) -> Iterator[PdfLine]:
    """Lines worth keeping; the text of others goes to ``doubtful``."""
    if not page.strip():
        return
    parser = etree.XMLParser(resolve_entities=False, no_network=True, load_dtd=False, recover=True)
    root = etree.fromstring(page, parser)
    for paragraph in root.iter("{*}p"):
        lines = [
            line
            for node in paragraph.iter("{*}span")
            if node.get("class") in _LINES
            and (line := _line(node, image, least_confidence, doubtful))
        ]
        yield from _joined(lines)


def _joined(lines: list[PdfLine]) -> Iterator[PdfLine]:
    """Lines of one paragraph: marks its first, and takes the hyphen off a broken word."""
    for index, (line, following) in enumerate(pairwise([*lines, None])):
        assert line is not None
        is_broken = (
            following is not None
            and following.text[:1].islower()
            and len(line.text) > 2
            and line.text[-1] in "-\u00ad\u2010"
            and line.text[-2].isalpha()
        )
        text, words = line.text, line.words
        if is_broken:
            text = text[:-1]
            words = tuple((start, min(end, len(text)), box) for start, end, box in words)
        yield PdfLine(text, line.box, line.size, is_broken, begins=index == 0, words=words)


def _line(
    node: Any, image: GreyImage, least_confidence: float, doubtful: list[str]
) -> PdfLine | None:
    properties = _properties(node)
    text = ""
    words: list[tuple[int, int, LineBox]] = []
    trust = 0.0
    for word in node.iter("{*}span"):
        shown = clean("".join(word.itertext()))
        if word.get("class") != "ocrx_word" or not shown:
            continue
        details = _properties(word)
        start = len(text) + bool(text)
        text = f"{text} {shown}" if text else shown
        words.append((start, len(text), _box(details, image)))
        trust += details.get("x_wconf", [0.0])[0] * len(shown)
    length = sum(end - start for start, end, _ in words)
    if not any(map(str.isalnum, text)) or trust < least_confidence * length:
        doubtful.append(text)
        return None
    size = properties.get("x_size", [0.0])[0] * 72 / image.dpi
    return PdfLine(text, _box(properties, image), round(size, 1), words=tuple(words))


def _properties(node: Any) -> dict[str, list[float]]:
    """``bbox 1 2 3 4; x_size 20`` as lists of numbers by name."""
    return {
        name: [float(number) for number in numbers.split()]
        for name, numbers in _NUMBERS.findall(node.get("title") or "")
    }


def _box(properties: dict[str, list[float]], image: GreyImage) -> LineBox:
    x0, y0, x1, y1 = properties["bbox"]
    return LineBox(x0 / image.width, y0 / image.height, x1 / image.width, y1 / image.height)
