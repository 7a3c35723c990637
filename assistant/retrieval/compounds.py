"""Words that are written together, to the words they are made of: ``Urlaubsantrag``.

A word falls apart where both sides are words of the language (simplemma's lists), with the letters
between them that the language puts there. The lists stay compressed by their beginnings in memory:
10 to 20 MiB for each language that was met, read once in a second.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from functools import cache, lru_cache
from typing import Final

from simplemma.strategies.dictionaries.stream_dictionary_factory import StreamDictionaryFactory

# What may stand between two parts, by language (ISO 639-1).
_LINKS: Final[Mapping[str, tuple[str, ...]]] = {
    "da": ("", "s", "e"),
    "de": ("", "s", "es", "n", "en", "er", "e"),
    "nl": ("", "s", "en", "e"),
    "no": ("", "s", "e"),
    "sv": ("", "s"),
}
COMPOUNDING: Final = frozenset(_LINKS)
_LISTS: Final = {"no": "nb"}
_SHORTEST: Final = 8
_SHORTEST_HEAD: Final = 4
_SHORTEST_FIRST: Final = 3
_LONGEST: Final = 60
# Endings that are words as well, and make no compound.
_ENDINGS: Final = frozenset({"schaft", "heit", "keit", "sten", "teste", "tests"})
_loading = threading.Lock()


def parts_of(word: str, language: str) -> tuple[str, ...]:
    """The parts of a compound in lower case, at least two; empty where it is none.

    ``language`` is ISO 639-1; languages that do not write words together have no compounds.
    """
    if language not in _LINKS or not _SHORTEST <= len(word) <= _LONGEST:
        return ()
    return _parts(word.lower(), language)


@lru_cache(maxsize=50_000)
def _parts(word: str, language: str) -> tuple[str, ...]:
    best: tuple[int, int, str, str] | None = None
    for at in range(_SHORTEST_FIRST, len(word) - _SHORTEST_HEAD + 1):
        head = word[at:]
        if head in _ENDINGS or not _is_word(head, language):
            continue
        for link in _LINKS[language]:
            first = word[: at - len(link)]
            if len(first) < _SHORTEST_FIRST or not word[:at].endswith(link):
                continue
            if _is_word(first, language):
                # The more even the halves, the less chance is in it.
                best = max(best or (0, 0, "", ""), (min(len(first), len(head)), at, first, head))
                break
    if best is None:
        return ()
    _, _, first, head = best
    return (*(parts_of(first, language) or (first,)), *(parts_of(head, language) or (head,)))


def load(language: str) -> None:
    """Read the list of ``language`` now rather than with the first word."""
    if language in _LINKS:
        _words(language)


def _is_word(word: str, language: str) -> bool:
    """German writes nouns with a capital; verbs and little words make compounds by chance only."""
    words = _words(language)
    if language != "de":
        return words.get(word) is not None
    known = words.get(word.capitalize())
    return known is not None and known[:1].isupper()


def _words(language: str) -> Mapping[str, str]:
    with _loading:
        return _loaded(language)


@cache
def _loaded(language: str) -> Mapping[str, str]:
    return StreamDictionaryFactory().get_dictionary(_LISTS.get(language, language))
