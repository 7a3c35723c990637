"""From scores to the probability that a passage answers: one number for all collections and modes.

A logistic curve over what the fusion knows of a question: how high the passage stands, how far it
stands out from the other candidates, how the arms were weighted, and which share of the question's
rare words the best passage holds; with a reranker, its score too. Platt, "Probabilistic Outputs for
Support Vector Machines" (1999). ``manage.py calibrate`` learns the curves from judged questions,
half of which have everything that answers taken away; a site that never ran it has ``DEFAULTS``.

A reranker has a say, never the last word: passages stand in the order of these chances, to which
its log odds add. How much they count is learnt too, and nothing where they do not help. Until then
it is ``TRUST``: enough for a sure reranker to lift what the fusion has far down, too little for one
that guesses to undo what both arms agree on (``benchmarks/reranking.py`` measures both).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from statistics import fmean
from time import monotonic
from typing import Any, Final, Literal

from assistant.retrieval.models import Calibration, EmbeddingSpace

CurveName = Literal["hybrid", "vector", "keyword", "reranked"]
# How many candidates the best is compared with.
RIVALS: Final = 10
# What a reranker's log odds count beside the fusion's, before anything is learnt of it.
TRUST: Final = 0.25
_MOST_LOG_ODDS: Final = 10.0
_KEPT_SECONDS: Final = 30.0
_NO_CHANCE: Final = 0.001


@dataclass(frozen=True, slots=True)
class Evidence:
    """What is known of one question: the candidates' scores, best first, and the rest.

    ``weight`` is that of the vectors, ``covered`` the share of the question's rare words that the
    best candidate holds. ``quoted``: what the question quotes was found word for word.
    """

    scores: Sequence[float]
    weight: float
    covered: float
    quoted: bool = False

    @property
    def rivals(self) -> float:
        """The mean score of those that came after the best."""
        return fmean(self.scores[1:RIVALS]) if len(self.scores) > 1 else 0.0


@dataclass(frozen=True, slots=True)
class Curve:
    """Coefficients of the logistic function; those of ``score`` and ``reranked`` are positive."""

    bias: float
    score: float
    margin: float
    weight: float
    covered: float
    reranked: float = 0.0

    def chance(self, score: float, evidence: Evidence, log_odds: float = 0.0) -> float:
        """Rises with ``score`` where score + margin is positive, and with the reranker's
        ``log_odds``."""
        logit = (
            self.bias
            + self.score * score
            + self.margin * (score - evidence.rivals)
            + self.weight * evidence.weight
            + self.covered * evidence.covered
            + self.reranked * log_odds
        )
        return 1 / (1 + math.exp(-max(-30.0, min(30.0, logit))))


@dataclass(frozen=True, slots=True)
class Bin:
    """Passages whose ``predicted`` chance was alike, how many, and the share that did answer."""

    predicted: float
    observed: float
    count: int


@dataclass(frozen=True, slots=True)
class Calibrated:
    """The curves in use and how well they hold.

    Below ``threshold`` an answer is not worth giving: ``false_answers`` of the questions without an
    answer still get one, ``answered`` is the share of those that have one. ``ece`` is the expected
    calibration error over ``bins``, of the best passage of questions that were not learnt from.
    """

    curves: dict[CurveName, Curve]
    threshold: float
    false_answers: float
    answered: float
    ece: float
    bins: tuple[Bin, ...]
    sets: tuple[str, ...]
    made_at: datetime | None = None

    def curve(self, name: CurveName) -> Curve:
        if name == "reranked" and name not in self.curves:
            return replace(self.curve("hybrid"), reranked=TRUST)
        return self.curves.get(name) or DEFAULTS.curves[name]

    @property
    def has_use_for_reranker(self) -> bool:
        """False where judged questions showed that it does not help."""
        return self.curve("reranked").reranked > 0

    def to_json(self) -> dict[str, Any]:
        return {
            "curves": {name: asdict(curve) for name, curve in self.curves.items()},
            "bins": [asdict(each) for each in self.bins],
        }


def log_odds(scores: Sequence[float]) -> list[float]:
    """Of a reranker's scores for one question: they are probabilities, or log odds where one of
    them lies outside 0 to 1."""
    if all(0 <= score <= 1 for score in scores):
        certain = (min(max(score, 1e-4), 1 - 1e-4) for score in scores)
        return [math.log(score / (1 - score)) for score in certain]
    return [max(-_MOST_LOG_ODDS, min(_MOST_LOG_ODDS, score)) for score in scores]


# Learnt from 6,900 questions of xquad (en, de, ar, zh), tatqa_dev and chroma_chunking_eval with
# MiniLM; calibration error on a set that was not learnt from: 0.045 in the mean. The threshold only
# stops what is hopeless: what answers, a language model or quoted sentences, still says no itself.
DEFAULTS: Final = Calibrated(
    curves={
        "hybrid": Curve(bias=-2.721, score=0.663, margin=10.619, weight=-3.775, covered=0.809),
        "vector": Curve(bias=-2.278, score=2.914, margin=10.917, weight=-2.258, covered=0.0),
        "keyword": Curve(bias=-2.732, score=-1.702, margin=9.847, weight=0.0, covered=0.253),
    },
    threshold=0.05,
    false_answers=0.815,
    answered=0.974,
    ece=0.045,
    bins=(
        Bin(0.0568, 0.0786, 4197),
        Bin(0.1419, 0.1754, 2628),
        Bin(0.2459, 0.3449, 1241),
        Bin(0.3471, 0.4710, 794),
        Bin(0.4493, 0.5696, 704),
        Bin(0.5507, 0.7077, 585),
        Bin(0.6503, 0.7460, 559),
        Bin(0.7512, 0.8010, 613),
        Bin(0.8516, 0.9019, 826),
        Bin(0.9601, 0.9462, 1653),
    ),
    sets=("chroma_chunking_eval", "tatqa_dev", "xquad-ar", "xquad-de", "xquad-en", "xquad-zh"),
)

_kept: dict[tuple[int | None, str], tuple[float, Calibrated]] = {}


def current(space: EmbeddingSpace | None, reranker: str = "") -> Calibrated:
    """What holds for this model and reranker; looked up at most every half minute.

    What was learnt without a reranker holds for one of which nothing was learnt.
    """
    key = (space.pk if space else None, reranker)
    kept = _kept.get(key)
    if kept is None or monotonic() - kept[0] > _KEPT_SECONDS:
        row = (
            Calibration.objects.filter(space=space, reranker__in={"", reranker})
            .order_by("-reranker", "-made_at")
            .first()
        )
        kept = _kept[key] = (monotonic(), _read(row) if row else DEFAULTS)
    return kept[1]


def store(found: Calibrated, *, space: EmbeddingSpace | None, reranker: str) -> None:
    Calibration.objects.create(
        space=space,
        reranker=reranker,
        threshold=found.threshold,
        false_answers=found.false_answers,
        answered=found.answered,
        ece=found.ece,
        sets=list(found.sets),
        learnt=found.to_json(),
    )
    forget()


def clear(*, space: EmbeddingSpace | None) -> None:
    """Back to ``DEFAULTS`` for this space, whatever the reranker."""
    Calibration.objects.filter(space=space).delete()
    forget()


def forget() -> None:
    """Look again at the next search; other processes do within half a minute."""
    _kept.clear()


def _read(row: Calibration) -> Calibrated:
    return Calibrated(
        curves={name: Curve(**values) for name, values in row.learnt["curves"].items()},
        threshold=row.threshold,
        false_answers=row.false_answers,
        answered=row.answered,
        ece=row.ece,
        bins=tuple(Bin(**each) for each in row.learnt["bins"]),
        sets=tuple(row.sets),
        made_at=row.made_at,
    )


def falling(chances: Sequence[float]) -> list[float]:
    """The same numbers where none is above one before it, and none is quite nothing."""
    lowest = 1.0
    result = []
    for chance in chances:
        lowest = min(lowest, max(chance, _NO_CHANCE))
        result.append(lowest)
    return result
