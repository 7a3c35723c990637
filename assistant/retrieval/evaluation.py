"""Scoring a ranking of documents against judgements, as trec_eval does."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, quantiles
from typing import Any

Judgements = dict[str, dict[str, int]]


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
