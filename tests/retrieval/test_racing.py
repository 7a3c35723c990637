"""Searches race version switches, deletions and moves to another model, on real connections."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest
from django.db import connection, transaction

from assistant import engines
from assistant.documents import actions as documents
from assistant.documents.actions import Upload
from assistant.documents.models import Collection, Document
from assistant.retrieval import index, reembedding, search, spaces
from assistant.users.models import User
from inference.embedding_models import EmbeddingModel
from inference.fakes import FakeEmbedder
from ingestion.models import IngestionJob
from tests.factories import file_named, make_collection, make_document, make_user, publish

# Each search asks its arms on two connections.
pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("room")]

SECONDS = 6.0
AT_MOST_SECONDS = 120.0
PAGES = 8
NEXT = EmbeddingModel("next-model", dimension=48, window=256, revision="2")


@pytest.fixture
def models(fake_embedder: FakeEmbedder, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Two models that can be moved between by name."""
    spec = fake_embedder.spec
    old = EmbeddingModel(
        spec.model, dimension=spec.dimension, window=spec.window, revision=spec.revision
    )
    clients = {spec.model: fake_embedder, NEXT.name: FakeEmbedder(NEXT.spec)}
    monkeypatch.setattr(
        engines, "embedder_for", lambda spec, *, source, base_url: clients[spec.model]
    )
    monkeypatch.setattr(
        reembedding, "resolve_model", lambda source: NEXT if source == NEXT.name else old
    )
    return [NEXT.name, spec.model]


@dataclass(slots=True)
class Race:
    """Runs things over and over in threads, and keeps what went wrong.

    It lasts SECONDS, and on a busy machine until each has had its rounds ``at_least``.
    """

    at_least: dict[str, int]
    started: float = field(default_factory=time.monotonic)
    errors: list[BaseException] = field(default_factory=list)
    rounds: dict[str, int] = field(default_factory=dict)

    def run(self, *contestants: Callable[[], None]) -> None:
        threads = [threading.Thread(target=self._repeat, args=(c,)) for c in contestants]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if self.errors:
            raise self.errors[0]

    def _goes_on(self) -> bool:
        lasted = time.monotonic() - self.started
        short = any(self.rounds.get(name, 0) < count for name, count in self.at_least.items())
        return lasted < SECONDS or (short and lasted < AT_MOST_SECONDS)

    def _repeat(self, contestant: Callable[[], None]) -> None:
        try:
            while self._goes_on() and not self.errors:
                contestant()
                name = contestant.__name__
                self.rounds[name] = self.rounds.get(name, 0) + 1
        except BaseException as error:  # noqa: BLE001 - raised again where pytest sees it
            self.errors.append(error)
        finally:
            connection.close()


def text_of(page: int, edition: int) -> str:
    """Three paragraphs that name their page and edition, so that a mix can be seen."""
    return "\n\n".join(f"Travel rule of page {page} edition {edition} part {n}." for n in range(3))


def test_no_mix_no_gap_no_resurrection(models: list[str]) -> None:
    reader: User = make_user()
    collection: Collection = make_collection(readers=[reader])
    pages = [
        make_document(collection, title=f"Page {n}", text=text_of(n, 0), external_id=f"page-{n}")
        for n in range(PAGES)
    ]
    editions = dict.fromkeys(range(PAGES), 0)
    deleted: set[str] = set()
    enough = {"new_edition": PAGES, "move_to_another_model": 2, "search_hybrid": 20}
    race = Race(enough)

    def new_edition() -> None:
        page = race.rounds.get("new_edition", 0) % PAGES
        editions[page] += 1
        text = text_of(page, editions[page])
        with transaction.atomic():
            version, _ = documents.store_version(
                collection.pk,
                Upload(
                    content=file_named("page.md", text.encode()),
                    filename="page.md",
                    media_type="text/markdown",
                    external_id=f"page-{page}",
                ),
                actor=None,
            )
            IngestionJob.objects.create(version=version)
        publish(version, text)

    def come_and_go() -> None:
        passing = make_document(collection, title="Passing", text="Travel rule that passes.")
        documents.delete_document(Document.objects.get(pk=passing.pk), actor=None)
        deleted.add(str(passing.pk))

    def move_to_another_model() -> None:
        reembedding.start(models[race.rounds.get("move_to_another_model", 0) % 2], actor=None)
        while reembedding.progress() is not None:
            reembedding.fill(seconds=1)

    def look(mode: str) -> Callable[[], None]:
        def search_in() -> None:
            gone = set(deleted)
            passages = search("travel rule", user=reader, limit=100, mode=mode).passages  # type: ignore[arg-type]
            found: dict[str, list[str]] = {}
            for passage in passages:
                found.setdefault(str(passage.document_id), []).append(passage.text)
            assert not gone & set(found), "a deleted document came back"
            for number, page in enumerate(pages):
                texts = found.get(str(page.pk), [])
                seen = {text.split("edition ")[1].split()[0] for text in texts}
                assert len(texts) == 3, f"page {number} has a gap in {mode}: {texts}"
                assert len(seen) == 1, f"page {number} is a mix of editions {seen}"

        search_in.__name__ = f"search_{mode}"
        return search_in

    race.run(new_edition, come_and_go, move_to_another_model, look("hybrid"), look("vector"))
    assert all(race.rounds[name] >= count for name, count in enough.items()), race.rounds


def test_every_space_has_what_answers(models: list[str]) -> None:
    """After moving there and back each answering chunk has one vector in the active space."""
    collection: Collection = make_collection()
    page = make_document(collection, text=text_of(1, 1))
    for name in models:
        reembedding.start(name, actor=None)
        while reembedding.progress() is not None:
            reembedding.fill(seconds=1)
    space = spaces.active()
    assert space is not None
    assert page.current_version_id is not None
    assert not index.count_without_vector([page.current_version_id], space=space)
