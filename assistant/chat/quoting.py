"""Finding a quote again in a stored text, whatever happened to spaces, quotes, dashes and case."""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from functools import lru_cache

_SAME = str.maketrans(
    {
        "‘": "'", "’": "'", "‚": "'", "“": '"', "”": '"', "„": '"', "«": '"', "»": '"',
        "‐": "-", "‑": "-", "‒": "-", "–": "-", "—": "-", "―": "-", "−": "-",
        "‹": "<", "›": ">", "…": "...", "\u00ad": "", "\u200b": "", "\ufeff": "",
        "*": "", "_": "", "`": "",
    }
)  # fmt: skip
_SENTENCE_END = re.compile(
    r"(?<=[.!?])[\"'”’)\]]*\s+(?=[\"'“‘(\[]?[A-Z0-9À-ÖØ-Þ])|(?<=[。！？])|\n+"
)
_WORD = re.compile(r"\w+")
# What goes on with the word or number before or after; scripts without spaces have no such borders.
_INSIDE = re.compile(r"(?:[^\W\u0e00-\u0eff\u3040-\u30ff\u3400-\u9fff]|\d[.,:/-])$")
_GOES_ON = re.compile(r"[^\W\u0e00-\u0eff\u3040-\u30ff\u3400-\u9fff]|[.,:/-]\d")


@dataclass(frozen=True, slots=True)
class Span:
    """Half-open character range."""

    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Normalised:
    """A text reduced to what matters, and where each of its characters came from."""

    text: str
    origins: tuple[int, ...]


@lru_cache(maxsize=64)
def normalise(text: str) -> Normalised:
    """NFKC, case folded, quotes and dashes unified, no emphasis, runs of white space one space.

    Linear.
    """
    out: list[str] = []
    origins: list[int] = []
    for index, character in enumerate(text):
        piece = unicodedata.normalize("NFKC", character.translate(_SAME)).casefold()
        for part in piece:
            if part.isspace():
                if out and out[-1] == " ":
                    continue
                part = " "
            out.append(part)
            origins.append(index)
    return Normalised("".join(out), tuple(origins))


def find_quote(text: str, quote: str) -> Span | None:
    """Where ``quote`` stands in ``text``, None when it does not.

    Whole words and whole numbers only: "5 days" does not stand in "2.5 days".
    """
    wanted = normalise(quote).text.strip()
    if not wanted:
        return None
    source = normalise(text)
    at = source.text.find(wanted)
    while at >= 0:
        end = at + len(wanted)
        if _is_whole(source.text, at, end):
            return Span(source.origins[at], source.origins[end - 1] + 1)
        at = source.text.find(wanted, at + 1)
    return None


def _is_whole(text: str, start: int, end: int) -> bool:
    return not (
        (_WORD.match(text[start]) and _INSIDE.search(text, max(0, start - 2), start))
        or (_WORD.match(text[end - 1]) and _GOES_ON.match(text, end))
    )


def sentences(text: str) -> list[Span]:
    """Sentences and lines of ``text``, outer white space excluded, in order."""
    spans: list[Span] = []
    start = 0
    for match in [*_SENTENCE_END.finditer(text), None]:
        end = match.start() if match else len(text)
        piece = text[start:end]
        stripped = piece.strip()
        if stripped:
            offset = start + len(piece) - len(piece.lstrip())
            spans.append(Span(offset, offset + len(stripped)))
        start = match.end() if match else end
    return spans
