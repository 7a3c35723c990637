"""Learning the curves of ``calibration`` from judged questions.

Each question is asked twice: as it is, and as if nothing that answers it were in the index. So the
curves see as many questions without an answer as with one, which is the prior of the chances.
Every set counts the same however many questions it has. A reranker is asked about the candidates
of each question, and its curve is learnt beside the others: how much its word counts, if at all.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

from assistant.database import release_connection
from assistant.retrieval.arms import ARMS
from assistant.retrieval.calibration import Bin, Calibrated, Curve, CurveName, log_odds
from assistant.retrieval.fusion import Arms, Fused
from assistant.retrieval.models import Chunk
from assistant.retrieval.searching import RERANK_DEPTH
from inference.types import Reranker

ANSWERED: Final = 0.97
_LOOKED_AT: Final = 3
_BINS: Final = 10
_LEAST_FUSION: Final = 0.1
_Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Example:
    """One passage at ``place`` (from 0) of the fusion for one question of ``dataset``.

    ``features`` are score, margin, weight, covered and the reranker's log odds, 0 without one;
    ``was_left_out`` where all that answers was taken away.
    """

    dataset: str
    curve: CurveName
    place: int
    features: tuple[float, float, float, float, float]
    answers: bool
    was_left_out: bool


@dataclass(frozen=True, slots=True)
class Help:
    """Of the judged questions, the share whose best passage answers, with the reranker's word as
    it was learnt from others and without it."""

    without: float
    reranked: float


def examples(
    dataset: str,
    arms: Arms,
    *,
    documents: Mapping[int, str],
    relevant: Set[str],
    reranked: Mapping[int, float] | None = None,
) -> Iterator[Example]:
    """What one judged question teaches. ``documents`` maps chunk ids to the ids in ``relevant``,
    ``reranked`` the candidates that a reranker was shown to its log odds."""
    answering = {chunk for chunk, document in documents.items() if document in relevant}
    for left_out, candidates in ((False, arms), (True, arms.without(answering))):
        for curve, by in ARMS.items():
            fused = candidates.fused(by)
            looked_at = dict.fromkeys(range(min(_LOOKED_AT, len(fused.ranking))), 0.0)
            yield from _seen(dataset, curve, fused, looked_at, answering, left_out)
            if curve == "hybrid" and reranked:
                odds = {
                    place: reranked[item.chunk_id]
                    for place, item in enumerate(fused.ranking)
                    if item.chunk_id in reranked
                }
                best = sorted(odds, key=lambda place: -odds[place])[:_LOOKED_AT]
                chosen = sorted({*list(odds)[:_LOOKED_AT], *best})
                yield from _seen(
                    dataset, "reranked", fused, {p: odds[p] for p in chosen}, answering, left_out
                )


def _seen(
    dataset: str,
    curve: CurveName,
    fused: Fused,
    places: Mapping[int, float],
    answering: Set[int],
    left_out: bool,
) -> Iterator[Example]:
    """The candidates at ``places``, each with a reranker's log odds."""
    evidence = fused.as_evidence()
    for place, odds in places.items():
        item = fused.ranking[place]
        margin = item.score - evidence.rivals
        yield Example(
            dataset=dataset,
            curve=curve,
            place=place,
            features=(item.score, margin, evidence.weight, evidence.covered, odds),
            answers=item.chunk_id in answering,
            was_left_out=left_out,
        )


def log_odds_of(reranker: Reranker, query: str, arms: Arms) -> dict[int, float]:
    """What it says of the candidates that a search would show it. Raises EngineError."""
    ranking = arms.fused(ARMS["hybrid"]).ranking[:RERANK_DEPTH]
    wanted = [item.chunk_id for item in ranking]
    texts = dict(Chunk.objects.filter(pk__in=wanted).values_list("pk", "text"))
    shown = [chunk for chunk in wanted if chunk in texts]
    if not shown:
        return {}
    release_connection()
    scores = reranker.rerank(query, [texts[chunk] for chunk in shown])
    return dict(zip(shown, log_odds(scores), strict=True))


def learn(found: Sequence[Example], *, false_answers: float | None = None) -> Calibrated:
    """Curves for all modes, and how well they hold on questions not learnt from.

    The threshold lets ``false_answers`` of the questions pass that have no answer; without that,
    ``ANSWERED`` of those that have one, and what answers has to say no to the rest.
    Raises ValueError where there are too few questions.
    """
    if sum(e.place == 0 and e.curve == "hybrid" and e.answers for e in found) < 20:
        raise ValueError("At least 20 judged questions with a found answer are needed.")
    curves: dict[CurveName, Curve] = {
        name: _fitted([e for e in found if e.curve == name]) for name in ARMS
    }
    hybrid = [e for e in found if e.curve == "hybrid"]
    return _measured("hybrid", hybrid, curves, _held_out(hybrid, _fitted), false_answers)


