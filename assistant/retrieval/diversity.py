"""Passages that say the same thing twice are one passage and a note.

Word triples are compared where sketches of the texts agree, as in Broder, "On the resemblance and
containment of documents" (1997).
Texts with different numbers are never the same: last year's price is what they differ by.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import Final

from assistant.retrieval.passages import Passage
from assistant.retrieval.tracing import Decision

# Deeper ranks are not read by anyone, and comparing costs time.
_COMPARED: Final = 40
_SAME: Final = 0.9
_SKETCH: Final = 8
_WORD: Final = re.compile(r"\w+")
_NUMBER: Final = re.compile(r"\d+")
_SHINGLE_WORDS: Final = 3
_SHINGLE_CHARACTERS: Final = 8
# Scripts without spaces make words as long as sentences.
_LONGEST_MEAN_WORD: Final = 14


def collapse(found: Sequence[Passage]) -> tuple[list[Passage], list[Passage], list[Decision]]:
    """``found``, best first, without near-duplicates of better ones; those; and why."""
    kept: list[Passage] = []
    twins: list[Passage] = []
    decisions: list[Decision] = []
    holders: defaultdict[int, list[int]] = defaultdict(list)
    for passage in found[:_COMPARED]:
        sketch = _sketch(passage.text)
        shared = Counter(at for number in sketch for at in holders.get(number, ()))
        likely = (kept[at] for at, count in shared.most_common(3) if 2 * count >= len(sketch))
        twin = next((other for other in likely if _says_the_same(other.text, passage.text)), None)
        if twin is None:
            for number in sketch:
                holders[number].append(len(kept))
            kept.append(passage)
            continue
        twins.append(passage)
        decisions.append(
            Decision(
                passage.chunk_ids[0],
                "collapsed",
                f"it says the same as a better passage of {twin.title}",
                into=twin.chunk_ids[0],
            )
        )
    return [*kept, *found[_COMPARED:]], twins, decisions


def _sketch(text: str) -> list[int]:
    """The smallest hashes of its words: texts that share nine words in ten share most of these."""
    words = text.casefold().split()
    if len(text) > _LONGEST_MEAN_WORD * len(words):
        words = [text[at : at + 4] for at in range(0, max(1, len(text) - 3))]
    return sorted(set(map(hash, words)))[:_SKETCH]


def _says_the_same(one: str, other: str) -> bool:
    if _numbers(one) != _numbers(other):
        return False
    first, second = _shingles(one), _shingles(other)
    return len(first & second) >= _SAME * len(first | second)


def _shingles(text: str) -> set[object]:
    words = _WORD.findall(text.casefold())
    if words and sum(map(len, words)) <= _LONGEST_MEAN_WORD * len(words):
        if len(words) <= _SHINGLE_WORDS:
            return {tuple(words)}
        return set(zip(words, words[1:], words[2:], strict=False))
    joined = "".join(words)
    width = _SHINGLE_CHARACTERS
    return {joined[at : at + width] for at in range(max(1, len(joined) - width + 1))}


def _numbers(text: str) -> list[str]:
    return _NUMBER.findall(text)
