"""The keyword arm: BM25 over PostgreSQL's text search, scoped inside the SQL.

``ts_rank`` is not BM25: it knows neither how rare a word is nor how long the text. So the index
only says which chunks hold the question's words; how often, stands packed beside each chunk
(``frequencies``), and thousands of them are scored here at once.

A common word matches a great part of a million chunks, and scoring them all takes seconds. What
matters is what holds rare words, or many: a chunk's score is at most K1 + 1 times the summed
rarity of the question's terms in it. So the chunks whose sum lies above a threshold are taken from
the index, by one condition, and scored with all terms. A random sample of what the reader may see
says how common each term is there and which threshold leaves as many chunks as can be scored in a
few milliseconds; the reader's own rare words are counted where they are found. Scores thus tell
nothing about hidden documents. k1 and b are Lucene's defaults (Robertson and Zaragoza 2009,
section 3.4).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from math import log
from typing import Any, Final

import numpy as np

from assistant.database import server_cursor
from assistant.retrieval import statistics
from assistant.retrieval.analysis import Question, Term, terms_of_question
from assistant.retrieval.frequencies import Frequencies, pack
from assistant.retrieval.scope import Scope
from assistant.retrieval.statistics import Sample
from assistant.retrieval.vector import Ranked, ranked

K1: Final = 1.2
B: Final = 0.75
# Words of a question that are looked at, and scored: the first of them where everything is scored,
# else the rarest.
MAX_TERMS: Final = 60
SCORED_TERMS: Final = 32
# Chunks taken from the index for common words. Where most of them are hidden, up to so many times
# as many are read.
CANDIDATES: Final = 2_000
MOST_READ: Final = 4
MOST_CANDIDATES: Final = 20_000
# A term that so few chunks of the sample hold is rare: it is counted, not estimated.
RARE_UP_TO: Final = 2
# Chunks whose documents are asked at once whether they are live.
_AT_ONCE: Final = 250
# Of the common terms, those whose combinations decide who is a candidate.
COMBINED_TERMS: Final = 6
# Each combination holds one of the rarest of them, which together stand in so many chunks of the
# site at most, or the very rarest: so much of the index is walked through.
LED_BY: Final = 40_000


@dataclass(frozen=True, slots=True)
class Matches:
    """``ranked`` is best first. ``possible`` is the idf of all scored terms together.

    ``covered`` is the idf of those of them that each ranked chunk holds. ``quoted``: words stood
    in quotes, and each ranked chunk has them word for word.
    """

    ranked: list[Ranked] = field(default_factory=list)
    possible: float = 0.0
    covered: dict[int, float] = field(default_factory=dict)
    quoted: bool = False


@dataclass(frozen=True, slots=True)
class _Weighed:
    """A term and its idf; None where the statement counts it."""

    term: Term
    idf: float | None


@dataclass(frozen=True, slots=True)
class _Plan:
    """``wanted`` is the tsquery that the candidates match; ``within`` is the reader's condition.

    Without ``wanted`` all are taken, and ``within`` leaves only what answers.
    """

    terms: list[_Weighed]
    wanted: str | None
    within: str


def best_matches(query: str, *, scope: Scope, limit: int, sample: Sample | None = None) -> Matches:
    """The ``limit`` visible chunks with the highest BM25 score of the question's words.

    ``sample`` is that of ``scope``, where it was drawn already. What stands in quotes must be there
    word for word. Over more visible chunks than few (``statistics.FEW``) the ranking is that of the
    candidates the plan takes: see the module's docstring.
    """
    sample = sample or statistics.draw(scope)
    languages = statistics.languages_of_site() if sample.met_none else sample.languages
    question = terms_of_question(query, languages=languages, limit=MAX_TERMS)
    if not question.terms or not (sample.size or sample.met_none):
        return Matches()
    if sample.frequencies is None:
        # By no index of words: for common ones it would be walked through for the whole site.
        within = f"{scope.seeking('c.collection_id')} AND {scope.current}"
        plan = _Plan(_weighed(question.terms), wanted=None, within=within)
    elif sample.met_none:
        plan = _all_that_hold_one(question, scope)
    else:
        holds = sample.frequencies.counts([term.codes for term in question.terms]) > 0
        within = scope.filtering("c.collection_id")
        plan = _most_promising(question.terms, holds, sample, within=within)
    found = _scored(plan, question, sample=sample, scope=scope, limit=limit)
    if len(found.ranked) < limit and scope.documents and sample.frequencies is not None:
        # The plan was made for all that is visible, and the filters leave little of it.
        plan = _all_that_hold_one(question, scope)
        found = _scored(plan, question, sample=sample, scope=scope, limit=limit)
    return found


def _all_that_hold_one(question: Question, scope: Scope) -> _Plan:
    wanted = " | ".join(term.query for term in question.terms[:SCORED_TERMS])
    return _Plan(_weighed(question.terms), wanted, scope.filtering("c.collection_id"))


def _weighed(terms: Sequence[Term]) -> list[_Weighed]:
    """The terms that are scored where all that hold one are: weighed once they are counted."""
    return [_Weighed(term, None) for term in terms[:SCORED_TERMS]]


def _most_promising(
    terms: Sequence[Term], holds: np.ndarray, sample: Sample, *, within: str
) -> _Plan:
    """``holds``: whether each chunk of the sample holds each term."""
    counts = holds.sum(axis=0)
    order = np.argsort(counts, kind="stable")[:SCORED_TERMS]
    size = len(holds)
    rare = [int(i) for i in order if counts[i] <= RARE_UP_TO]
    common = [int(i) for i in order if counts[i] > RARE_UP_TO]
    idf = {i: log(1 + (size - counts[i] + 0.5) / (counts[i] + 0.5)) for i in common}
    weighed = [_Weighed(terms[i], idf.get(int(i))) for i in map(int, order)]
    wanted = [terms[i].query for i in rare]
    leading = common[:COMBINED_TERMS]
    if leading:
        # A chunk of the sample stands for so many of the site: what is hidden is read as well.
        read = CANDIDATES * min(sample.total / sample.count, MOST_READ)
        allowed = int(read * size / sample.total)
        sums = holds[:, leading] @ np.array([idf[i] for i in leading])
        sums = np.sort(sums[~holds[:, rare].any(axis=1)])[::-1]
        above = float(sums[allowed]) if allowed < len(sums) else 0.0
        walked = np.cumsum(counts[leading]) * sample.total / size
        leads = max(int((walked <= LED_BY).sum()), 1)
        wanted.append(
            _above([(terms[i].query, idf[i]) for i in leading], above, leads=leads)
            or "(" + " & ".join(terms[i].query for i in leading) + ")"
        )
    return _Plan(weighed, " | ".join(wanted), within)


def _above(terms: Sequence[tuple[str, float]], least: float, *, leads: int) -> str:
    """A tsquery for texts whose terms' weights add up to more than ``least``; "" where none can.

    ``terms`` come heaviest first; one of the first ``leads`` must be there.
    """
    rest = [0.0]
    for _, weight in reversed(terms):
        rest.append(rest[-1] + weight)
    rest.reverse()

    @cache
    def build(start: int, least: float, led: bool) -> str:
        if rest[start] <= least + 1e-9 or (not led and start >= leads):
            return ""
        query, weight = terms[start]
        without = build(start + 1, least, led)
        if weight > least + 1e-9:
            return f"({query} | {without})" if without else query
        left = build(start + 1, round(least - weight, 9), True)
        both = f"({query} & {left})" if left else ""
        return f"({both} | {without})" if both and without else both or without

    return build(0, round(least, 9), False)


def _scored(
    plan: _Plan, question: Question, *, sample: Sample, scope: Scope, limit: int
) -> Matches:
    """The best of the plan's candidates. Every row read here is one the scope may see."""
    found = _candidates(plan, question, scope)
    ids = found.ids
    if not len(ids):
        return Matches()
    often = found.frequencies.counts([each.term.codes for each in plan.terms])
    for column, starting in zip(_starting(plan), found.starting, strict=True):
        often[:, column] = starting
    held = often > 0
    idf = np.array(
        [
            each.idf if each.idf is not None else _idf(sample.count, float(df))
            for each, df in zip(plan.terms, held.sum(axis=0), strict=True)
        ]
    )
    norm = K1 * (1 - B + B * found.words / sample.mean_length)
    scores = (often / (often + norm[:, None])) @ idf * (K1 + 1)
    covered = held @ idf
    order = np.lexsort((ids, -scores))
    order = order[scores[order] > 0]
    if plan.wanted is None or scope.documents:
        order = order[:limit]
    else:
        order = _current(order, ids, scope=scope, limit=limit)
    best = ids[order].tolist()
    return Matches(
        ranked=ranked(best, scores[order].tolist()),
        possible=float(idf.sum()),
        covered=dict(zip(best, covered[order].tolist(), strict=True)),
        quoted=bool(question.phrases and len(order)),
    )


