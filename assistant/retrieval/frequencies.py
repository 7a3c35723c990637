"""How often each term stands in a chunk, packed so that thousands of chunks are scored at once.

A tsvector knows it too, but PostgreSQL gives it away one term of one row at a time (``ts_rank``),
which takes longer than everything else a keyword search does. Four bytes a term: the upper 26 bits
are of the CRC-32 of its quoted lexeme, the lower 6 how often it stands there, 63 at most. That two
of the 80 terms of a chunk and one of a question meet in 26 bits happens once in 800,000 times.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final
from zlib import crc32

import numpy as np

_OFTEN_BITS: Final = 6
_MOST_OFTEN: Final = (1 << _OFTEN_BITS) - 1
_LOWER_BITS: Final = (1 << 16) - 1
_TERM: Final = re.compile(r"('(?:[^'\\]|''|\\\\)*')(?::([\d,ABCD]+))?")


def pack(terms: str) -> bytes:
    """The frequencies of a tsvector as its literal or as PostgreSQL prints it."""
    return np.array(
        [
            code(name) << _OFTEN_BITS | min(places.count(",") + 1, _MOST_OFTEN)
            for name, places in _TERM.findall(terms)
        ],
        dtype="<u4",
    ).tobytes()


def code(quoted: str) -> int:
    """What a lexeme, quoted as in a tsvector, is known by."""
    return crc32(quoted.encode()) >> _OFTEN_BITS


class Frequencies:
    """Those of several chunks.

    ``packed`` are their packed frequencies one after the other, ``sizes`` how many bytes each has.
    """

    def __init__(self, packed: bytes, sizes: np.ndarray) -> None:
        self._values = np.frombuffer(packed, dtype="<u4")
        self._ends = np.cumsum(sizes, dtype=np.int64) // 4
        self.chunks = len(sizes)

    @classmethod
    def of(cls, packed: Sequence[bytes]) -> Frequencies:
        sizes = np.fromiter(map(len, packed), dtype=np.int64, count=len(packed))
        return cls(b"".join(packed), sizes)

    def counts(self, terms: Sequence[Sequence[int]]) -> np.ndarray:
        """How often each term stands in each chunk: float64 of shape (chunks, terms).

        A term is the codes of the lexemes it may be indexed as.
        """
        found = np.zeros((self.chunks, len(terms)))
        # One look at the lower bits of each code leaves few to be compared with every term.
        is_likely = np.zeros(_LOWER_BITS + 1, dtype=bool)
        lower = [wanted & _LOWER_BITS for alternatives in terms for wanted in alternatives]
        is_likely[lower] = True
        likely = np.flatnonzero(is_likely.take((self._values >> _OFTEN_BITS).astype(np.uint16)))
        owners = np.searchsorted(self._ends, likely, side="right")
        values = self._values[likely]
        codes, often = values >> _OFTEN_BITS, values & _MOST_OFTEN
        for column, alternatives in enumerate(terms):
            for wanted in alternatives:
                hits = np.flatnonzero(codes == wanted)
                found[owners[hits], column] += often[hits]
        return found
