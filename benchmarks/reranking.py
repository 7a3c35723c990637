"""The reranker's path with a cross-encoder that is trained here, and with one that knows.

    SHARED_DATA=... python -m benchmarks.reranking [--sets ...] [--train N] [--questions N]
        [--kept DIR] [--model DIR]

No reranker's weights come as a package, so a small one is made of MiniLM's sentence encoder: a
score is put on its first token and all of it trained for one pass over ``--train`` questions of
each set, against the answer and three passages that ``search()`` ranks highly and that do not
answer. It is saved, served by the house's own server (``/v1/rerank``) and asked by ``search()``,
like any reranker. The questions that it is tested with are others; the passages are the same, so
this shows that the path carries and what a weak model does to good rankings, not how good
cross-encoders are. The second reranker is a script that has read the judgements: no order of the
candidates is better than its.

Prints nDCG@10 of ``search()`` without a reranker, with the trained one and with the script, and the
milliseconds that the reranker takes for a search. Ends with 1 when the script does not bring what
it must (fewer than all judged candidates in front), or the trained one costs more than 0.01.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, median
from typing import Any

import httpx
import numpy as np

from assistant.embedded.commands import embedding_server
from assistant.embedded.ports import free_port
from assistant.embedded.processes import Program, spawn
from benchmarks._database import running_database
from benchmarks._site import ROOT
from benchmarks.ranking import KeptEmbedder, fill, read_set
from inference.embedding_models import resolve_model

SETS = ("tatqa_dev", "xquad-en")
ALLOWED_LOSS = 0.01
NEGATIVES = 3
_BATCH = 4
_TOKENS = 192


@dataclass(frozen=True, slots=True)
class Asked:
    """A question, with the grades of the documents that answer it."""

    text: str
    grades: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Filled:
    """A set on the site: its reader, its collection and its questions for each purpose."""

    name: str
    reader: Any
    collection: Any
    train: list[Asked]
    test: list[Asked]


class Knowing:
    """The Reranker Protocol by a script: what is in ``answers`` answers."""

    model = "knows-the-judgements"

    def __init__(self) -> None:
        self.answers: set[str] = set()

    def rerank(self, query: str, texts: Sequence[str]) -> list[float]:
        return [float(text in self.answers) for text in texts]

    async def arerank(self, query: str, texts: Sequence[str]) -> list[float]:
        return self.rerank(query, texts)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--sets", default=",".join(SETS))
    parser.add_argument("--train", type=int, default=300, help="questions of each set")
    parser.add_argument("--questions", type=int, default=150, help="tested ones of each set")
    parser.add_argument("--kept", type=Path, help="folder for vectors; default: made and removed")
    parser.add_argument("--model", type=Path, help="where the trained model is kept, or lies")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="knowledge-reranking-") as place:
        folder = Path(place)
        folder.chmod(0o711)
        with running_database(folder / "site"):
            from assistant import engines

            embedder = KeptEmbedder(resolve_model().spec)
            engines.embedder = lambda: embedder  # type: ignore[assignment]
            filled = [
                _filled(name, given, given.kept or folder / "kept", embedder)
                for name in given.sets.split(",")
            ]
            model = given.model or folder / "model"
            if not (model / "config.json").is_file():
                examples = [each for one in filled for each in training_examples(one)]
                train(examples, model)
            with served(model, folder / "reranker.log") as base_url:
                missed = [miss for one in filled for miss in tested(one, model, base_url)]
    for miss in missed:
        print(f"missed: {miss}")
    sys.exit(1 if missed else 0)


def _filled(name: str, given: argparse.Namespace, kept: Path, embedder: KeptEmbedder) -> Filled:
    judged = read_set(name, kept=kept, embedder=embedder)
    reader, collection = fill(judged)
    keys = np.random.default_rng(5).permutation(sorted(judged.questions))
    asked = [Asked(judged.questions[key], judged.grades[key]) for key in keys]
    test = asked[: given.questions]
    return Filled(name, reader, collection, asked[len(test) : len(test) + given.train], test)


def training_examples(filled: Filled) -> Iterator[tuple[str, list[str]]]:
    """Question, a text that answers it and NEGATIVES that do not, as ``search()`` finds them."""
    from assistant.retrieval import search

    for asked in filled.train:
        found = search(
            asked.text,
            user=filled.reader,
            collections=[filled.collection.pk],
            limit=20,
            rerank=False,
        ).passages
        answers = [p.text for p in found if p.external_id in asked.grades]
        others = [p.text for p in found if p.external_id not in asked.grades]
        if answers and len(others) >= NEGATIVES:
            yield asked.text, [answers[0], *others[:NEGATIVES]]


def train(examples: Sequence[tuple[str, list[str]]], folder: Path) -> None:
    """One pass: among the texts of a question, the first shall win (softmax cross-entropy)."""
    import torch
    from sentence_transformers import CrossEncoder

    torch.manual_seed(1)
    encoder = CrossEncoder(
        str(resolve_model().path), num_labels=1, max_length=_TOKENS, local_files_only=True
    )
    network, tokenizer = encoder.model, encoder.tokenizer
    network.train()
    steps = -(-len(examples) // _BATCH)
    optimizer = torch.optim.AdamW(network.parameters(), lr=5e-5, weight_decay=0.01)
    rising = max(1, steps // 10)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda at: min((at + 1) / rising, max(0.0, (steps - at) / (steps - rising + 1)))
    )
    order = np.random.default_rng(6).permutation(len(examples))
    started, losses = time.monotonic(), []
    for step in range(steps):
        some = [examples[at] for at in order[step * _BATCH : (step + 1) * _BATCH]]
        pairs = [(query, text) for query, texts in some for text in texts]
        features = tokenizer(
            *map(list, zip(*pairs, strict=True)),
            truncation=True, max_length=_TOKENS, padding=True, return_tensors="pt",
        )  # fmt: skip
        scores = network(**features).logits.view(len(some), -1)
        loss = torch.nn.functional.cross_entropy(scores, torch.zeros(len(some), dtype=torch.long))
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        schedule.step()
        losses.append(loss.item())
        if (step + 1) % 25 == 0 or step + 1 == steps:
            print(f"  step {step + 1} of {steps}: loss {fmean(losses[-25:]):.3f}", flush=True)
    network.eval()
    encoder.save_pretrained(str(folder))
    print(f"trained on {len(examples)} questions in {time.monotonic() - started:.0f} s", flush=True)


@contextmanager
def served(model: Path, log: Path) -> Iterator[str]:
    """The house's server with the model; yields the base URL of its API."""
    port = free_port()
    command = embedding_server(sys.executable, host="127.0.0.1", port=port, reranker=str(model))
    server = spawn(Program("embedding server", tuple(command), dict(os.environ), ROOT, log))
    try:
        base_url = f"http://127.0.0.1:{port}/v1"
        body = {"model": str(model), "query": "ready?", "documents": ["yes"]}
        deadline = time.monotonic() + 120
        while True:
            try:
                if httpx.post(f"{base_url}/rerank", json=body, timeout=60).is_success:
                    break
            except httpx.HTTPError:
                pass
            if not server.is_alive() or time.monotonic() > deadline:
                raise SystemExit(log.read_text(encoding="utf-8")[-2000:])
            time.sleep(0.2)
        yield base_url
    finally:
        server.send(signal.SIGTERM)
        server.process.wait(timeout=60)


