"""Moving to another model, with the fake embedder of each model behind the Protocol."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from django.db import connection
from django.db.models.functions import Now

from assistant import engines
from assistant.documents.models import Collection, Document
from assistant.retrieval import reembedding, search, spaces
from assistant.retrieval.models import Embedding, EmbeddingSpace
from assistant.users.models import User
from inference.embedding_models import EmbeddingModel
from inference.fakes import FakeEmbedder
from inference.types import EmbeddingSpec, EngineError
from tests.factories import make_collection, make_document, make_user

pytestmark = pytest.mark.django_db

NEXT = EmbeddingModel("next-model", dimension=32, window=256, revision="2")


@pytest.fixture
def models(fake_embedder: FakeEmbedder, monkeypatch: pytest.MonkeyPatch) -> dict[str, FakeEmbedder]:
    """Clients by model name: the site's own and that of the model to move to."""
    by_name = {
        fake_embedder.spec.model: fake_embedder,
        NEXT.name: FakeEmbedder(NEXT.spec),
    }
    monkeypatch.setattr(
        engines, "embedder_for", lambda spec, *, source, base_url: by_name[spec.model]
    )
    old = EmbeddingModel(
        fake_embedder.spec.model,
        dimension=fake_embedder.spec.dimension,
        window=fake_embedder.spec.window,
        revision=fake_embedder.spec.revision,
    )
    monkeypatch.setattr(
        reembedding, "resolve_model", lambda source: NEXT if source == NEXT.name else old
    )
    return by_name


@pytest.fixture
def reader() -> User:
    return make_user()


@pytest.fixture
def collection(reader: User) -> Collection:
    return make_collection(readers=[reader])


@pytest.fixture
def handbook(collection: Collection, models: dict[str, FakeEmbedder]) -> list[Document]:
    return [
        make_document(
            collection,
            title=f"Page {n}",
            text=f"The travel rule number {n} says so.\n\nAnd expense rule {n} says more.",
        )
        for n in range(5)
    ]


def start() -> EmbeddingSpace:
    with connection.cursor() as cursor:  # as a commit would have, before the next index is made
        cursor.execute("SET CONSTRAINTS ALL IMMEDIATE; SET CONSTRAINTS ALL DEFERRED")
    return reembedding.start(NEXT.name, actor=None)


def test_the_new_space_is_filled_beside_the_old_and_switched_to(
    handbook: list[Document], reader: User, models: dict[str, FakeEmbedder]
) -> None:
    old = spaces.active()
    start()
    assert spaces.active() == old
    assert search("travel rule", user=reader).passages
    while reembedding.fill():
        pass
    active = spaces.active()
    assert active is not None
    assert active.model == NEXT.name
    assert reembedding.progress() is None
    assert len(search("travel rule", user=reader, mode="vector", limit=50).passages) == 10


def test_it_goes_on_where_it_was_interrupted(
    handbook: list[Document], models: dict[str, FakeEmbedder], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reembedding, "BATCH", 4)
    space = start()
    embedded: list[int] = []
    embed = models[NEXT.name].embed

    def dies_at_the_second_batch(texts: Any, *, kind: Any) -> Any:
        if len(embedded) == 1:
            embedded.append(0)
            raise EngineError("embedder_unavailable", "gone", retryable=True)
        embedded.append(len(texts))
        return embed(texts, kind=kind)

    monkeypatch.setattr(models[NEXT.name], "embed", dies_at_the_second_batch)
    assert reembedding.fill() is False
    state = reembedding.progress()
    assert state is not None
    assert (state.done, state.total, state.error) == (4, 10, "gone")
    while reembedding.fill():
        pass
    assert sum(embedded) == 10  # nothing was embedded twice
    assert spaces.active() == space


def test_what_is_published_meanwhile_holds_the_switch_back(
    handbook: list[Document],
    collection: Collection,
    models: dict[str, FakeEmbedder],
) -> None:
    space = start()
    assert reembedding.fill(seconds=0)  # has done nothing yet
    assert not reembedding.switch(space)
    while reembedding.fill():
        pass
    assert spaces.active() == space


