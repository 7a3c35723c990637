"""Generated documents of mixed types, each with a word that occurs nowhere else, and poisons."""

from __future__ import annotations

import io
import random
import zipfile
from collections.abc import Callable
from dataclasses import dataclass

from docx import Document as Docx
from pypdf import PdfWriter

from tests.chaos import poison

_WORDS = [
    "leave",
    "canteen",
    "holiday",
    "budget",
    "travel",
    "invoice",
    "laptop",
    "visitor",
    "parking",
    "training",
    "meeting",
    "contract",
    "customer",
    "delivery",
    "warranty",
    "safety",
    "ladder",
    "forklift",
    "chemical",
    "storage",
    "archive",
    "retention",
    "payroll",
    "overtime",
    "sick",
    "parental",
    "notice",
    "probation",
    "review",
    "promotion",
    "bonus",
    "expense",
    "receipt",
    "hotel",
    "train",
    "flight",
    "taxi",
    "mileage",
    "insurance",
    "accident",
    "report",
    "witness",
    "manager",
    "colleague",
    "team",
    "office",
    "building",
    "floor",
    "kitchen",
    "printer",
    "network",
    "password",
    "account",
    "request",
    "approval",
    "deadline",
    "project",
    "milestone",
]


@dataclass(frozen=True, slots=True)
class Item:
    """One upload. ``codes`` are the failures that are right for it; none: it must become ready."""

    external_id: str
    filename: str
    content: bytes
    canary: str = ""
    codes: tuple[str, ...] = ()

    @property
    def is_poison(self) -> bool:
        return bool(self.codes)


def make_corpus(count: int, *, seed: int = 1, prefix: str = "d") -> list[Item]:
    """``count`` documents, of which five are poison, evenly spread among the others."""
    good = [_good(number, random.Random(f"{seed}-{number}"), prefix) for number in range(count - 5)]
    step = max(1, len(good) // 5)
    for place, item in enumerate(poisons(prefix)):
        good.insert(min(len(good), place * (step + 1) + step // 2), item)
    return good


def poisons(prefix: str = "d") -> list[Item]:
    """Each is accepted or refused with words; none may ever be ready."""

    def marked(name: str, marker: bytes, *codes: str) -> Item:
        body = b"# Poison\n\n" + marker + f"\n\n{prefix}-{name}\n".encode()
        return Item(f"{prefix}-poison-{name}", f"{name}.md", body, codes=codes)

    return [
        marked("memory", poison.MEMORY, "parse_memory"),
        marked("loop", poison.LOOP, "parse_timeout"),
        marked("segfault", poison.SEGFAULT, "parse_crashed"),
        Item(f"{prefix}-poison-bomb", "bomb.docx", _bomb(), codes=("archive_bomb", "corrupt_file")),
        Item(f"{prefix}-poison-locked", "locked.pdf", _encrypted(), codes=("password_protected",)),
    ]


def _good(number: int, rng: random.Random, prefix: str) -> Item:
    canary = f"{prefix}kestrel{number:05d}q"
    kind, make = _KINDS[number % len(_KINDS)]
    paragraphs = [_sentences(rng) for _ in range(rng.choice((1, 1, 2, 3, 8)))]
    paragraphs[0] = f"The reference of this page is {canary}. {paragraphs[0]}"
    return Item(
        f"{prefix}-{number}", f"page-{number}.{kind}", make(f"Page {number}", paragraphs), canary
    )


def _sentences(rng: random.Random) -> str:
    def sentence() -> str:
        return " ".join(rng.choice(_WORDS) for _ in range(rng.randint(6, 14))).capitalize() + "."

    return " ".join(sentence() for _ in range(rng.randint(3, 7)))


def _markdown(title: str, paragraphs: list[str]) -> bytes:
    parts = [f"## Part {i}\n\n{text}" for i, text in enumerate(paragraphs)]
    return "\n\n".join([f"# {title}", *parts]).encode()


def _text(title: str, paragraphs: list[str]) -> bytes:
    return "\n\n".join([title, *paragraphs]).encode()


def _html(title: str, paragraphs: list[str]) -> bytes:
    body = "".join(f"<p>{text}</p>" for text in paragraphs)
    return f"<!doctype html><title>{title}</title><body><h1>{title}</h1>{body}</body>".encode()


def _csv(title: str, paragraphs: list[str]) -> bytes:
    rows = [f'"{i}","{text}"' for i, text in enumerate(paragraphs)]
    return "\n".join([f'"{title}","text"', *rows]).encode()


def _docx(title: str, paragraphs: list[str]) -> bytes:
    document = Docx()
    document.add_heading(title, 1)
    for text in paragraphs:
        document.add_paragraph(text)
    buffer = io.BytesIO()
    document.save(buffer)
    return buffer.getvalue()


def _bomb() -> bytes:
    buffer = io.BytesIO(_docx("Bomb", ["It grows."]))
    with zipfile.ZipFile(buffer, "a", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        for number in range(6):
            archive.writestr(f"word/media/{number}.bin", bytes(100 << 20))
    return buffer.getvalue()


def _encrypted() -> bytes:
    writer = PdfWriter()
    writer.add_blank_page(200, 200)
    writer.encrypt("secret", algorithm="RC4-128")
    buffer = io.BytesIO()
    writer.write(buffer)
    return buffer.getvalue()


_KINDS: tuple[tuple[str, Callable[[str, list[str]], bytes]], ...] = (
    ("md", _markdown),
    ("txt", _text),
    ("html", _html),
    ("csv", _csv),
    ("docx", _docx),
    ("md", _markdown),
)
