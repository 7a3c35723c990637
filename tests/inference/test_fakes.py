from __future__ import annotations

import time

import numpy as np
import pytest

from inference.fakes import FakeEmbedder, FakeLLM, FakeReranker, say
from inference.types import LLM, Embedder, EngineError, Finished, Reranker
from tests.inference.wire import collect, failure, request, texts


def test_fakes_fit_the_protocols() -> None:
    engines: tuple[LLM, Embedder, Reranker] = (FakeLLM(), FakeEmbedder(), FakeReranker())
    assert [engine is not None for engine in engines] == [True] * 3


async def test_a_script_is_played() -> None:
    broken = EngineError("llm_lost", "Lost.", retryable=True)
    fake = FakeLLM(scripts=[say("The answer [1]."), [*say("Half", finish=False), 0.05, broken]])
    events = await collect(fake.stream(request()))
    assert texts(events) == "The answer [1]."
    assert isinstance(events[-1], Finished)
    started = time.monotonic()
    assert (await failure(fake.stream(request()))).code == "llm_lost"
    assert time.monotonic() - started >= 0.05
    assert (len(fake.requests), fake.closed) == (2, 0)
    stream = fake.stream(request())
    await anext(stream)
    await stream.aclose()
    assert fake.closed == 1


def test_vectors_are_units_and_words_matter() -> None:
    vectors = FakeEmbedder().embed(["red apple", "a red apple", "pump"], kind="passage")
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1)
    assert vectors[0] @ vectors[1] > 0.7 > vectors[0] @ vectors[2]


def test_the_reranker_prefers_shared_words() -> None:
    fake = FakeReranker()
    assert fake.rerank("red apple", ["pump", "red apple", "red"]) == [0.0, 1.0, 0.5]
    fake.error = EngineError("reranker_unavailable", "Down.", retryable=True)
    with pytest.raises(EngineError):
        fake.rerank("q", ["a"])