def tested(filled: Filled, model: Path, base_url: str) -> Iterator[str]:
    """Prints the line of a set; yields what was missed."""
    from django.conf import settings

    from assistant import engines
    from assistant.documents.models import Document
    from assistant.retrieval.models import Chunk
    from inference.reranker import HTTPReranker

    settings.RERANKER_TIMEOUT_SECONDS = 60
    trained = HTTPReranker(base_url, str(model), timeout=60)
    knowing = Knowing()
    names = {
        row.pk: row.external_id for row in Document.objects.filter(collection=filled.collection)
    }
    texts: dict[str, set[str]] = {}
    for chunk in Chunk.objects.filter(collection_id=filled.collection.pk):
        texts.setdefault(names[chunk.document_id] or "", set()).add(chunk.text)
    found: dict[str, list[float]] = {}
    took: list[float] = []
    behind = 0
    for asked in filled.test:
        knowing.answers = set().union(*(texts.get(name, set()) for name in asked.grades))
        for way, reranker in (("without", None), ("trained", trained), ("knowing", knowing)):
            engines.reranker = lambda reranker=reranker: reranker  # type: ignore[assignment]
            ranking, timings = _ranking(asked, filled, rerank=reranker is not None)
            found.setdefault(way, []).append(_ndcg(ranking, asked))
            if way == "trained":
                took.append(timings["rerank"])
            if way == "knowing" and set(ranking) & set(asked.grades):
                behind += ranking[0] not in asked.grades
    figures = {way: fmean(values) for way, values in found.items()}
    print(
        f"{filled.name:12} nDCG@10 without {figures['without']:.4f}, trained"
        f" {figures['trained']:.4f}, knowing {figures['knowing']:.4f}; the trained one takes"
        f" {median(took):.0f} ms of a search",
        flush=True,
    )
    if behind or figures["knowing"] < figures["without"]:
        yield f"{filled.name}: {behind} questions whose judged candidate was not put first"
    if figures["trained"] < figures["without"] - ALLOWED_LOSS:
        yield f"{filled.name}: the trained reranker costs more than {ALLOWED_LOSS}"


def _ranking(asked: Asked, filled: Filled, *, rerank: bool) -> tuple[list[str], dict[str, float]]:
    from assistant.retrieval import search

    result = search(
        asked.text,
        user=filled.reader,
        collections=[filled.collection.pk],
        limit=40,
        rerank=rerank,
    )
    return list(dict.fromkeys(p.external_id or "" for p in result.passages)), result.timings_ms


def _ndcg(ranking: Sequence[str], asked: Asked) -> float:
    from assistant.retrieval.evaluation import ndcg

    return ndcg(ranking, asked.grades, 10)


if __name__ == "__main__":
    main()
