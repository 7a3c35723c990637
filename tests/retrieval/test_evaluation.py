from __future__ import annotations

import math
from pathlib import Path

import pytest

from assistant.retrieval.evaluation import ndcg, read_judgements, recall, reciprocal_rank, score


def test_ndcg_by_hand() -> None:
    wanted = {"a": 2, "b": 1}
    ideal = 2 + 1 / math.log2(3)
    assert ndcg(["a", "b"], wanted, 10) == pytest.approx(1)
    assert ndcg(["x", "a"], wanted, 10) == pytest.approx(2 / math.log2(3) / ideal)
    assert ndcg(["x"] * 10 + ["a"], wanted, 10) == 0


def test_recall_and_reciprocal_rank() -> None:
    wanted = {"a": 1, "b": 1}
    assert recall(["x", "a"], wanted, 10) == 0.5
    assert recall(["x", "a"], wanted, 1) == 0
    assert reciprocal_rank(["x", "a"], wanted, 10) == 0.5
    assert reciprocal_rank(["x"], wanted, 10) == 0


def test_judgements_with_and_without_heading(tmp_path: Path) -> None:
    file = tmp_path / "qrels.tsv"
    file.write_text("query-id\tcorpus-id\tscore\nq1\td1\t1\nq1\td2\t0\nq2\td3\t2\n")
    assert read_judgements(file) == {"q1": {"d1": 1}, "q2": {"d3": 2}}


def test_a_mean_needs_something_judged() -> None:
    with pytest.raises(ValueError, match="No query"):
        score({}, {"q": {"d": 1}}, latencies_ms=[1.0])
    figures = score({"q": ["d"]}, {"q": {"d": 1}}, latencies_ms=[5.0])
    assert (figures.ndcg_at_10, figures.mrr_at_10, figures.latency_p50_ms) == (1, 1, 5)
