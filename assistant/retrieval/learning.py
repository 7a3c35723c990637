"""Learning the curves of ``calibration`` from judged questions.

Each question is asked twice: as it is, and as if nothing that answers it were in the index. So the
curves see as many questions without an answer as with one, which is the prior of the chances.
Every set counts the same however many questions it has.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from assistant.retrieval.calibration import DEFAULTS, Bin, Calibrated, Curve, CurveName
from assistant.retrieval.fusion import Arms
from assistant.retrieval.tracing import ArmName

ANSWERED: Final = 0.97
_LOOKED_AT: Final = 3
_BINS: Final = 10
_ARMS: Final[dict[CurveName, frozenset[ArmName]]] = {
    "hybrid": frozenset({"vector", "keyword"}),
    "vector": frozenset({"vector"}),
    "keyword": frozenset({"keyword"}),
}
_Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Example:
    """One passage at ``place`` (from 0) for one question of ``dataset``.

    ``features`` are score, margin, weight and covered; ``was_left_out`` where all that answers was
    taken away.
    """

    dataset: str
    curve: CurveName
    place: int
    features: tuple[float, float, float, float]
    answers: bool
    was_left_out: bool


def examples(
    dataset: str, arms: Arms, *, documents: Mapping[int, str], relevant: Set[str]
) -> Iterator[Example]:
    """What one judged question teaches. ``documents`` maps chunk ids to the ids in ``relevant``."""
    answering = {chunk for chunk, document in documents.items() if document in relevant}
    for left_out, candidates in ((False, arms), (True, arms.without(answering))):
        for curve, by in _ARMS.items():
            fused = candidates.fused(by)
            evidence = fused.as_evidence()
            for place, item in enumerate(fused.ranking[:_LOOKED_AT]):
                yield Example(
                    dataset=dataset,
                    curve=curve,
                    place=place,
                    features=(
                        item.score,
                        item.score - evidence.rivals,
                        evidence.weight,
                        evidence.covered,
                    ),
                    answers=item.chunk_id in answering,
                    was_left_out=left_out,
                )


def learn(found: Sequence[Example], *, false_answers: float | None = None) -> Calibrated:
    """Curves for all modes, and how well they hold on sets (or questions) not learnt from.

    The threshold lets ``false_answers`` of the questions pass that have no answer; without that,
    ``ANSWERED`` of those that have one, and what answers has to say no to the rest.
    Raises ValueError where there are too few questions.
    """
    if sum(e.place == 0 and e.curve == "hybrid" and e.answers for e in found) < 20:
        raise ValueError("At least 20 judged questions with a found answer are needed.")
    curves = {name: _fitted([e for e in found if e.curve == name]) for name in _ARMS}
    tops = [e for e in found if e.curve == "hybrid" and e.place == 0]
    chances = _held_out(tops, [e for e in found if e.curve == "hybrid"])
    weights = _weights(tops)
    answered = np.array([e.answers for e in tops], dtype=float)
    bins = tuple(_bins(chances, answered))
    known = np.array([_chance(curves["hybrid"], e) for e in tops])
    absent = np.array([e.was_left_out for e in tops])
    if false_answers is None:
        threshold = _quantile(known[~absent], weights[~absent], 1 - ANSWERED) - 1e-4
    else:
        threshold = _quantile(known[absent], weights[absent], 1 - false_answers) + 1e-4
    passing = known >= threshold
    return Calibrated(
        curves={**curves, "reranked": DEFAULTS.curves["reranked"]},
        threshold=round(threshold, 4),
        false_answers=round(float(np.average(passing[absent], weights=weights[absent])), 4),
        answered=round(float(np.average(passing[~absent], weights=weights[~absent])), 4),
        ece=round(sum(b.count * abs(b.predicted - b.observed) for b in bins) / len(tops), 4),
        bins=bins,
        sets=tuple(sorted({e.dataset for e in found})),
    )


def _held_out(tops: Sequence[Example], found: Sequence[Example]) -> _Floats:
    """The chance of each of ``tops`` by a curve that did not see its set; of its half, with one."""
    sets = sorted({e.dataset for e in found})
    chances = np.zeros(len(tops))
    if len(sets) > 1:
        for name in sets:
            curve = _fitted([e for e in found if e.dataset != name])
            for at, example in enumerate(tops):
                if example.dataset == name:
                    chances[at] = _chance(curve, example)
        return chances
    for half in (0, 1):
        curve = _fitted([e for at, e in enumerate(found) if at // (2 * _LOOKED_AT) % 2 != half])
        for at, example in enumerate(tops):
            if at // 2 % 2 == half:
                chances[at] = _chance(curve, example)
    return chances


def _fitted(found: Sequence[Example]) -> Curve:
    from sklearn.linear_model import LogisticRegression  # type: ignore[import-untyped]

    features = np.array([e.features for e in found])
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
    score, margin, weight, covered = example.features
    logit = curve.bias + curve.score * score + curve.margin * margin
    logit += curve.weight * weight + curve.covered * covered
    return float(1 / (1 + np.exp(-logit)))


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
