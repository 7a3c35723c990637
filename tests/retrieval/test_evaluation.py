from __future__ import annotations

import json
import math
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from django.core.management import CommandError, call_command

from assistant.documents.models import Document
from assistant.retrieval.evaluation import (
    compare,
    ndcg,
    read_judgements,
    recall,
    reciprocal_rank,
    score,
)
from assistant.retrieval.evaluation_history import runs
from tests.factories import make_user


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


def test_the_same_scores_differ_by_nothing() -> None:
    scores = {f"q{i}": i / 10 for i in range(10)}
    same = compare(scores, scores, seed=1)
    assert (same.mean, same.low, same.high, same.p, same.losses) == (0, 0, 0, 1, ())


def test_a_difference_has_an_interval_a_chance_and_its_worst_queries() -> None:
    first = {f"q{i}": 0.5 for i in range(40)} | {"only here": 1.0}
    second = {f"q{i}": 0.6 for i in range(40)} | {"q3": 0.1, "q7": 0.4}
    found = compare(first, second, seed=1, resamples=2000, losses=5)
    assert found == compare(first, second, seed=1, resamples=2000, losses=5)
    assert found.queries == 40
    assert found.mean == pytest.approx((38 * 0.1 - 0.4 - 0.1) / 40)
    assert 0 < found.low < found.mean < found.high
    assert found.p < 0.01
    assert [loss.query for loss in found.losses] == ["q3", "q7"]


def test_a_difference_by_chance_is_not_called_one() -> None:
    first = {f"q{i}": 0.5 for i in range(40)}
    second = {f"q{i}": 0.6 if i % 2 else 0.4 for i in range(40)}
    found = compare(first, second, seed=1, resamples=2000)
    assert found.low < 0 < found.high
    assert found.p > 0.5


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    folder = tmp_path / "tiny"
    folder.mkdir()
    texts = {"a": "The canteen opens at noon.", "b": "Parking costs nothing."}
    lines = {
        "corpus.jsonl": [{"_id": key, "title": "", "text": text} for key, text in texts.items()],
        "queries.jsonl": [{"_id": "1", "text": "canteen noon"}, {"_id": "2", "text": "parking"}],
    }
    for name, rows in lines.items():
        (folder / name).write_text("\n".join(map(json.dumps, rows)))
    (folder / "qrels.tsv").write_text("1\ta\t1\n2\tb\t1\n")
    return folder


@pytest.mark.django_db(transaction=True)
@pytest.mark.usefixtures("fake_embedder")
def test_the_command_indexes_compares_and_remembers(
    dataset: Path, tmp_path: Path, settings: Any
) -> None:
    settings.DATA_DIR = tmp_path
    make_user(is_superuser=True)
    out = StringIO()
    call_command("evaluate", dataset, "--compare", "hybrid,keyword,vector", "--json", stdout=out)
    printed = json.loads(out.getvalue())
    assert printed["configurations"]["keyword"]["ndcg_at_10"] == 1
    assert [item["to"] for item in printed["differences"]] == ["keyword", "vector"]
    assert {run.configuration for run in runs()} == {"hybrid", "keyword", "vector"}
    first = next(run for run in runs() if run.configuration == "hybrid")
    out = StringIO()
    call_command("evaluate", dataset, "--against", first.name, stdout=out)
    assert f"minus {first.name}: +0.0000" in out.getvalue()
    out = StringIO()
    call_command("evaluate", "--history", stdout=out)
    assert first.name in out.getvalue()
    assert first.fingerprint["model"].split("@")[0] in out.getvalue()
    assert Document.objects.count() == 2


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "Name a BEIR-layout folder"),
        (["--compare", "hybrid"], "two configurations"),
        (["--compare", "hybrid,magic"], "no 'magic'"),
        (["--compare", "hybrid,hybrid+rerank"], "No reranker"),
        (["--against", "yesterday"], "no run 'yesterday'"),
    ],
)
def test_what_cannot_be_measured_is_said(dataset: Path, arguments: list[str], words: str) -> None:
    folder = [dataset] if arguments else []
    with pytest.raises(CommandError, match=words):
        call_command("evaluate", *folder, *arguments)
