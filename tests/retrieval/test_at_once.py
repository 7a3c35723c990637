"""Many searches at the same time, on one event loop."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest
from asgiref.sync import sync_to_async

from assistant.per_loop import PerLoop
from assistant.retrieval import asearch, search, searching, similarity, spaces, together
from assistant.retrieval.models import EmbeddingSpace
from assistant.users.models import User
from inference.fakes import FakeEmbedder
from inference.types import EngineError
from tests.factories import make_collection, make_document, make_user

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def reader(fake_embedder: FakeEmbedder) -> User:
    user: User = make_user()
    make_document(make_collection(readers=[user]), title="Leave", text="Thirty days of leave.")
    return user


async def test_one_of_all_who_ask_first_measures_the_floor(
    reader: User, fake_embedder: FakeEmbedder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(similarity, "_floors", {})
    embedded: list[int] = []

    async def slowly(texts: Any, *, kind: Any) -> Any:
        embedded.append(len(texts))
        await asyncio.sleep(0.02)
        return fake_embedder.embed(texts, kind=kind)

    monkeypatch.setattr(fake_embedder, "aembed", slowly)
    found = await asyncio.gather(*(asearch(f"leave {i}", user=reader) for i in range(10)))
    assert all(result.passages for result in found)
    assert sum(embedded) == 10 + len(similarity.PROBES)
    assert embedded.count(len(similarity.PROBES)) == 1


async def test_only_so_many_are_in_the_database(
    reader: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(together, "line", PerLoop(lambda: together.Line(at_once=2)))
    retrieve, inside, most = searching._retrieved, [0], [0]

    def counted(*args: Any, **options: Any) -> Any:
        inside[0] += 1
        most[0] = max(most[0], inside[0])
        deadline = time.monotonic() + 60
        while most[0] < 2 and time.monotonic() < deadline:  # for the second, however late
            time.sleep(0.01)
        time.sleep(0.02)
        try:
            return retrieve(*args, **options)
        finally:
            inside[0] -= 1

    monkeypatch.setattr(searching, "_retrieved", counted)
    # In threads of their own, as in the web process; without a context they would share one.
    apart = sync_to_async(searching._found, thread_sensitive=False)
    monkeypatch.setattr(searching, "_afound", apart)
    await asyncio.gather(*(asearch("leave", user=reader) for _ in range(6)))
    assert most == [2]


async def test_a_search_is_told_whether_it_is_alone() -> None:
    line = together.Line(at_once=2)
    async with line.turn() as first, line.turn() as second:
        assert (first, second) == (True, False)
    async with line.turn() as again:
        assert again


async def test_waiting_has_a_stage_of_its_own(reader: User) -> None:
    found = await asearch("leave", user=reader)
    assert list(found.timings_ms)[:2] == ["embed", "wait"]


@pytest.mark.parametrize("is_moved", [False, True])
async def test_a_model_that_is_searched_no_more_may_be_gone(
    reader: User, monkeypatch: pytest.MonkeyPatch, is_moved: bool
) -> None:
    """Another model is searched, or the same one from another server."""
    now = await sync_to_async(spaces.active)()
    assert now is not None
    gone, old = FakeEmbedder(), EmbeddingSpace(pk=now.pk if is_moved else 0, base_url="http://old")
    gone.error = EngineError("embedder_unavailable", "Away.", retryable=True)
    embedder_of = spaces.embedder_of
    monkeypatch.setattr(spaces, "_last_seen", old)
    monkeypatch.setattr(
        spaces, "embedder_of", lambda space: gone if space is old else embedder_of(space)
    )
    assert (await asearch("leave", user=reader)).passages
    monkeypatch.setattr(spaces, "_last_seen", old)
    assert (await sync_to_async(search)("leave", user=reader)).passages
    assert gone.calls == 2
