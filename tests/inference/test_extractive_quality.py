"""How often the extractive engine quotes the answer, and how often it knows that it cannot.

Weights and threshold were chosen with MiniLM on 300 questions of XQuAD (en);
``benchmarks/abstention.py`` prints the whole curve, on these and on all others.
XQuAD's questions share words with their passages; questions of real readers will do worse.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from inference.embedding_models import resolve_model
from inference.extractive import ExtractiveLLM
from inference.fakes import FakeEmbedder
from inference.serving.encoder import load_encoder
from inference.types import (
    EmbeddingSpec,
    EmbedKind,
    EngineHealth,
    SourceText,
    Vectors,
)
from tests.inference.wire import SHARED

FOLDER = SHARED / "data" / "retrieval" / "xquad-en"
# A spot check of the above; the wrong passages are found by shared words here, which is quicker.
QUESTIONS = 48


class InProcess:
    """The real model without a server, each text once."""

    def __init__(self) -> None:
        self._model = resolve_model()
        self._encoder = load_encoder(self._model)
        self._known: dict[str, Vectors] = {}

    @property
    def spec(self) -> EmbeddingSpec:
        return self._model.spec

    def embed(self, texts: Sequence[str], *, kind: EmbedKind) -> Vectors:
        new = sorted({text for text in texts if text not in self._known}, key=len)
        for start in range(0, len(new), 16):
            batch = new[start : start + 16]
            self._known.update(zip(batch, self._encoder.encode(batch), strict=True))
        return np.stack([self._known[text] for text in texts])

    async def aembed(self, texts: Sequence[str], *, kind: EmbedKind) -> Vectors:
        return self.embed(texts, kind=kind)

    def check(self) -> EngineHealth:
        return EngineHealth(ok=True, detail="")


def rows(name: str) -> list[dict[str, Any]]:
    path = FOLDER / name
    if not path.is_file():
        pytest.skip(f"{path} is absent: set SHARED_DATA")
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def sources(documents: Sequence[dict[str, Any]]) -> list[SourceText]:
    return [SourceText(n, d["title"], d["text"]) for n, d in enumerate(documents, 1)]


@pytest.mark.embedding
async def test_answers_are_quoted_and_absence_is_noticed() -> None:
    corpus = {row["_id"]: row for row in rows("corpus.jsonl")}
    answers = {row["query_id"]: row for row in rows("answers.jsonl")}
    asked = rows("queries.jsonl")[:: 1190 // QUESTIONS][:QUESTIONS]
    embedder = InProcess()
    engine = ExtractiveLLM(embedder)
    documents = list(corpus.values())
    by_words = FakeEmbedder()
    index = by_words.embed([f"{d['title']}\n{d['text']}" for d in documents], kind="passage")
    quoted = silent = 0
    for query in asked:
        gold = corpus[answers[query["_id"]]["evidence"][0]]
        wanted = [answer.lower() for answer in answers[query["_id"]]["answers"]]
        quotes = await engine.quotes(query["text"], sources([gold]))
        assert all(quote.text in gold["text"] for quote in quotes)
        quoted += any(answer in quote.text.lower() for quote in quotes for answer in wanted)
        order = np.argsort(-(index @ by_words.embed([query["text"]], kind="query")[0]))
        others = [documents[at] for at in order if documents[at]["title"] != gold["title"]][:5]
        silent += not await engine.quotes(query["text"], sources(others))
    assert quoted / len(asked) >= 0.85
    assert silent / len(asked) >= 0.85