def learn_with_reranker(
    found: Sequence[Example], *, plain: Calibrated, false_answers: float | None = None
) -> tuple[Calibrated, Help]:
    """As ``learn``, whose result is ``plain``, for searches with the reranker; and how it helps.

    One that does not help has no weight and is not asked: all is as in ``plain`` then.
    """
    hybrid = plain.curve("hybrid")
    seen = [e for e in found if e.curve == "reranked"]
    curve = _mixed(seen, hybrid)
    unseen = _held_out(seen, lambda some: _mixed(some, hybrid))
    weights = _weights(seen)

    def right(chosen: Sequence[int]) -> float:
        with_answer = [at for at in chosen if not seen[at].was_left_out]
        right = [seen[at].answers for at in with_answer]
        return float(np.average(right, weights=weights[with_answer]))

    first = _best(seen, -np.array([e.place for e in seen], dtype=float))
    help_ = Help(without=round(right(first), 4), reranked=round(right(_best(seen, unseen)), 4))
    if curve.reranked <= 0 or help_.reranked <= help_.without:
        useless = replace(hybrid, reranked=0.0)
        return replace(plain, curves={**plain.curves, "reranked": useless}), help_
    curves = {**plain.curves, "reranked": curve}
    return _measured("reranked", seen, curves, unseen, false_answers), help_


def _measured(
    by: CurveName,
    seen: Sequence[Example],
    curves: dict[CurveName, Curve],
    unseen: _Floats,
    false_answers: float | None,
) -> Calibrated:
    """``seen`` are the examples of the curve ``by``, ``unseen`` their chances by one that did not
    learn from them."""
    chances = np.array([_chance(curves[by], e) for e in seen])
    best, tops = _best(seen, chances), _best(seen, unseen)
    weights = _weights([seen[at] for at in best])
    known = chances[best]
    absent = np.array([seen[at].was_left_out for at in best])
    answered = np.array([seen[at].answers for at in tops], dtype=float)
    bins = tuple(_bins(unseen[tops], answered))
    if false_answers is None:
        threshold = _quantile(known[~absent], weights[~absent], 1 - ANSWERED) - 1e-4
    else:
        threshold = _quantile(known[absent], weights[absent], 1 - false_answers) + 1e-4
    passing = known >= threshold
    return Calibrated(
        curves=curves,
        threshold=round(threshold, 4),
        false_answers=round(float(np.average(passing[absent], weights=weights[absent])), 4),
        answered=round(float(np.average(passing[~absent], weights=weights[~absent])), 4),
        ece=_error(bins),
        bins=bins,
        sets=tuple(sorted({e.dataset for e in seen})),
    )


@dataclass(frozen=True, slots=True)
class Errors:
    """The expected calibration error for the questions of one set, of a hybrid search's best
    passage: by the curve ``before``, by one learnt from ``other_questions``, half of those of all
    sets, and by one learnt from ``other_sets`` alone, None where there are none."""

    before: float
    other_questions: float
    other_sets: float | None


def errors_by_set(found: Sequence[Example], *, before: Curve) -> dict[str, Errors]:
    hybrid = [e for e in found if e.curve == "hybrid"]
    names = sorted({e.dataset for e in hybrid})

    def errors(chances: _Floats) -> dict[str, float]:
        best = _best(hybrid, chances)
        result = {}
        for name in names:
            tops = [at for at in best if hybrid[at].dataset == name]
            answered = np.array([hybrid[at].answers for at in tops], dtype=float)
            result[name] = _error(tuple(_bins(chances[tops], answered)))
        return result

    old = errors(np.array([_chance(before, e) for e in hybrid]))
    questions = errors(_held_out(hybrid, _fitted))
    try:
        sets = errors(_held_out(hybrid, _fitted, by="set")) if len(names) > 1 else {}
    except ValueError:  # one of them teaches nothing by itself
        sets = {}
    return {name: Errors(old[name], questions[name], sets.get(name)) for name in names}


def _error(bins: Sequence[Bin]) -> float:
    total = sum(each.count for each in bins)
    return round(sum(b.count * abs(b.predicted - b.observed) for b in bins) / total, 4)


