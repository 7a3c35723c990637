"""Versions, parts of containers, and what is embedded again: through the real pipeline."""

from __future__ import annotations

import io
import os
import zipfile
from collections.abc import Callable
from typing import Any

import pytest
from django.core.files.storage import default_storage

from assistant.documents import actions as documents
from assistant.documents import storage
from assistant.documents.actions import Upload
from assistant.documents.models import Collection, Document, DocumentVersion
from assistant.retrieval import search
from assistant.users.models import User
from inference.fakes import FakeEmbedder
from ingestion import parts
from ingestion.actions import accept_upload, restore_version
from ingestion.models import IngestionJob, JobStatus

pytestmark = pytest.mark.django_db


@pytest.fixture
def embedded(fake_embedder: FakeEmbedder, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The passages that were sent to the embedder, in order."""
    sent: list[str] = []
    embed = fake_embedder.embed

    def counted(texts: Any, *, kind: Any) -> Any:
        if kind == "passage":
            sent.extend(texts)
        return embed(texts, kind=kind)

    monkeypatch.setattr(fake_embedder, "embed", counted)
    return sent


def upload(
    collection: Collection, actor: User, content: bytes, *, name: str = "page.md"
) -> DocumentVersion:
    return accept_upload(
        collection.pk,
        Upload(content=io.BytesIO(content), filename=name, media_type="", external_id=name),
        actor=actor,
    )


def run_all(run_pipeline: Callable[[], None]) -> None:
    """Parts become jobs while their container is read."""
    while IngestionJob.objects.filter(status__in=[JobStatus.QUEUED, JobStatus.EMBEDDING]).exists():
        run_pipeline()


def archive(**members: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        for name, content in members.items():
            file.writestr(name.replace("__", "/"), content)
    return buffer.getvalue()


def handbook(*, changed: set[int] = frozenset()) -> bytes:  # type: ignore[assignment]
    pages = []
    for number in range(500):
        words = f"Rule {number} of the house says how matter {number} is handled by team {number}."
        text = "It was amended this year." if number in changed else words
        pages.append(f"# Page {number}\n\n{words}\n\n{text * 3}\n")
    return "\n".join(pages).encode()


def test_only_what_changed_in_a_handbook_is_embedded_again(
    collection: Collection,
    contributor: User,
    embedded: list[str],
    run_pipeline: Callable[[], None],
) -> None:
    first = upload(collection, contributor, handbook())
    run_all(run_pipeline)
    first.refresh_from_db()
    whole = len(embedded)
    assert first.chunk_count == whole > 100
    embedded.clear()
    second = upload(collection, contributor, handbook(changed={100, 200, 300}))
    run_all(run_pipeline)
    second.refresh_from_db()
    assert second.published_at is not None
    assert sum("amended" in text for text in embedded) == 3
    assert len(embedded) <= 9, "each changed page, and what shares its chunk before or after"


def test_a_text_that_another_document_has_is_not_embedded_again(
    collection: Collection,
    contributor: User,
    embedded: list[str],
    run_pipeline: Callable[[], None],
) -> None:
    upload(collection, contributor, b"# Leave\n\nThirty days.\n", name="a.md")
    run_all(run_pipeline)
    assert len(embedded) == 1
    upload(collection, contributor, b"# Leave\n\nThirty days.\n\n", name="b.md")
    run_all(run_pipeline)
    assert len(embedded) == 1
    assert len(search("thirty days", user=contributor, mode="vector").passages) == 2


def test_an_older_version_comes_back_as_a_new_one(
    collection: Collection, contributor: User, run_pipeline: Callable[[], None]
) -> None:
    first = upload(collection, contributor, b"# Leave\n\nThirty days of leave.\n")
    run_all(run_pipeline)
    upload(collection, contributor, b"# Leave\n\nTwenty days of leave.\n")
    run_all(run_pipeline)
    restored = restore_version(first, actor=contributor)
    assert (restored.number, restored.restored_from) == (3, 1)
    texts = [p.text for p in search("days of leave", user=contributor).passages]
    assert "Twenty" in texts[0], "the present version answers until the restored one is whole"
    run_all(run_pipeline)
    texts = [p.text for p in search("days of leave", user=contributor).passages]
    assert len(texts) == 1
    assert "Thirty" in texts[0]
    again = restore_version(first, actor=contributor)
    assert again.pk == restored.pk, "the same bytes are the version that is there"


def test_a_disabled_document_answers_nothing_and_is_not_lost(
    collection: Collection, contributor: User, run_pipeline: Callable[[], None]
) -> None:
    version = upload(collection, contributor, b"# Leave\n\nThirty days of leave.\n")
    run_all(run_pipeline)
    document = Document.objects.get(pk=version.document_id)
    documents.set_disabled(document, disabled=True, actor=contributor)
    for mode in ("hybrid", "vector", "keyword"):
        assert search("leave", user=contributor, mode=mode).passages == []
    documents.set_disabled(document, disabled=False, actor=contributor)
    assert len(search("leave", user=contributor).passages) == 1


def test_an_archive_keeps_its_structure(
    collection: Collection, contributor: User, run_pipeline: Callable[[], None]
) -> None:
    content = archive(
        people__leave=b"nothing that is read",
        **{
            "people__leave.md": b"# Leave\n\nThirty days.\n",
            "it__vpn.txt": b"Start the VPN first.",
        },
    )
    version = upload(collection, contributor, content, name="handbook.zip")
    run_all(run_pipeline)
    children = {d.path: d for d in Document.objects.filter(parent=version.document_id)}
    assert set(children) == {"people/leave", "people/leave.md", "it/vpn.txt"}
    status = {path: child.latest_version.job.status for path, child in children.items()}
    assert status == {"people/leave": "failed", "people/leave.md": "ready", "it/vpn.txt": "ready"}
    failed = children["people/leave"].latest_version.job
    assert failed.error_detail
    assert search("VPN", user=contributor).passages[0].title == "vpn.txt"
    assert children["it/vpn.txt"].collection_id == collection.pk


def test_a_new_archive_replaces_its_members_one_by_one(
    collection: Collection,
    contributor: User,
    embedded: list[str],
    run_pipeline: Callable[[], None],
) -> None:
    names = {"a.md": b"# A\n\nAlpha stays.\n", "b.md": b"# B\n\nBeta goes.\n"}
    version = upload(collection, contributor, archive(**names), name="x.zip")
    run_all(run_pipeline)
    stays = Document.objects.get(parent=version.document_id, path="a.md")
    embedded.clear()
    names = {"a.md": b"# A\n\nAlpha stays.\n", "c.md": b"# C\n\nGamma comes.\n"}
    upload(collection, contributor, archive(**names), name="x.zip")
    run_all(run_pipeline)
    paths = Document.objects.filter(parent=version.document_id).values_list("path", "pk")
    assert dict(paths).keys() == {"a.md", "c.md"}
    assert dict(paths)["a.md"] == stays.pk
    assert stays.versions.count() == 1
    assert not any("Alpha" in text for text in embedded)
    assert search("Beta", user=contributor, mode="keyword").passages == []


def test_parts_go_with_their_container(
    collection: Collection, contributor: User, run_pipeline: Callable[[], None]
) -> None:
    inner = archive(**{"deep.md": b"# Deep\n\nA deep secret.\n"})
    outer = archive(**{"inner.zip": inner})
    version = upload(collection, contributor, outer, name="outer.zip")
    run_all(run_pipeline)
    assert search("deep secret", user=contributor, mode="keyword").passages
    documents.delete_document(Document.objects.get(pk=version.document_id), actor=contributor)
    assert search("deep secret", user=contributor, mode="keyword").passages == []
    assert not Document.objects.filter(collection=collection).exists()


def test_archives_in_archives_end_at_the_depth_limit(
    collection: Collection, contributor: User, run_pipeline: Callable[[], None]
) -> None:
    content = archive(**{"core.md": b"# Core\n\nThe core.\n"})
    for _ in range(parts.MAX_DEPTH + 1):
        content = archive(**{"inner.zip": content})
    upload(collection, contributor, content, name="onion.zip")
    run_all(run_pipeline)
    assert Document.objects.filter(collection=collection).count() == parts.MAX_DEPTH + 1
    deepest = DocumentVersion.objects.filter(document__children=None).get()
    assert deepest.warnings


def test_a_container_deleted_meanwhile_gets_no_parts(
    collection: Collection,
    contributor: User,
    run_pipeline: Callable[[], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    version = upload(collection, contributor, archive(**{"a.md": b"# A\n\nAlpha.\n"}), name="x.zip")
    accept = parts.Parts.accept

    def after_the_deletion(self: parts.Parts, *args: Any) -> Any:
        documents.delete_document(Document.objects.get(pk=version.document_id), actor=contributor)
        return accept(self, *args)

    monkeypatch.setattr(parts.Parts, "accept", after_the_deletion)
    run_pipeline()
    assert not Document.objects.filter(collection=collection).exists()
    assert not IngestionJob.objects.filter(version__document__collection=collection).exists()


def test_bytes_without_a_version_are_removed_after_an_hour(
    collection: Collection, contributor: User
) -> None:
    version = upload(collection, contributor, b"# Leave\n\nThirty days.\n")
    folder = int(version.storage_key.split("/")[1], 16)
    stray = version.storage_key[:-4] + "0000"
    fresh = version.storage_key[:-4] + "1111"
    for key in (stray, fresh):
        default_storage.save(key, io.BytesIO(b"left behind"))
    for key in (stray, version.storage_key):
        os.utime(default_storage.path(key), (0, 0))
    assert documents.remove_strays(folder=folder) == 1
    assert not default_storage.exists(stray)
    assert default_storage.exists(fresh)
    assert default_storage.exists(version.storage_key)
    assert documents.remove_strays(folder=(folder + 1) % storage.FOLDERS) == 0
