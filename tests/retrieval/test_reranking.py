from __future__ import annotations

import asyncio
import random
from collections.abc import Iterator, Sequence
from dataclasses import replace

import pytest
from django.conf import LazySettings

from assistant import engines
from assistant.documents.models import Collection
from assistant.retrieval import asearch, calibration, reranking, search, spaces
from assistant.retrieval.calibration import DEFAULTS, Calibrated
from assistant.users.models import User
from inference.fakes import FakeEmbedder, FakeReranker
from inference.types import EngineError
from tests.factories import make_collection, make_document, make_user

# Both documents hold two words of it; the canteen's is shorter.
UNDECIDED = "canteen opens staff"
DOWN = EngineError("reranker_unavailable", "The reranker does not answer.", retryable=True)


class Scripted(FakeReranker):
    """Is sure of texts with one word; ``seconds`` is how long the asynchronous call takes."""

    def __init__(self, word: str, *, seconds: float = 0.0) -> None:
        super().__init__()
        self.word, self.seconds, self.calls = word, seconds, 0

    def rerank(self, query: str, texts: Sequence[str]) -> list[float]:
        self.calls += 1
        if self.error is not None:
            raise self.error
        return [0.9999 if self.word in text else 0.0001 for text in texts]

    async def arerank(self, query: str, texts: Sequence[str]) -> list[float]:
        await asyncio.sleep(self.seconds)
        return self.rerank(query, texts)


@pytest.fixture(autouse=True)
def _fresh_breaker() -> Iterator[None]:
    reranking.reset()
    yield
    reranking.reset()


def use(monkeypatch: pytest.MonkeyPatch, reranker: FakeReranker) -> None:
    monkeypatch.setattr(engines, "reranker", lambda: reranker)


def library(reader: User) -> Collection:
    collection: Collection = make_collection(readers=[reader])
    make_document(collection, title="Canteen", text="The canteen opens at noon.")
    make_document(collection, title="Leave", text="Sick leave rules of the canteen staff.")
    return collection


@pytest.mark.django_db
def test_its_order_counts_and_its_scores_become_chances(
    fake_embedder: FakeEmbedder, monkeypatch: pytest.MonkeyPatch
) -> None:
    reader = make_user()
    library(reader)
    assert search(UNDECIDED, user=reader, rerank=False).passages[0].title == "Canteen"
    use(monkeypatch, Scripted("Sick"))
    found = search(UNDECIDED, user=reader, explain=True)
    assert [p.title for p in found.passages] == ["Leave", "Canteen"]
    assert found.relevance == found.passages[0].score > 2 * found.passages[1].score
    assert found.trace is not None
    assert [item.score for item in found.trace.reranked] == [0.9999, 0.0001]
    assert "rerank" in found.timings_ms


@pytest.mark.django_db
def test_one_that_is_not_sure_does_not_undo_what_both_arms_say(
    fake_embedder: FakeEmbedder, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Doubtful(Scripted):
        def rerank(self, query: str, texts: Sequence[str]) -> list[float]:
            return [0.6 if self.word in text else 0.4 for text in texts]

    reader = make_user()
    library(reader)
    use(monkeypatch, Doubtful("Sick"))
    found = search("canteen noon", user=reader, explain=True)
    assert [p.title for p in found.passages] == ["Canteen", "Leave"]
    assert found.trace is not None
    # What it said stands beside what was made of it.
    assert [item.rank for item in found.trace.reranked] == [2, 1]


@pytest.mark.django_db
def test_no_more_texts_are_shown_than_it_is_meant_to_see(
    fake_embedder: FakeEmbedder, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Counting(Scripted):
        def rerank(self, query: str, texts: Sequence[str]) -> list[float]:
            seen.append(len(texts))
            return [0.5] * len(texts)

    seen: list[int] = []
    reader = make_user()
    library(reader)
    monkeypatch.setattr("assistant.retrieval.searching.RERANK_DEPTH", 1)
    use(monkeypatch, Counting("Sick"))
    found = search("canteen noon", user=reader)
    assert [p.title for p in found.passages] == ["Canteen", "Leave"]
    assert found.passages[0].score >= found.passages[1].score
    assert seen == [1]


@pytest.mark.django_db
def test_one_that_was_found_useless_is_not_asked(
    fake_embedder: FakeEmbedder, monkeypatch: pytest.MonkeyPatch
) -> None:
    reader = make_user()
    library(reader)
    useless = replace(DEFAULTS.curve("hybrid"), reranked=0.0)
    learnt: Calibrated = replace(DEFAULTS, curves={**DEFAULTS.curves, "reranked": useless})
    reranker = Scripted("Sick")
    use(monkeypatch, reranker)
    calibration.store(learnt, space=spaces.active(), reranker=reranker.model)
    found = search("canteen noon", user=reader, explain=True)
    assert [p.title for p in found.passages] == ["Canteen", "Leave"]
    assert reranker.calls == 0
    assert found.trace is not None
    assert found.trace.notes == [reranking.USELESS]
    calibration.forget()


def test_plain_questions_tell_a_reranker_from_a_guess() -> None:
    class Guessing(FakeReranker):
        def rerank(self, query: str, texts: Sequence[str]) -> list[float]:
            return [draw.random() for _ in texts]

    class Right(FakeReranker):
        def rerank(self, query: str, texts: Sequence[str]) -> list[float]:
            answers = dict(reranking.PROBES)
            return [float(text == answers[query]) for text in texts]

    draw = random.Random(1)
    assert reranking.probed(Right()) == len(reranking.PROBES)
    assert reranking.probed(Guessing()) < reranking.PROBES_TO_PASS


@pytest.mark.django_db
def test_one_that_fails_costs_a_note_and_is_then_left_alone(
    fake_embedder: FakeEmbedder, monkeypatch: pytest.MonkeyPatch
) -> None:
    reader = make_user()
    library(reader)
    reranker = Scripted("Sick")
    reranker.error = DOWN
    use(monkeypatch, reranker)
    for _ in range(5):
        found = search("canteen noon", user=reader, explain=True)
        assert found.passages[0].title == "Canteen"
        assert found.trace is not None
        assert found.trace.notes
    assert reranker.calls == 3


@pytest.mark.django_db(transaction=True)
async def test_a_slow_one_is_not_waited_for(
    fake_embedder: FakeEmbedder, monkeypatch: pytest.MonkeyPatch, settings: LazySettings
) -> None:
    from asgiref.sync import sync_to_async

    reader = await sync_to_async(make_user)()
    await sync_to_async(library)(reader)
    settings.RERANKER_TIMEOUT_SECONDS = 0.05
    use(monkeypatch, Scripted("Sick", seconds=30))
    found = await asearch("canteen noon", user=reader, explain=True)
    assert found.passages[0].title == "Canteen"
    assert found.trace is not None
    assert "longer than" in found.trace.notes[0]
    use(monkeypatch, Scripted("Sick"))
    assert (await asearch(UNDECIDED, user=reader)).passages[0].title == "Leave"


def test_scores_that_do_not_fit_the_texts_are_none() -> None:
    class Short(FakeReranker):
        def rerank(self, query: str, texts: Sequence[str]) -> list[float]:
            return [0.5]

    assert reranking.rerank(Short(), "q", ["a", "b"]).scores is None
