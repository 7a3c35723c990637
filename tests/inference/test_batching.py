from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import Future

import numpy as np
import pytest

from inference.serving.batching import Batcher, ClosedError, Lane, QueueFullError
from inference.types import Vectors


class Gated:
    """Records batches; each waits for a permit, so that a test decides what queues meanwhile."""

    def __init__(self) -> None:
        self.batches: list[list[str]] = []
        self.permits = threading.Semaphore(0)
        self.entered = threading.Semaphore(0)

    def release_memory(self) -> None:
        """Nothing is held."""

    def encode(self, texts: Sequence[str]) -> Vectors:
        self.batches.append(list(texts))
        self.entered.release()
        self.permits.acquire()
        if "poison" in texts:
            raise RuntimeError("bad batch")
        return np.array([[float(len(text)), 1.0] for text in texts], dtype=np.float32)


class Rig:
    def __init__(self) -> None:
        self.model = Gated()
        self.batcher = Batcher(
            lambda: self.model,
            batch_tokens=20,
            quiet_batch_tokens=40,
            batch_texts=4,
            max_queued={"query": 4, "bulk": 10},
        )
        self.batcher.start()
        self.batcher.ready.result(60)

    def submit(self, *texts: str, lane: Lane = "bulk") -> Future[Vectors]:
        return self.batcher.submit(texts, [len(text) for text in texts], lane=lane)

    def hold(self) -> Future[Vectors]:
        """Occupy the model; what is submitted next queues."""
        future = self.submit("first")
        assert self.model.entered.acquire(timeout=60)
        return future

    def release(self) -> None:
        for _ in range(100):
            self.model.permits.release()


@pytest.fixture
def rig() -> Iterator[Rig]:
    made = Rig()
    yield made
    made.release()
    made.batcher.close()


def test_each_request_gets_its_own_vectors_in_order(rig: Rig) -> None:
    rig.hold()
    one = rig.submit("aaaa", "a", "aaaaaaaa")
    two = rig.submit("bb")
    rig.release()
    assert one.result(60)[:, 0].tolist() == [4, 1, 8]
    assert two.result(60)[:, 0].tolist() == [2]


def test_queries_go_before_bulk_that_came_earlier(rig: Rig) -> None:
    rig.hold()
    bulk = rig.submit(*["bulk-text"] * 6)
    query = rig.submit("query", lane="query")
    rig.release()
    query.result(60)
    bulk.result(60)
    assert rig.model.batches[1] == ["query"]


def test_batches_are_sorted_and_bounded_by_padded_tokens(rig: Rig) -> None:
    rig.hold()
    rig.submit("q", lane="query")
    future = rig.submit("a", "b" * 10, "c", "d" * 9, "e" * 30, "f", "g", "h")
    rig.release()
    future.result(60)
    assert rig.model.batches[2:] == [
        ["e" * 30],
        ["b" * 10, "d" * 9],
        ["a", "c", "f", "g"],
        ["h"],
    ]


def test_batches_grow_while_nobody_asks(rig: Rig) -> None:
    rig.hold()
    future = rig.submit(*["b" * 10] * 4)
    rig.release()
    future.result(60)
    assert [len(batch) for batch in rig.model.batches] == [1, 4]


def test_texts_of_many_requests_share_a_batch(rig: Rig) -> None:
    rig.hold()
    futures = [rig.submit(name) for name in "abc"]
    rig.release()
    assert [future.result(60).shape for future in futures] == [(1, 2)] * 3
    assert rig.model.batches[1] == ["a", "b", "c"]


def test_cancelled_work_is_dropped(rig: Rig) -> None:
    rig.hold()
    left = rig.submit("gone", "gone too")
    kept = rig.submit("kept")
    assert left.cancel()
    rig.release()
    kept.result(60)
    assert rig.model.batches == [["first"], ["kept"]]
    assert rig.batcher.stats.dropped == 2


def test_a_full_lane_refuses_and_the_other_does_not(rig: Rig) -> None:
    rig.hold()
    rig.submit(*["x"] * 10)
    with pytest.raises(QueueFullError) as caught:
        rig.submit("y")
    assert caught.value.retry_after >= 1
    rig.submit("z", lane="query")


def test_a_request_larger_than_an_empty_lane_is_served(rig: Rig) -> None:
    future = rig.submit(*["x"] * 12)
    rig.release()
    assert future.result(60).shape == (12, 2)


def test_a_failing_batch_fails_its_requests_only(rig: Rig) -> None:
    rig.release()
    bad = rig.submit("poison")
    with pytest.raises(RuntimeError, match="bad batch"):
        bad.result(60)
    assert rig.submit("good").result(60).shape == (1, 2)


def test_closing_fails_what_waits_and_refuses_more(rig: Rig) -> None:
    running = rig.hold()
    waiting = rig.submit("waiting")
    closing = threading.Thread(target=rig.batcher.close)
    closing.start()
    while not rig.batcher._closed:
        pass
    rig.release()
    closing.join(5)
    assert running.result(60).shape == (1, 2)
    with pytest.raises(ClosedError):
        waiting.result(60)
    with pytest.raises(ClosedError):
        rig.submit("late")


def test_a_model_that_cannot_load_is_reported() -> None:
    def load() -> Gated:
        raise OSError("no weights")

    batcher = Batcher(load)
    early = batcher.submit(["a"], [1], lane="query")
    batcher.start()
    with pytest.raises(OSError, match="no weights"):
        batcher.ready.result(60)
    with pytest.raises(ClosedError):
        early.result(60)
