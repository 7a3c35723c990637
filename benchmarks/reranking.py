"""What rerankers do to ``search()``: one that is trained here, one that knows, one that guesses.

    SHARED_DATA=... python -m benchmarks.reranking [--sets ...] [--train N] [--questions N]
        [--judged N] [--kept DIR] [--model DIR]

No reranker's weights come as a package, so a small cross-encoder is made of MiniLM's sentence
encoder (``_cross_encoder``) and trained for one pass over ``--train`` questions of each set,
against the answer and passages that ``search()`` ranks highly and that do not answer. It is saved,
served by the house's own server (``/v1/rerank``) and asked by ``search()``, like any reranker. The
second reranker is a script that has read the judgements: no order of the candidates is better. The
third draws its scores by lot.

Half of the documents of each set, by lot, are for training: questions that they answer, and they
alone as wrong answers. Tests and calibration ask questions that only the other half answers, over
all documents. So this shows what the path carries and what a small model adds on texts of the same
kind that it has not seen, not how good cross-encoders are.

Prints nDCG@10 of ``search()`` without a reranker, and for each: in the reranker's order alone, as
it counts before anything is learnt of it, and after learning as ``manage.py calibrate`` does, from
``--judged`` further questions; and the milliseconds that it takes for a search. Ends with 1 when
the script does not bring what it must, the trained one costs more than 0.01, or the guessing one
costs more than 0.05 before and 0.01 after calibration.
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
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean, median
from typing import Any
from zlib import crc32

import httpx
import numpy as np

from assistant.embedded.ports import free_port
from assistant.embedded.processes import Program, spawn
from benchmarks._database import running_database
from benchmarks._site import ROOT
from benchmarks.ranking import KeptEmbedder, fill, read_set
from inference.embedding_models import resolve_model

SETS = ("tatqa_dev", "xquad-en")
ALLOWED_LOSS = 0.01
ALLOWED_LOSS_OF_GUESSES = 0.05
NEGATIVES = 4
# Wrong answers are drawn from so many of the best: the very best again and again teach less.
_DRAWN_FROM = 12


@dataclass(frozen=True, slots=True)
class Asked:
    """A question, with the grades of the documents that answer it."""

    text: str
    grades: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Filled:
    """A set on the site: its reader, its collection and its questions for each purpose.

    ``names`` are the documents' ids by text, ``training`` those that training may see.
    """

    name: str
    reader: Any
    collection: Any
    names: dict[str, str]
    training: frozenset[str]
    train: list[Asked]
    judged: list[Asked]
    test: list[Asked]


@dataclass
class Scripted:
    """The Reranker Protocol by a script; ``asked`` are the scores of the last question by text."""

    model: str
    asked: dict[str, float] = field(default_factory=dict)

    def score(self, query: str, texts: Sequence[str]) -> list[float]:
        raise NotImplementedError

    def rerank(self, query: str, texts: Sequence[str]) -> list[float]:
        scores = self.score(query, texts)
        self.asked = dict(zip(texts, scores, strict=True))
        return scores

    async def arerank(self, query: str, texts: Sequence[str]) -> list[float]:
        return self.rerank(query, texts)


@dataclass
class Knowing(Scripted):
    """What is in ``answers`` answers."""

    answers: set[str] = field(default_factory=set)

    def score(self, query: str, texts: Sequence[str]) -> list[float]:
        return [float(text in self.answers) for text in texts]


class Guessing(Scripted):
    """The same number for the same pair, and each as likely as the next."""

    def score(self, query: str, texts: Sequence[str]) -> list[float]:
        return [crc32(f"{query} | {text}".encode()) / 2**32 for text in texts]


@dataclass
class Trained(Scripted):
    """What the server answers; each pair is asked once, and ``took`` are the milliseconds."""

    client: Any = None
    known: dict[tuple[str, str], float] = field(default_factory=dict)
    took: list[float] = field(default_factory=list)

    def score(self, query: str, texts: Sequence[str]) -> list[float]:
        if not all((query, text) in self.known for text in texts):
            started = time.perf_counter()
            scores = self.client.rerank(query, texts)
            self.took.append((time.perf_counter() - started) * 1000)
            self.known.update(zip(((query, text) for text in texts), scores, strict=True))
        return [self.known[query, text] for text in texts]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--sets", default=",".join(SETS))
    parser.add_argument("--train", type=int, default=400, help="questions of each set")
    parser.add_argument("--questions", type=int, default=150, help="tested ones of each set")
    parser.add_argument("--judged", type=int, default=60, help="those that calibrate, of each set")
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
                from benchmarks._cross_encoder import train

                train([each for one in filled for each in training_examples(one)], model)
            with served(model, folder / "reranker.log") as base_url:
                missed = list(tested(filled, model, base_url))
    for miss in missed:
        print(f"missed: {miss}")
    sys.exit(1 if missed else 0)


def _filled(name: str, given: argparse.Namespace, kept: Path, embedder: KeptEmbedder) -> Filled:
    from assistant.retrieval.models import Chunk

    judged = read_set(name, kept=kept, embedder=embedder)
    reader, collection = fill(judged)
    lots = np.random.default_rng(7).permutation(sorted(judged.drafts))
    training = frozenset(lots[::2].tolist())
    keys = np.random.default_rng(5).permutation(sorted(judged.questions))
    asked = [Asked(judged.questions[key], judged.grades[key]) for key in keys]
    unseen = [each for each in asked if not training & set(each.grades)]
    texts = Chunk.objects.filter(collection_id=collection.pk)
    return Filled(
        name,
        reader,
        collection,
        names={
            text: name or "" for text, name in texts.values_list("text", "document__external_id")
        },
        training=training,
        train=[each for each in asked if training >= set(each.grades)][: given.train],
        judged=unseen[given.questions :][: given.judged],
        test=unseen[: given.questions],
    )


def training_examples(filled: Filled) -> Iterator[tuple[str, list[str]]]:
    """Question, a text that answers it and NEGATIVES that do not, as ``search()`` finds them."""
    from assistant.retrieval import search

    chance = np.random.default_rng(8)
    for asked in filled.train:
        found = search(
            asked.text,
            user=filled.reader,
            collections=[filled.collection.pk],
            limit=40,
            rerank=False,
        ).passages
        seen = [p for p in found if p.external_id in filled.training]
        answers = [p.text for p in seen if p.external_id in asked.grades]
        others = [p.text for p in seen if p.external_id not in asked.grades][:_DRAWN_FROM]
        if answers and len(others) >= NEGATIVES:
            drawn = chance.choice(len(others), NEGATIVES, replace=False)
            yield asked.text, [answers[0], *(others[at] for at in drawn)]


@contextmanager
def served(model: Path, log: Path) -> Iterator[str]:
    """The house's server with the model; yields the base URL of its API."""
    port = free_port()
    command = [
        *(sys.executable, "-m", "benchmarks._cross_encoder", "--host", "127.0.0.1"),
        *("--port", str(port), "--reranker", str(model)),
    ]
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


