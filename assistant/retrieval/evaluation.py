"""Scoring rankings of documents against judgements, as trec_eval does, and comparing them.

Two configurations are compared query by query: the interval of the mean difference is a percentile
bootstrap over queries, the p-value a randomisation test that flips the signs of the differences
(Smucker, Allan and Carterette 2007, "A comparison of statistical significance tests").
"""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, quantiles
from typing import Any

import numpy as np

Judgements = dict[str, dict[str, int]]
RESAMPLES = 10_000


@dataclass(frozen=True, slots=True)
class Figures:
    """Means over all judged queries; latencies in milliseconds."""

    queries: int
    ndcg_at_10: float
    recall_at_10: float
    recall_at_100: float
    mrr_at_10: float
    latency_p50_ms: float
    latency_p95_ms: float


@dataclass(frozen=True, slots=True)
class Loss:
    """A query on which the second configuration falls behind the first."""

    query: str
    before: float
    after: float


@dataclass(frozen=True, slots=True)
class Difference:
    """Second minus first, mean over ``queries`` that both have.

    ``low`` and ``high`` bound it with 95 % confidence; ``p`` is how often chance alone gives a
    difference at least as large. ``losses`` are the worst queries, worst first.
    """

    queries: int
    mean: float
    low: float
    high: float
    p: float
    losses: tuple[Loss, ...]


def read_jsonl(path: Path) -> Iterator[dict[str, Any]]:
    with path.open(encoding="utf-8") as lines:
        for line in lines:
            if line.strip():
                yield json.loads(line)


def read_judgements(path: Path) -> Judgements:
    """``qrels.tsv``: query, document, grade, with or without a heading line."""
    judgements: Judgements = {}
    with path.open(encoding="utf-8", newline="") as lines:
        for row in csv.reader(lines, delimiter="\t"):
            if len(row) >= 3 and row[2].lstrip("-").isdigit() and int(row[2]) > 0:
                judgements.setdefault(row[0], {})[row[1]] = int(row[2])
    return judgements


def score(
    rankings: Mapping[str, Sequence[str]],
    judgements: Judgements,
    *,
    latencies_ms: Sequence[float],
) -> Figures:
    """``rankings`` maps a query id to document ids, best first. Raises ValueError without any."""
    judged = [
        (rankings[query], wanted) for query, wanted in judgements.items() if query in rankings
    ]
    if not judged:
        raise ValueError("No query has both a ranking and a judgement.")
    cuts = quantiles(latencies_ms, n=20) if len(latencies_ms) > 1 else [latencies_ms[0]] * 19
    return Figures(
        queries=len(judged),
        ndcg_at_10=fmean(ndcg(ranking, wanted, 10) for ranking, wanted in judged),
        recall_at_10=fmean(recall(ranking, wanted, 10) for ranking, wanted in judged),
        recall_at_100=fmean(recall(ranking, wanted, 100) for ranking, wanted in judged),
        mrr_at_10=fmean(reciprocal_rank(ranking, wanted, 10) for ranking, wanted in judged),
        latency_p50_ms=cuts[9],
        latency_p95_ms=cuts[18],
    )


def ndcg_by_query(
    rankings: Mapping[str, Sequence[str]], judgements: Judgements, *, depth: int = 10
) -> dict[str, float]:
    """nDCG of each query that has both a ranking and a judgement."""
    return {
        query: ndcg(rankings[query], wanted, depth)
        for query, wanted in judgements.items()
        if query in rankings
    }


def compare(
    first: Mapping[str, float],
    second: Mapping[str, float],
    *,
    seed: int,
    resamples: int = RESAMPLES,
    losses: int = 5,
) -> Difference:
    """Scores by query of two configurations, paired. Raises ValueError when they share no query."""
    queries = sorted(first.keys() & second.keys())
    if not queries:
        raise ValueError("The two runs have no query in common.")
    differences = np.array([second[query] - first[query] for query in queries])
    mean = float(differences.mean())
    chance = np.random.default_rng(seed)
    means = np.empty(resamples)
    extreme = 0
    for i in range(resamples):  # one at a time: all at once is queries x resamples in memory
        means[i] = differences[chance.integers(0, len(queries), len(queries))].mean()
        flipped = differences @ chance.choice((-1.0, 1.0), len(queries)) / len(queries)
        extreme += abs(flipped) >= abs(mean) - 1e-12
    low, high = np.percentile(means, (2.5, 97.5))
    worst = sorted(queries, key=lambda query: second[query] - first[query])[:losses]
    return Difference(
        queries=len(queries),
        mean=mean,
        low=float(low),
        high=float(high),
        p=(extreme + 1) / (resamples + 1),
        losses=tuple(
            Loss(query, first[query], second[query])
            for query in worst
            if second[query] < first[query]
        ),
    )


def ndcg(ranking: Sequence[str], wanted: Mapping[str, int], depth: int) -> float:
    """Jarvelin and Kekalainen 2002 with linear gains, like trec_eval's ndcg_cut."""
    gains = [wanted.get(document, 0) for document in ranking[:depth]]
    return _discounted(gains) / _discounted(sorted(wanted.values(), reverse=True)[:depth])


def _discounted(gains: Sequence[int]) -> float:
    return sum(gain / math.log2(place + 2) for place, gain in enumerate(gains))


def recall(ranking: Sequence[str], wanted: Mapping[str, int], depth: int) -> float:
    return len(wanted.keys() & set(ranking[:depth])) / len(wanted)


def reciprocal_rank(ranking: Sequence[str], wanted: Mapping[str, int], depth: int) -> float:
    places = (place for place, document in enumerate(ranking[:depth], 1) if document in wanted)
    return 1 / next(places, math.inf)
