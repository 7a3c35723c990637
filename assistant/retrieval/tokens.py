"""Text to tokens: what counts as a word, a code, or a run of a script without spaces."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterator
from functools import cache
from typing import Final, NamedTuple

import regex

# Han, kana, Hangul, Thai, Lao, Khmer, Burmese: pairs of neighbouring characters stand for words.
# Korean has spaces, but particles hang on the words; pairs find the word before them.
_UNSPACED: Final = regex.compile(
    r"[\p{Han}\p{Hiragana}\p{Katakana}\p{Hangul}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}\u30fc]"
)
_JOIN: Final = r"[-\u2010\u2011_./@\\:'\u2019&+#]"
_APART: Final = regex.compile(r"[^\p{L}\p{M}\p{N}]+")
_WORD: Final = regex.compile(r"[\p{L}\p{M}]+")
_NUMBER: Final = regex.compile(r"\p{N}+(?:[.,]\p{N}+)*")
_GROUPED: Final = regex.compile(r"\p{N}{1,3}(?:,\p{N}{3})+(?=\.|$)")
_APOSTROPHES: Final = regex.compile(r"['\u2019]")
_HYPHENATED: Final = regex.compile(r"[\p{L}\p{M}]+(?:[-\u2010\u2011][\p{L}\p{M}]+)+")
# Where a code falls into parts without a sign: camelCase, XMLFile, ab12.
_SEAM: Final = regex.compile(
    r"(?<=\p{Ll})(?=\p{Lu})|(?<=\p{Lu})(?=\p{Lu}\p{Ll})|(?<=\p{N})(?=\p{L})|(?<=\p{L})(?=\p{N})"
)
_LONGEST: Final = 200


class Token(NamedTuple):
    """``text`` as written, and the number of its place in the run, from 0.

    A token that is ``exact`` is not stemmed: a code, a number or a pair. A ``whole`` shares its
    place with the first of its parts. A ``tail`` is the last sign of a run of pairs, so that every
    sign begins something; questions leave it out.
    """

    text: str
    place: int
    exact: bool = False
    whole: bool = False
    tail: bool = False


def runs_of(text: str) -> list[str]:
    """What stands without a space, or belongs to one code, in ``text`` after NFKC."""
    return _run().findall(unicodedata.normalize("NFKC", text))


@cache
def _run() -> re.Pattern[str]:
    """``re`` with the characters listed is three times as fast as ``regex`` with properties."""
    unspaced = _class(lambda sign: bool(_UNSPACED.match(sign))) + "\U00020000-\U0003ffff"
    word = _class(lambda sign: unicodedata.category(sign)[0] in "LMN" and not _UNSPACED.match(sign))
    word = f"[{word}\U00010000-\U0001ffff]"
    digit = r"\d"
    joined = f"(?:{_JOIN}{{1,3}}|(?<={digit}),(?={digit})){word}+"
    return re.compile(rf"{word}+(?:{joined})*(?:\+\+|\#)?|[{unspaced}]+")


def _class(belongs: Callable[[str], bool]) -> str:
    """The characters of the basic plane that belong, as ranges."""
    ranges: list[list[int]] = []
    for code in range(0x10000):
        if belongs(chr(code)):
            if ranges and ranges[-1][1] == code - 1:
                ranges[-1][1] = code
            else:
                ranges.append([code, code])
    return "".join(f"\\u{first:04x}-\\u{last:04x}" for first, last in ranges)


def tokens_of(run: str) -> list[Token]:
    """The tokens of one run."""
    if _UNSPACED.match(run):
        pairs = [Token(run[i : i + 2], i, exact=True) for i in range(max(len(run) - 1, 1))]
        if len(run) > 1:
            pairs.append(Token(run[-1], len(run) - 1, exact=True, whole=True, tail=True))
        return pairs
    if _WORD.fullmatch(run) and not _has_seam(run):
        return [Token(run, 0)] if len(run) <= _LONGEST else []
    return list(_of_code(run[:_LONGEST]))


def _has_seam(word: str) -> bool:
    return not (word.islower() or word.isupper() or word[1:].islower()) and bool(_SEAM.search(word))


def _of_code(text: str) -> Iterator[Token]:
    if _NUMBER.fullmatch(text):
        number = text.replace(",", "") if _GROUPED.match(text) else text
        yield Token(number, 0, exact=True)
        if number.count(".") > 1:  # version 3.11.7 is also one of 3.11
            yield Token(".".join(number.split(".")[:2]), 0, exact=True, whole=True)
        return
    pieces = _APOSTROPHES.split(text)
    if len(pieces) > 1 and all(map(_WORD.fullmatch, pieces)):  # "company's", "l'homme"
        words = [word for word in pieces if len(word) > 1] or ["".join(pieces)]
        yield from (Token(word, i) for i, word in enumerate(words))
        return
    parts = [part for piece in _APART.split(text) if piece for part in _SEAM.split(piece)]
    if _HYPHENATED.fullmatch(text):
        if len(parts[0]) <= 3:  # "e-mail" is written "email" too
            yield Token("".join(parts), 0, whole=True)
    else:
        # The "x" of "x86" says nothing on its own, nor does the "C" of "C++".
        parts = [part for part in parts if len(part) > 1 or not part.isalpha()]
        whole = text.replace("\u2010", "-").replace("\u2011", "-")
        yield Token(whole, 0, exact=True, whole=bool(parts))
    yield from (Token(part, i) for i, part in enumerate(parts))
