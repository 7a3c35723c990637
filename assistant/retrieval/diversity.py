"""Passages that say the same thing twice are one passage and a note.

Word triples are compared where sketches of the texts agree, as in Broder, "On the resemblance and
containment of documents" (1997).
Texts with different numbers are never the same: last year's price is what they differ by.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cached_property
from typing import Final

from assistant.retrieval.passages import Passage
from assistant.retrieval.tracing import Decision

# Deeper ranks are not read by anyone, and comparing costs time.
_COMPARED: Final = 40
_SAME: Final = 0.9
_SKETCH: Final = 8
# So many of those whose sketches agree are compared word by word.
_LIKELY: Final = 3
_WORD: Final = re.compile(r"\w+")
_NUMBER: Final = re.compile(r"\d+")
_SHINGLE_WORDS: Final = 3
_SHINGLE_CHARACTERS: Final = 8
# Scripts without spaces make words as long as sentences.
_LONGEST_MEAN_WORD: Final = 14


def collapse(
    found: Sequence[Passage], *, wanted: int
) -> tuple[list[Passage], list[Passage], list[Decision]]:
    """``found``, best first, without near-duplicates of better ones; those; and why.

    What comes after ``wanted`` different ones is left as it is.
    """
    kept: list[Passage] = []
    twins: list[Passage] = []
    decisions: list[Decision] = []
    rivals: list[_Text] = []  # of what was kept
    copied: dict[str, int] = {}  # where each text stands there: of copies no word is looked at
    compared = 0
    for passage in found[:_COMPARED]:
        if len(kept) >= wanted:
            break
        compared += 1
        text = _Text(passage.text)
        same = copied.get(passage.text)
        if same is None:
            same = next((at for at in _likely(text, rivals) if rivals[at].is_near(text)), None)
        if same is None:
            copied[passage.text] = len(rivals)
            rivals.append(text)
            kept.append(passage)
            continue
        twin = kept[same]
        twins.append(passage)
        decisions.append(
            Decision(
                passage.chunk_ids[0],
                "collapsed",
                f"it says the same as a better passage of {twin.title}",
                into=twin.chunk_ids[0],
            )
        )
    return [*kept, *found[compared:]], twins, decisions


class _Text:
    """What of a text is compared, each made when it is first asked for."""

    def __init__(self, text: str) -> None:
        self._text = text

    @cached_property
    def sketch(self) -> set[int]:
        """The smallest hashes of its words: texts that share nine words in ten share most."""
        words = self._text.casefold().split()
        if len(self._text) > _LONGEST_MEAN_WORD * len(words):
            words = [self._text[at : at + 4] for at in range(0, max(1, len(self._text) - 3))]
        return set(sorted(set(map(hash, words)))[:_SKETCH])

    @cached_property
    def numbers(self) -> list[str]:
        return _NUMBER.findall(self._text)

    @cached_property
    def shingles(self) -> set[object]:
        words = _WORD.findall(self._text.casefold())
        if words and sum(map(len, words)) <= _LONGEST_MEAN_WORD * len(words):
            if len(words) <= _SHINGLE_WORDS:
                return {tuple(words)}
            return set(zip(words, words[1:], words[2:], strict=False))
        joined = "".join(words)
        width = _SHINGLE_CHARACTERS
        return {joined[at : at + width] for at in range(max(1, len(joined) - width + 1))}

    def is_near(self, other: _Text) -> bool:
        first, second = self.shingles, other.shingles
        return len(first & second) >= _SAME * len(first | second)


def _likely(text: _Text, rivals: Sequence[_Text]) -> list[int]:
    """Which have the numbers of ``text`` and half of its sketch, most of it first."""
    half = len(text.sketch) / 2
    best = sorted(
        (-shared, at)
        for at, rival in enumerate(rivals)
        if (shared := len(text.sketch & rival.sketch)) >= half and rival.numbers == text.numbers
    )
    return [at for _, at in best[:_LIKELY]]