def _idf(count: float, df: float) -> float:
    return log(1 + (max(count - df, 0) + 0.5) / (df + 0.5))


def _starting(plan: _Plan) -> list[int]:
    """Terms that match beginnings of lexemes, which packed frequencies do not know."""
    return [column for column, each in enumerate(plan.terms) if each.term.starts]


@dataclass(frozen=True, slots=True)
class _Candidates:
    """Ids, words and frequencies of chunks, and how often each term that starts a lexeme stands."""

    ids: np.ndarray
    words: np.ndarray
    frequencies: Frequencies
    starting: list[np.ndarray]


def _candidates(plan: _Plan, question: Question, scope: Scope) -> _Candidates:
    """All in one row: a row for each of thousands would take longer than scoring them."""
    params: dict[str, Any] = dict(scope.params)
    holds = ""
    for i, wanted in enumerate([plan.wanted, *question.phrases]):
        if wanted is not None:
            params[f"wanted_{i}"] = wanted
            holds += f"c.terms @@ %(wanted_{i})s::tsquery AND "
    starting = _starting(plan)
    for column in starting:
        params[f"start_{column}"] = plan.terms[column].term.query
    inner = [f", {_frequency(f'%(start_{i})s::tsquery')} AS start_{i}" for i in starting]
    outer = [f", string_agg(int4send(found.start_{i}), '')" for i in starting]
    # Which index serves depends on how common the words are.
    with server_cursor(is_planned_once=False) as cursor:
        cursor.execute(
            f"""
            SELECT string_agg(int8send(found.id), ''), string_agg(int4send(term_count), ''),
                   string_agg(int4send(length(frequencies)), ''), string_agg(frequencies, ''),
                   array_agg(unpacked) FILTER (WHERE unpacked IS NOT NULL){"".join(outer)}
            FROM (
                SELECT c.id, c.term_count, coalesce(c.frequencies, '') AS frequencies,
                       CASE WHEN c.frequencies IS NULL THEN c.terms::text END AS unpacked
                       {"".join(inner)}
                FROM retrieval_chunk c {scope.ranked if scope.documents else ""}
                WHERE {holds}{plan.within}
                LIMIT {MOST_CANDIDATES}
            ) found
            """,
            params,
        )
        row: tuple[Any, ...] = cursor.fetchone()
    ids, words, sizes, packed = (value or b"" for value in row[:4])
    lengths = np.frombuffer(sizes, ">i4")
    # An older analyser packed none.
    frequencies = _with(row[4], packed, lengths) if row[4] else Frequencies(packed, lengths)
    return _Candidates(
        np.frombuffer(ids, ">i8").astype(np.int64),
        np.frombuffer(words, ">i4"),
        frequencies,
        [np.frombuffer(value or b"", ">i4") for value in row[5:]],
    )


