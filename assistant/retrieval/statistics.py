"""What BM25 must know of the texts a reader may see: how many, how long, how common a word is.

Counting a common word over a million chunks takes seconds, and counts kept for the whole site would
tell of documents the reader may not see. So the visible chunks are drawn by lot instead: each has
a number that depends on its id alone, an index holds the chunks in that order, and the first
``SIZE`` visible ones are a random sample. It follows every upload, deletion and change of rights
at once, and the same question gets the same answer. How far into the numbers it reaches tells how
many there are (a bottom-k sketch, Cohen and Kaplan 2007). Rare words are counted where they are
found, not estimated: see ``keyword``. A sample of very many is kept for some seconds, for the same
reader and choice of collections: nobody else's questions are weighed by it. Of few visible chunks
no sample is drawn: every one that holds a term is scored.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, replace
from threading import Lock
from time import monotonic
from typing import Final

import numpy as np
from django.db import connection

from assistant.database import server_cursor
from assistant.retrieval.frequencies import Frequencies, pack
from assistant.retrieval.models import LOTS
from assistant.retrieval.scope import Scope

SIZE: Final = 600
# Where hardly anything visible answers (all else disabled, or being replaced), so many are drawn.
DEEP: Final = 20_000
# Up to this many visible chunks, or one in FEW_OF of the site if that is more, the keyword arm
# scores every one, at 3 to 4 microseconds each. A sample and candidates take 30 ms on a site of
# 10,000 chunks, 45 on one of 100,000 and, where so little of a million is visible, 100 to 200.
FEW: Final = 8_000
FEW_OF: Final = 64
MOST_FEW: Final = 16_000
# A language with a smaller share of the sample is not worth a stem of its own for every word.
_LANGUAGE_SHARE: Final = 0.01
_MOST_LANGUAGES: Final = 6

# Samples that are kept, of readers of so many chunks that a few more or less change nothing.
KEPT_SECONDS: Final = 20.0
_KEPT_FROM: Final = 4_000
_KEPT: Final = 200


@dataclass(frozen=True, slots=True)
class Sample:
    """Visible chunks by lot. ``count`` is how many the whole is (estimated), ``held`` how many its
    collections hold, those too that do not answer, ``total`` how many chunks the site has.
    ``languages`` is what the whole is written in, most first, ``mean_length`` in words.
    ``frequencies`` are those of ``size`` chunks, None where the whole is few."""

    size: int
    count: float
    held: float
    mean_length: float
    languages: list[str]
    total: float = 0.0
    frequencies: Frequencies | None = None

    @property
    def met_none(self) -> bool:
        """So little of what is visible answers, if anything, that the lot met none of it."""
        return self.frequencies is not None and not self.size


_kept: OrderedDict[str, tuple[float, Sample]] = OrderedDict()
_lock = Lock()


def draw(scope: Scope) -> Sample:
    """The sample of what ``scope`` may see, before its filters; all of it where that is little."""
    asked = {name: value for name, value in scope.params.items() if f"%({name})s" in scope.readable}
    key = repr((scope.readable, sorted(asked.items())))
    with _lock:
        made, sample = _kept.get(key, (0.0, None))
    if sample is not None and monotonic() - made < KEPT_SECONDS:
        return sample
    scope = replace(scope, documents="")
    sample = _few(scope) or _draw(scope, SIZE)
    if sample.frequencies is not None and sample.size < SIZE // 50:
        sample = _draw(scope, DEEP)
    if sample.count >= _KEPT_FROM:
        with _lock:
            _kept[key] = (monotonic(), sample)
            _kept.move_to_end(key)
            if len(_kept) > _KEPT:
                _kept.popitem(last=False)
    return sample


def _few(scope: Scope) -> Sample | None:
    """What few visible chunks are, all of them, read from the index of their collections.

    None where there are more. What waits to be replaced or is disabled counts as well, here as for
    how many chunks hold a word.
    """
    with server_cursor() as cursor:
        cursor.execute(
            f"""
            WITH most AS MATERIALIZED (
                SELECT greatest({FEW}, least({MOST_FEW}, reltuples / {FEW_OF}))::bigint AS chunks,
                       reltuples AS total
                FROM pg_class WHERE oid = 'retrieval_chunk'::regclass
            )
            SELECT language, count(*), sum(term_count), (SELECT chunks FROM most),
                   (SELECT total FROM most)
            FROM (
                SELECT c.language, c.term_count FROM retrieval_chunk c
                WHERE {scope.seeking("c.collection_id")} LIMIT (SELECT chunks + 1 FROM most)
            ) few GROUP BY language
            """,
            scope.params,
        )
        rows = cursor.fetchall()
    seen = sum(row[1] for row in rows)
    if rows and seen > rows[0][3]:
        return None
    return Sample(
        size=seen,
        count=float(seen),
        held=float(seen),
        mean_length=max(float(sum(row[2] for row in rows)) / max(seen, 1), 1.0),
        languages=_languages({row[0]: row[1] for row in rows}),
        total=max(float(rows[0][4]), seen) if rows else 0.0,
    )


def _draw(scope: Scope, size: int) -> Sample:
    """Chunks are drawn first and asked then whether they are live, so that drawing reads nothing
    but the index and stops after ``size``.
    """
    with connection.cursor() as cursor:
        cursor.execute(
            f"""
            WITH drawn AS MATERIALIZED (
                SELECT c.id, c.language, c.term_count, hashint8(c.id) & {LOTS - 1} AS lot
                FROM retrieval_chunk c WHERE {scope.filtering("c.collection_id")}
                ORDER BY hashint8(c.id) & {LOTS - 1} LIMIT {size}
            )
            SELECT drawn.language, drawn.term_count, c.frequencies,
                   CASE WHEN c.frequencies IS NULL THEN c.terms::text END,
                   (SELECT count(*) FROM drawn), (SELECT max(lot) FROM drawn),
                   (SELECT reltuples FROM pg_class WHERE oid = 'retrieval_chunk'::regclass)
            FROM drawn JOIN retrieval_chunk c ON c.id = drawn.id {scope.ranked}
            """,
            scope.params,
        )
        rows = cursor.fetchall()
    drawn = held = float(rows[0][4]) if rows else 0.0
    if rows and drawn == size:
        held = (size - 1) * LOTS / max(rows[0][5], 1)
    count = held * len(rows) / max(drawn, 1)
    return Sample(
        size=len(rows),
        count=count,
        held=held,
        mean_length=max(float(np.mean([row[1] for row in rows])), 1.0) if rows else 1.0,
        languages=_languages(Counter(row[0] for row in rows)),
        total=max(float(rows[0][6]), count) if rows else 0.0,
        frequencies=Frequencies.of(
            [row[2] if row[2] is not None else pack(row[3]) for row in rows]
        ),
    )


def languages_of_site() -> list[str]:
    """What the texts of the whole site are written in, for what is loaded before anybody asks."""
    with connection.cursor() as cursor:
        cursor.execute(
            f"""
            SELECT c.language FROM retrieval_chunk c
            ORDER BY hashint8(c.id) & {LOTS - 1} LIMIT {SIZE}
            """
        )
        return _languages(Counter(row[0] for row in cursor.fetchall()))


def _languages(found: Mapping[str, int]) -> list[str]:
    often = Counter(found).most_common(_MOST_LANGUAGES)
    least = _LANGUAGE_SHARE * sum(found.values())
    return [language for language, count in often if count >= least]