def tested(sets: Sequence[Filled], model: Path, base_url: str) -> Iterator[str]:
    """Prints a table for each set; yields what was missed."""
    from assistant.retrieval import calibration, spaces
    from inference.reranker import HTTPReranker

    rerankers = (
        Trained("trained", client=HTTPReranker(base_url, str(model), timeout=60)),
        Knowing("knowing"),
        Guessing("guessing"),
    )
    calibration.clear(space=spaces.active())
    before = {one.name: _measured(one, rerankers) for one in sets}
    print("learnt from judged questions, of which the best passage answers:")
    for reranker in rerankers:
        learnt, helped = _calibrated(sets, reranker)
        print(
            f"  {reranker.model}: {helped.without:.3f} without, {helped.reranked:.3f} with; its log"
            f" odds count {learnt.curve('reranked').reranked:.3f}",
            flush=True,
        )
        calibration.store(learnt, space=spaces.active(), reranker=reranker.model)
    after = {one.name: _measured(one, rerankers) for one in sets}
    for one in sets:
        plain = before[one.name]["", "search"]
        print(f"{one.name}: {len(one.test)} questions, nDCG@10 without a reranker {plain:.4f}")
        print(f"  {'':10}{'alone':>10}{'default':>10}{'calibrated':>12}")
        for reranker in rerankers:
            name = reranker.model
            alone, first = before[one.name][name, "alone"], before[one.name][name, "search"]
            last = after[one.name][name, "search"]
            print(f"  {name:10}{alone:10.4f}{first:10.4f}{last:12.4f}", flush=True)
            if name == "knowing" and min(first, last) < alone - ALLOWED_LOSS:
                yield f"{one.name}: what the script knows does not come first"
            allowed = ALLOWED_LOSS_OF_GUESSES if name == "guessing" else ALLOWED_LOSS
            if first < plain - allowed or last < plain - ALLOWED_LOSS:
                yield f"{one.name}: the {name} reranker costs more than it may"
    print(f"the trained one takes {median(rerankers[0].took):.0f} ms of a search")