def test_a_second_worker_stays_away(handbook: list[Document]) -> None:
    space = start()
    EmbeddingSpace.objects.filter(pk=space.pk).update(
        lease_until=Now() + reembedding.KEEP_AFTER_SWITCH
    )
    assert reembedding.fill() is False
    state = reembedding.progress()
    assert state is not None
    assert state.done == 0


def test_going_back_needs_only_what_came_since(
    handbook: list[Document],
    collection: Collection,
    reader: User,
    models: dict[str, FakeEmbedder],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    old = spaces.active()
    assert old is not None
    start()
    while reembedding.fill():
        pass
    make_document(collection, title="New", text="A new rule about bicycles.")
    reembedding.go_back(actor=None)
    state = reembedding.progress()
    assert state is not None
    assert (state.done, state.total) == (10, 11)
    while reembedding.fill():
        pass
    assert spaces.active() == old
    assert search("bicycles", user=reader, mode="vector").passages[0].title == "New"


def test_dropping_waits_for_searches_that_may_still_run(handbook: list[Document]) -> None:
    old = spaces.active()
    assert old is not None
    start()
    while reembedding.fill():
        pass
    with pytest.raises(reembedding.ReembedError, match="two minutes"):
        reembedding.drop_unused(actor=None)
    EmbeddingSpace.objects.filter(is_active=True).update(
        activated_at=Now() - 2 * reembedding.KEEP_AFTER_SWITCH
    )
    assert reembedding.drop_unused(actor=None) == [old.model]
    assert not Embedding.objects.filter(space_id=old.pk).exists()
    with pytest.raises(reembedding.ReembedError, match="no earlier model"):
        reembedding.go_back(actor=None)


def test_cancelling_keeps_the_old_model(handbook: list[Document]) -> None:
    old = spaces.active()
    start()
    assert reembedding.cancel(actor=None)
    assert not reembedding.cancel(actor=None)
    assert reembedding.fill() is False
    assert spaces.active() == old


def test_a_smaller_window_is_refused(
    handbook: list[Document], monkeypatch: pytest.MonkeyPatch
) -> None:
    small = EmbeddingModel("small", dimension=32, window=64)
    monkeypatch.setattr(reembedding, "resolve_model", lambda _: small)
    with pytest.raises(reembedding.ReembedError, match="larger window"):
        reembedding.start("small", actor=None)


def test_a_search_that_meets_the_switch_asks_the_new_model(
    handbook: list[Document],
    reader: User,
    models: dict[str, FakeEmbedder],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    start()
    old = next(iter(models.values()))
    embed = old.embed

    def switches_meanwhile(texts: Any, *, kind: Any) -> Any:
        vectors = embed(texts, kind=kind)
        monkeypatch.setattr(old, "embed", embed)
        while reembedding.fill():
            pass
        return vectors

    monkeypatch.setattr(old, "embed", switches_meanwhile)
    found = search("travel rule", user=reader, mode="vector", limit=50).passages
    assert len(found) == 10


def test_a_document_that_was_embedded_for_the_old_model_gets_the_new_vectors(
    handbook: list[Document],
    collection: Collection,
    reader: User,
    run_pipeline: Callable[[], None],
    models: dict[str, FakeEmbedder],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from tests.ingestion.test_pipeline import upload

    contributor = make_user()
    upload(collection, contributor)
    start()
    old = next(iter(models.values()))
    embed = old.embed

    def switches_meanwhile(texts: Any, *, kind: Any) -> Any:
        vectors = embed(texts, kind=kind)
        while reembedding.fill():
            pass
        return vectors

    monkeypatch.setattr(old, "embed", switches_meanwhile)
    run_pipeline()
    active = spaces.active()
    assert active is not None
    assert active.model == NEXT.name
    assert search("annual leave", user=reader, mode="vector").passages


def test_another_setting_does_not_move_a_site(
    handbook: list[Document],
    reader: User,
    models: dict[str, FakeEmbedder],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    other = FakeEmbedder(EmbeddingSpec("another", "1", dimension=8, window=256))
    monkeypatch.setattr(engines, "embedder", lambda: other)
    assert search("travel rule", user=reader, mode="vector").passages
