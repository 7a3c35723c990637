"""Finding a quote again in a stored text, whatever happened to spaces, quotes, dashes and case."""

from __future__ import annotations

import re
import unicodedata
from array import array
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

from inference.extractive import terms

_SAME = str.maketrans(
    {
        "‘": "'", "’": "'", "‚": "'", "“": '"', "”": '"', "„": '"', "«": '"', "»": '"',
        "‐": "-", "‑": "-", "‒": "-", "–": "-", "—": "-", "―": "-", "−": "-",
        "‹": "<", "›": ">", "…": "...", "\u00ad": "", "\u200b": "", "\ufeff": "",
        "*": "", "_": "", "`": "",
    }
)  # fmt: skip
_PIECES = re.compile(r"(?P<plain>[!-)+-^a-~]+(?: [!-)+-^a-~]+)*)|.", re.DOTALL)
_SENTENCE_END = re.compile(
    r"(?<=[.!?])[\"'”’)\]]*\s+(?=[\"'“‘(\[]?[A-Z0-9À-ÖØ-Þ])|(?<=[。！？])|\n+"
)
_WORD = re.compile(r"\w+")
# Passages, claims and quotes whose parts are remembered.
_KEPT = 256
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
    origins: Sequence[int]


# The same few passages are asked about for each marker of an answer, and by other answers.
@lru_cache(maxsize=_KEPT)
def normalise(text: str) -> Normalised:
    """NFKC, case folded, quotes and dashes unified, no emphasis, runs of white space one space.

    Linear.
    """
    out: list[str] = []
    origins = array("L")
    for match in _PIECES.finditer(text):
        start = match.start()
        if match.lastgroup == "plain":  # nothing in it changes but its case
            out.append(match[0].lower())
            origins.extend(range(start, match.end()))
            continue
        piece = unicodedata.normalize("NFKC", match[0].translate(_SAME)).casefold()
        for part in piece:
            if part.isspace():
                if out and out[-1] == " ":
                    continue
                part = " "
            out.append(part)
            origins.append(start)
    return Normalised("".join(out), origins)


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


@lru_cache(maxsize=_KEPT)
def sentences(text: str) -> tuple[Span, ...]:
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
    return tuple(spans)


@lru_cache(maxsize=_KEPT)
def words_of_sentences(text: str) -> tuple[frozenset[str], ...]:
    """The content words of each of ``sentences(text)``."""
    return tuple(frozenset(terms(text[span.start : span.end])) for span in sentences(text))


@lru_cache(maxsize=_KEPT)
def sentences_with(text: str) -> Mapping[str, int]:
    """In how many of ``sentences(text)`` each content word stands."""
    return Counter(word for words in words_of_sentences(text) for word in words)