def _with(unpacked: Sequence[str], packed: bytes, sizes: np.ndarray) -> Frequencies:
    """``unpacked`` are the terms of the chunks without frequencies, in their order."""
    terms = iter(unpacked)
    ends = np.cumsum(sizes)
    return Frequencies.of(
        [
            packed[end - size : end] if size else pack(next(terms))
            for size, end in zip(sizes.tolist(), ends.tolist(), strict=True)
        ]
    )


def _frequency(query: str) -> str:
    """How often it stands in ``c.terms``.

    For one lexeme with all weights 1, ``ts_rank`` is a function of that only: 6/pi^2 *
    sum(1/j^2) for j up to it (``calc_rank_or`` in PostgreSQL's tsrank.c), which is very nearly
    1 - 6/pi^2 / (it + 1/2).
    """
    rank = f"ts_rank('{{1,1,1,1}}', c.terms, {query})::float8"
    return f"round(0.60792710185 / (1 - least({rank}, 0.998)) - 0.5)::int"


def _current(order: np.ndarray, ids: np.ndarray, *, scope: Scope, limit: int) -> np.ndarray:
    """The first ``limit`` of ``order`` whose version answers."""
    kept: list[int] = []
    for start in range(0, len(order), _AT_ONCE):
        some = order[start : start + _AT_ONCE].tolist()
        asked = ids[some].tolist()
        # OFFSET 0 makes it a lookup each. Before the first ANALYZE after an upload, a join would be
        # planned the other way round: 30 ms.
        with server_cursor() as cursor:
            cursor.execute(
                f"""
                SELECT string_agg(int8send(best.id), '') FROM unnest(%(ids)s::bigint[]) AS best(id)
                CROSS JOIN LATERAL (
                    SELECT FROM retrieval_chunk c {scope.ranked} WHERE c.id = best.id OFFSET 0
                ) current
                """,
                {**scope.params, "ids": f"{{{','.join(map(str, asked))}}}"},
            )
            current = set(np.frombuffer(cursor.fetchone()[0] or b"", ">i8").tolist())
        kept += [at for at, chunk in zip(some, asked, strict=True) if chunk in current]
        if len(kept) >= limit:
            break
    return np.array(kept[:limit], dtype=np.int64)
