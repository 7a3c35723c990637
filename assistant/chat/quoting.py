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
        "…": "...", "\u00ad": "", "\u200b": "", "\ufeff": "",
    }
)  # fmt: skip
_MARKUP = re.compile(r"[*_`]+")
_SENTENCE_END = re.compile(
    r"(?<=[.!?])[\"'”’)\]]*\s+(?=[\"'“‘(\[]?[A-Z0-9À-ÖØ-Þ])|(?<=[。！？])|\n+"
)
_WORD = re.compile(r"\w+")


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
    """NFKC, case folded, quotes and dashes unified, runs of white space one space. Linear."""
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
    """Where ``quote`` stands in ``text``, None when it does not. Markdown emphasis is ignored."""
    wanted = normalise(_MARKUP.sub("", quote)).text.strip()
    if not wanted:
        return None
    source = normalise(text)
    at = source.text.find(wanted)
    if at < 0:
        return None
    return Span(source.origins[at], source.origins[at + len(wanted) - 1] + 1)


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


def words(text: str) -> list[str]:
    """Case-folded words; for scripts without spaces, every character is one."""
    found: list[str] = []
    for word in _WORD.findall(normalise(text).text):
        if any("\u3040" <= character <= "\u9fff" for character in word):
            found.extend(word)
        else:
            found.append(_stem(word))
    return found


def _stem(word: str) -> str:
    """Enough to match plural and tense; the comparison is between two texts, not an index."""
    for ending in ("ings", "ing", "edly", "ed", "ies", "es", "s", "ly"):
        if word.endswith(ending) and len(word) - len(ending) >= 3:
            return word[: -len(ending)]
    return word