def _measured(filled: Filled, rerankers: Sequence[Scripted]) -> dict[tuple[str, str], float]:
    """Mean nDCG@10 by reranker ("" is none), of the search and of the reranker's order alone."""
    from assistant import engines

    found: dict[tuple[str, str], list[float]] = {}
    for asked in filled.test:
        found.setdefault(("", "search"), []).append(_ndcg(_ranking(asked, filled), asked))
        for reranker in rerankers:
            _tell(reranker, filled, asked)
            reranker.asked = {}
            engines.reranker = lambda reranker=reranker: reranker  # type: ignore[assignment]
            ranking = _ranking(asked, filled, rerank=True)
            found.setdefault((reranker.model, "search"), []).append(_ndcg(ranking, asked))
            order = sorted(reranker.asked, key=lambda text: -reranker.asked[text])
            alone = list(dict.fromkeys(filled.names[text] for text in order))
            found.setdefault((reranker.model, "alone"), []).append(_ndcg(alone, asked))
    return {key: fmean(values) for key, values in found.items()}


def _calibrated(sets: Sequence[Filled], reranker: Scripted) -> tuple[Any, Any]:
    """What ``manage.py calibrate`` would learn from the questions that are for it."""
    from assistant.retrieval import learning, searching

    examples: list[Any] = []
    for filled in sets:
        for asked in filled.judged:
            _tell(reranker, filled, asked)
            arms, documents = searching.arms(
                asked.text, user=filled.reader, collections=[filled.collection.pk]
            )
            examples += learning.examples(
                filled.name,
                arms,
                documents=documents,
                relevant=set(asked.grades),
                reranked=learning.log_odds_of(reranker, asked.text, arms),
            )
    return learning.learn_with_reranker(examples, plain=learning.learn(examples))


def _tell(reranker: Scripted, filled: Filled, asked: Asked) -> None:
    if isinstance(reranker, Knowing):
        reranker.answers = {text for text, name in filled.names.items() if name in asked.grades}


def _ranking(asked: Asked, filled: Filled, *, rerank: bool = False) -> list[str]:
    from assistant.retrieval import search

    found = search(
        asked.text,
        user=filled.reader,
        collections=[filled.collection.pk],
        limit=40,
        rerank=rerank,
    ).passages
    return list(dict.fromkeys(p.external_id or "" for p in found))


def _ndcg(ranking: Sequence[str], asked: Asked) -> float:
    from assistant.retrieval.evaluation import ndcg

    return ndcg(ranking, asked.grades, 10)


if __name__ == "__main__":
    main()