def _askings(found: Sequence[Example]) -> list[tuple[int, bool]]:
    """Which question each belongs to, from 0, and whether as it is or without what answers.

    ``found`` are of one curve: ``examples`` gives each question's by place, as it is first.
    """
    askings: list[tuple[int, bool]] = []
    number, before = -1, None
    for each in found:
        is_next = before is None or before.was_left_out or each.place <= before.place
        number += is_next and not each.was_left_out
        askings.append((number, each.was_left_out))
        before = each
    return askings


def _best(found: Sequence[Example], chances: _Floats) -> list[int]:
    """Of each question as it was asked, the one with the highest chance."""
    asked = groupby(zip(_askings(found), range(len(found)), strict=True), key=lambda pair: pair[0])
    return [max((at for _, at in each), key=lambda at: chances[at]) for _, each in asked]


def _held_out(
    found: Sequence[Example],
    fit: Callable[[Sequence[Example]], Curve],
    *,
    by: Literal["question", "set"] = "question",
) -> _Floats:
    """The chance of each by a curve that saw the other half of the questions, or the other sets."""
    parts: list[object] = [number % 2 for number, _ in _askings(found)]
    if by == "set":
        parts = [e.dataset for e in found]
    chances = np.zeros(len(found))
    for part in set(parts):
        curve = fit([e for e, its in zip(found, parts, strict=True) if its != part])
        for at, example in enumerate(found):
            if parts[at] == part:
                chances[at] = _chance(curve, example)
    return chances


def _mixed(found: Sequence[Example], hybrid: Curve) -> Curve:
    """The fusion's word and the reranker's, each with its weight; the fusion's is never nothing."""
    from sklearn.linear_model import LogisticRegression  # type: ignore[import-untyped]

    features = np.array([(_logit(hybrid, e), e.features[4]) for e in found])
    answers = np.array([e.answers for e in found])
    fit: Any = LogisticRegression(C=100.0, max_iter=1000).fit(
        features, answers, sample_weight=_weights(found)
    )
    fusion, reranked = (float(each) for each in fit.coef_[0])
    fusion = max(fusion, _LEAST_FUSION)
    return Curve(
        bias=round(fusion * hybrid.bias + float(fit.intercept_[0]), 3),
        score=round(fusion * hybrid.score, 3),
        margin=round(fusion * hybrid.margin, 3),
        weight=round(fusion * hybrid.weight, 3),
        covered=round(fusion * hybrid.covered, 3),
        reranked=round(reranked, 3),
    )


def _fitted(found: Sequence[Example]) -> Curve:
    from sklearn.linear_model import LogisticRegression

    features = np.array([e.features[:4] for e in found])
    answers = np.array([e.answers for e in found])
    fit: Any = LogisticRegression(C=100.0, max_iter=1000).fit(
        features, answers, sample_weight=_weights(found)
    )
    score, margin, weight, covered = (round(float(each), 3) for each in fit.coef_[0])
    if score + margin <= 0:
        raise ValueError("The judgements contradict the ranking: better scores answer less often.")
    return Curve(
        bias=round(float(fit.intercept_[0]), 3),
        score=score,
        margin=margin,
        weight=weight,
        covered=covered,
    )


def _weights(found: Sequence[Example]) -> _Floats:
    names, counts = np.unique([e.dataset for e in found], return_counts=True)
    share = dict(zip(names.tolist(), 1000.0 / counts, strict=True))
    return np.array([share[e.dataset] for e in found])


def _chance(curve: Curve, example: Example) -> float:
    return float(1 / (1 + np.exp(-_logit(curve, example))))


def _logit(curve: Curve, example: Example) -> float:
    score, margin, weight, covered, odds = example.features
    logit = curve.bias + curve.score * score + curve.margin * margin
    return logit + curve.weight * weight + curve.covered * covered + curve.reranked * odds


def _quantile(values: _Floats, weights: _Floats, share: float) -> float:
    """The value up to which ``share`` of the weight lies."""
    order = np.argsort(values)
    reached = np.cumsum(weights[order]) / weights.sum()
    at = int(np.searchsorted(reached, share))
    return float(values[order][min(at, len(values) - 1)])


def _bins(chances: _Floats, answered: _Floats) -> Iterator[Bin]:
    places = np.minimum((chances * _BINS).astype(int), _BINS - 1)
    for place in range(_BINS):
        inside = places == place
        if inside.any():
            yield Bin(
                predicted=round(float(chances[inside].mean()), 4),
                observed=round(float(answered[inside].mean()), 4),
                count=int(inside.sum()),
            )
