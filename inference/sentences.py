"""Cutting a text into the pieces an extractive answer may quote, as character spans.

Works by punctuation and layout only: no model, linear time, any script. Headings, list items and
table rows are pieces of their own.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum, auto
from typing import Final

MAX_SENTENCE_CHARACTERS: Final = 700

_BULLET: Final = re.compile(r"[ \t]*(?:[-*+•‣◦▪–]|\(?\d{1,3}[.)]|\(?[a-z][.)])[ \t]+")
_HEADING: Final = re.compile(r"[ \t]{0,3}#{1,6}[ \t]+")
_RULE: Final = re.compile(r"[ \t]*(?:={3,}|-{3,}|\*{3,})[ \t]*$")
# A line by itself that is longer, ends as a sentence does or names a value says something.
_MAX_HEADING_CHARACTERS: Final = 100
_SAYS: Final = re.compile(r"[.!…。！｡…۔।:：;,][\"'”’»)\]*_」』”’）]*$|[:：]\s")
_GAP: Final = re.compile(r"\n[ \t]*(?:\n|={3,}|-{3,})")
_TABLE_RULE: Final = frozenset("|-: \t")
# The lookbehind keeps a long run of dots from being tried again at each dot.
_ENDS: Final = re.compile(
    r"(?<![.!?…])[.!?…]++[\"'”’»)\]*_]{0,3}+(?=\s)|[。！？｡…．؟।۔]++[」』”’）)]{0,2}+"
)
_OPENERS: Final = "\"'“‘«([*_`¿¡"
_THAI: Final = re.compile(r"[\u0e00-\u0e7f]")
_THAI_CHARACTERS: Final = 80
_INITIAL: Final = re.compile(r"(?:^|[\s(.])[A-Z]$")
_ABBREVIATIONS_TEXT: Final = (
    "mr mrs ms dr prof rev gen col capt lt sgt sen rep gov hon st sr jr vs etc e.g i.e cf al viz "
    "approx dept est inc ltd co corp bros fig figs eq eqs sec ch vol ed eds pp ca nr bzw z.b d.h "
    "u.a usw ggf evtl inkl abs art bd hr hrsg str tel jan feb mar apr jun jul aug sep sept oct "
    "nov dec mon tue wed thu fri sat sun a.m p.m u.s u.k"
)
_ABBREVIATIONS: Final = frozenset(_ABBREVIATIONS_TEXT.split())
# Words only when a number follows: "no." also ends sentences.
_BEFORE_NUMBER: Final = frozenset({"no", "nos", "p", "art", "ziff", "para"})
# "3. Mai" is a date in German; elsewhere a number with a stop ends a sentence.
_MONTHS: Final = (
    "Jan",
    "Feb",
    "März",
    "Apr",
    "Mai",
    "Jun",
    "Jul",
    "Aug",
    "Sep",
    "Okt",
    "Nov",
    "Dez",
)


class Kind(Enum):
    """What a piece is in the layout."""

    SENTENCE = auto()
    ITEM = auto()
    ROW = auto()
    HEADING = auto()


@dataclass(frozen=True, slots=True)
class Piece:
    """``text[start:end]``, without bullet and outer spaces. ``block`` counts layout blocks."""

    start: int
    end: int
    kind: Kind
    block: int


def split(text: str) -> list[Piece]:
    """The pieces of a text in order, rules left out."""
    pieces: list[Piece] = []
    blocks = list(_blocks(text))
    for block, (kind, start, end) in enumerate(blocks):
        following = blocks[block + 1][1] if block + 1 < len(blocks) else end
        if kind is Kind.SENTENCE and _is_heading(text, start, end, following):
            kind = Kind.HEADING
        if kind in {Kind.ROW, Kind.HEADING}:
            pieces.append(Piece(start, end, kind, block))
            continue
        pieces += [Piece(a, b, kind, block) for a, b in _sentences(text, start, end)]
    return pieces


def _is_heading(text: str, start: int, end: int, following: int) -> bool:
    """Whether this paragraph only names what comes after it, from ``following`` on."""
    return (
        end - start <= _MAX_HEADING_CHARACTERS
        and "\n" not in text[start:end]
        and not _SAYS.search(text, start, end)
        and bool(_GAP.search(text, end, following))
    )


def _blocks(text: str) -> Iterator[tuple[Kind, int, int]]:
    """Paragraphs, list items (with their wrapped lines), table rows and marked headings."""
    open_kind, open_start, open_end = Kind.SENTENCE, -1, -1
    at = 0
    for line in text.splitlines(keepends=True):
        start, at = at, at + len(line)
        content = line.strip()
        bullet = _BULLET.match(line)
        is_row = content.startswith("|") and content.count("|") > 1
        heading = _HEADING.match(line)
        is_rule = bool(_RULE.match(line))
        if open_start >= 0 and (not content or bullet or is_row or heading or is_rule):
            yield open_kind, open_start, open_end
            open_start = -1
        if not content or is_rule:
            continue
        end = start + len(line.rstrip())
        if heading:
            if start + heading.end() < end:
                yield Kind.HEADING, start + heading.end(), end
            continue
        if is_row:
            if not _TABLE_RULE.issuperset(content):
                yield Kind.ROW, start + line.index("|"), end
            continue
        if open_start < 0:
            open_kind = Kind.ITEM if bullet else Kind.SENTENCE
            open_start = start + (bullet.end() if bullet else len(line) - len(line.lstrip()))
        open_end = end
    if open_start >= 0:
        yield open_kind, open_start, open_end


def _sentences(text: str, start: int, end: int) -> Iterator[tuple[int, int]]:
    begin = start
    for match in _ENDS.finditer(text, start, end):
        if match.end() < end and _is_boundary(text, begin, match, end):
            yield from _bounded(text, begin, match.end())
            begin = match.end()
    yield from _bounded(text, begin, end)


def _is_boundary(text: str, begin: int, match: re.Match[str], end: int) -> bool:
    if match.group()[0] not in ".!?…":
        return True
    following = text[match.end() : min(end, match.end() + 12)].lstrip().lstrip(_OPENERS)
    if not following:
        return True
    if following[0].islower():
        return False
    if match.group() != ".":
        return True
    before = text[max(begin, match.start() - 20) : match.start()]
    if _INITIAL.search(before):
        return False
    word = before.split()[-1].lower().lstrip("(\"'“") if before.split() else ""
    if word in _BEFORE_NUMBER and following[0].isdigit():
        return False
    if word.isdigit() and len(word) < 3 and following.startswith(_MONTHS):
        return False
    return word not in _ABBREVIATIONS


def _bounded(text: str, start: int, end: int) -> Iterator[tuple[int, int]]:
    """The span without outer spaces, cut at spaces where it is far too long or Thai."""
    while start < end and text[start].isspace():
        start += 1
    while end > start and text[end - 1].isspace():
        end -= 1
    if start >= end:
        return
    # Thai puts a space, not a mark, between sentences.
    thai = len(_THAI.findall(text, start, end)) * 2 > end - start
    limit = _THAI_CHARACTERS if thai else MAX_SENTENCE_CHARACTERS
    while end - start > limit:
        cut = text.find(" ", start + limit if thai else start + limit // 2, end)
        if cut < 0 or end - cut < 2:
            break
        if not thai:
            cut = max(cut, text.rfind(" ", start, start + limit))
        yield start, cut
        start = cut + 1
        while start < end and text[start].isspace():
            start += 1
    yield start, end
