"""One ranking out of two arms, which knows when one of them is blind.

Both scores are brought to a scale that means the same for every question: the cosine above that of
unrelated texts, and BM25 as a share of what a text with all words of the question could get.
Scaling by the best and worst of each list instead, as reciprocal ranks and min-max do, makes the
best of a blind arm as good as the best of a sighted one: Bruch, Gai and Ingber, "An Analysis of
Fusion Functions for Hybrid Retrieval" (2023), section 4, on theoretical bounds.

The weight of the vectors follows from how much of the question's language the model knows.
``benchmarks/ranking.py`` measures all of this against ranks, min-max and each arm alone.
"""

from __future__ import annotations

from collections.abc import Sequence, Set
from dataclasses import dataclass, field, replace
from itertools import zip_longest
from typing import Final

from assistant.retrieval.calibration import RIVALS, Evidence
from assistant.retrieval.keyword import Matches
from assistant.retrieval.languages import FULL, NONE
from assistant.retrieval.tracing import ArmName
from assistant.retrieval.vector import Ranked, ranked

# Chosen on xquad, tatqa_dev and chroma_chunking_eval; 0.05 more or less costs under 0.003.
_WEIGHT_KNOWN: Final = 0.5
_WEIGHT_RELATED: Final = 0.4
_WEIGHT_UNKNOWN: Final = 0.12


@dataclass(frozen=True, slots=True)
class Fused:
    """``ranking`` best first; scores are comparable between questions, 0 to about 1.

    ``weights`` sum to 1, ``reasons`` tell people why they are what they are. ``quoted`` as in
    ``Matches``.
    """

    ranking: list[Ranked]
    weights: dict[ArmName, float]
    evidence: dict[str, float]
    reasons: tuple[str, ...]
    quoted: bool = False

    def as_evidence(self) -> Evidence:
        """What the chances of these candidates follow from."""
        return Evidence(
            scores=[item.score for item in self.ranking[:RIVALS]],
            weight=self.weights["vector"],
            covered=self.evidence["covered"],
            quoted=self.quoted,
        )


@dataclass(slots=True)
class Arms:
    """What the arms brought for one query, best first, and what ``fuse`` has to know of it."""

    vector: list[Ranked] = field(default_factory=list)
    keyword: Matches = field(default_factory=Matches)
    coverage: float = FULL
    floor: float = 0.0

    def fused(self, by: frozenset[ArmName]) -> Fused:
        """As if only the arms in ``by`` had been asked."""
        return fuse(
            self.vector if "vector" in by else [],
            self.keyword if "keyword" in by else Matches(),
            coverage=self.coverage,
            floor=self.floor,
            by=by,
        )

    def without(self, chunks: Set[int]) -> Arms:
        """The same question where ``chunks`` are not in the index."""
        return replace(
            self,
            vector=[item for item in self.vector if item.chunk_id not in chunks],
            keyword=replace(
                self.keyword,
                ranked=[item for item in self.keyword.ranked if item.chunk_id not in chunks],
            ),
        )


def fuse(
    vector: Sequence[Ranked],
    keyword: Matches,
    *,
    coverage: float = FULL,
    floor: float = 0.0,
    by: frozenset[ArmName] = frozenset({"vector", "keyword"}),
) -> Fused:
    """The union of both arms, which are best first.

    ``coverage`` is how well the model knows the language of the question
    (``languages.coverage``), ``floor`` the cosine of unrelated texts under the model. ``by`` are
    the arms that were asked. A chunk that the vector arm did not bring is at
    most as near as the last that it brought; one that the keyword arm did not bring has no word.
    """
    weight = _weight(coverage) if len(by) > 1 else float("vector" in by)
    reasons = [_reason(coverage)] if len(by) > 1 else []
    possible = max(keyword.possible, 1e-9)
    if len(by) > 1 and not vector:
        weight, reasons = 0.0, ["No vector is there to compare with."]
    elif len(by) > 1 and not keyword.ranked:
        reasons.append("No text holds a word of the question.")
    by_nearness, by_words = weight / (1 - floor), (1 - weight) / possible
    scores = {chunk: by_nearness * (score - floor) for chunk, score in vector}
    unseen = by_nearness * (vector[-1].score - floor) if vector else 0.0
    scores |= {
        chunk: scores.get(chunk, unseen) + by_words * score for chunk, score in keyword.ranked
    }
    order = sorted(scores)
    order.sort(key=scores.__getitem__, reverse=True)  # of equal ones the first id stays first
    scored = ranked(order, map(scores.__getitem__, order))
    covered = keyword.covered.get(scored[0].chunk_id, 0.0) / possible if scored else 0.0
    return Fused(
        ranking=scored,
        weights={"vector": weight, "keyword": 1 - weight},
        evidence={
            "coverage": coverage,
            "nearness": (vector[0].score - floor) / (1 - floor) if vector else 0.0,
            "share": keyword.ranked[0].score / possible if keyword.ranked else 0.0,
            "covered": covered,
        },
        reasons=tuple(reasons),
        quoted=keyword.quoted,
    )


def merge(rankings: Sequence[Sequence[Ranked]]) -> list[Ranked]:
    """One ranking of the same question's queries: the best of each come first, by turns.

    A chunk keeps the best score that a query gave it, lowered where needed so that scores fall.
    """
    if len(rankings) == 1:
        return list(rankings[0])
    scores: dict[int, float] = {}
    for ranking in rankings:
        for item in ranking:
            scores[item.chunk_id] = max(item.score, scores.get(item.chunk_id, 0.0))
    by_turns = dict.fromkeys(
        item.chunk_id for turn in zip_longest(*rankings) for item in turn if item is not None
    )
    lowest = max(scores.values(), default=0.0)
    merged: list[Ranked] = []
    for chunk_id in by_turns:
        lowest = min(lowest, scores[chunk_id])
        merged.append(Ranked(chunk_id, lowest))
    return merged


def _weight(coverage: float) -> float:
    if coverage >= FULL:
        return _WEIGHT_KNOWN
    return _WEIGHT_RELATED if coverage > NONE else _WEIGHT_UNKNOWN


def _reason(coverage: float) -> str:
    if coverage >= FULL:
        return "The embedding model knows the language of the question: both arms count alike."
    if coverage > NONE:
        return (
            "The embedding model was not made for the language of the question, but reads its"
            " script: words count more than vectors."
        )
    return (
        "The embedding model does not know the language of the question: words decide, and vectors"
        " only break ties."
    )
