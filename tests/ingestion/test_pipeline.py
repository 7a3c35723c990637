"""Jobs from upload to published, with the real sandbox and what can go wrong between."""

from __future__ import annotations

import io
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from celery import current_app
from django.db import transaction
from django.utils import timezone

from assistant.documents import actions as documents
from assistant.documents.actions import Upload
from assistant.documents.models import Collection, Document, DocumentVersion, VersionText
from assistant.retrieval import search
from assistant.users.models import User
from inference.fakes import FakeEmbedder
from inference.types import EngineError, EngineHealth
from ingestion import leases, outbox, pipeline, recovery
from ingestion.actions import accept_upload, cancel_jobs, retry_jobs
from ingestion.errors import IngestionError
from ingestion.models import IngestionJob, JobStatus, OutboxEntry

pytestmark = pytest.mark.django_db
TEXT = b"# Leave\n\nAnnual leave is thirty days.\n\n# Canteen\n\nIt opens at noon.\n"


def upload(
    collection: Collection, actor: User, content: bytes = TEXT, **options: Any
) -> DocumentVersion:
    options = {"filename": "leave.md", "media_type": "", **options}
    return accept_upload(collection.pk, Upload(content=io.BytesIO(content), **options), actor=actor)


def job_of(version: DocumentVersion) -> IngestionJob:
    return IngestionJob.objects.get(version=version)


def test_an_upload_becomes_searchable(
    collection: Collection, contributor: User, run_pipeline: Callable[[], None]
) -> None:
    version = upload(collection, contributor)
    assert search("annual leave", user=contributor).passages == []
    run_pipeline()
    job = job_of(version)
    assert (job.status, job.lease_owner, job.error_code) == (JobStatus.READY, "", "")
    found = search("annual leave", user=contributor).passages
    assert "thirty days" in found[0].text
    text = VersionText.objects.get(version=version).text
    place = found[0].locator
    assert text[place.char_start : place.char_end] == found[0].text


def test_a_file_without_a_given_title_gets_its_own(
    collection: Collection, contributor: User, run_pipeline: Callable[[], None]
) -> None:
    own = upload(collection, contributor)
    given = upload(collection, contributor, title="Rules", external_id="x")
    run_pipeline()
    titles = dict(Document.objects.values_list("latest_version", "title"))
    assert (titles[own.pk], titles[given.pk]) == ("Leave", "Rules")


@pytest.mark.parametrize(
    ("filename", "content", "code"),
    [
        ("a.md", b"", "empty_file"),
        ("a.pdf", b"\x89PNG\r\n\x1a\n" + bytes(64), "type_mismatch"),
        ("a.exe", b"MZ" + bytes(64), "unsupported_type"),
        ("a.txt", b"x" * (6 << 20), "too_large"),
    ],
)
def test_what_cannot_be_taken_leaves_nothing_behind(
    collection: Collection, contributor: User, filename: str, content: bytes, code: str
) -> None:
    with pytest.raises(IngestionError) as refused:
        upload(collection, contributor, content, filename=filename)
    assert refused.value.code == code
    assert not Document.objects.exists()
    assert not OutboxEntry.objects.exists()


def test_a_broken_file_fails_with_words_and_disturbs_nothing(
    collection: Collection, contributor: User, run_pipeline: Callable[[], None]
) -> None:
    broken = upload(collection, contributor, b"%PDF-1.7\nrubbish\n%%EOF", filename="broken.pdf")
    good = upload(collection, contributor)
    run_pipeline()
    assert job_of(good).status == JobStatus.READY
    failed = job_of(broken)
    assert (failed.status, failed.error_code) == (JobStatus.FAILED, "corrupt_file")
    assert "save it again" in failed.error_detail.lower()


def test_the_same_bytes_are_the_same_version(
    collection: Collection, contributor: User, run_pipeline: Callable[[], None]
) -> None:
    first = upload(collection, contributor, external_id="leave")
    run_pipeline()
    assert upload(collection, contributor, external_id="leave").pk == first.pk
    assert IngestionJob.objects.count() == 1


def test_a_new_version_replaces_the_old_one_when_it_is_whole(
    collection: Collection, contributor: User, run_pipeline: Callable[[], None]
) -> None:
    upload(collection, contributor, external_id="leave")
    run_pipeline()
    second = upload(collection, contributor, TEXT.replace(b"thirty", b"forty"), external_id="leave")
    assert "thirty" in search("annual leave days", user=contributor).passages[0].text
    run_pipeline()
    texts = " ".join(p.text for p in search("annual leave days", user=contributor).passages)
    assert "forty" in texts
    assert "thirty" not in texts
    assert Document.objects.get().current_version_id == second.pk


def test_a_failed_new_version_leaves_the_old_one_answering(
    collection: Collection, contributor: User, run_pipeline: Callable[[], None]
) -> None:
    upload(collection, contributor, external_id="leave")
    run_pipeline()
    upload(collection, contributor, b"%PDF-1.7 rubbish", filename="leave.pdf", external_id="leave")
    run_pipeline()
    assert "thirty" in search("annual leave", user=contributor).passages[0].text


def test_unchanged_chunks_keep_their_vectors(
    collection: Collection,
    contributor: User,
    run_pipeline: Callable[[], None],
    fake_embedder: FakeEmbedder,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    long = b"\n\n".join(b"# Part %d\n\n" % i + b"word%d " % i * 150 for i in range(12))
    upload(collection, contributor, long, external_id="book", title="Book")
    run_pipeline()
    embedded: list[str] = []
    embed = fake_embedder.embed

    def counting(texts: list[str], *, kind: Any) -> Any:
        embedded.extend(texts)
        return embed(texts, kind=kind)

    monkeypatch.setattr(fake_embedder, "embed", counting)
    changed = long.replace(b"word5 ", b"new5 ", 1)
    upload(collection, contributor, changed, external_id="book", title="Book")
    run_pipeline()
    assert 1 <= len(embedded) <= 2


def test_two_workers_cannot_hold_one_job(collection: Collection, contributor: User) -> None:
    job = job_of(upload(collection, contributor))
    first = leases.claim(job.pk, waiting=JobStatus.QUEUED, working=JobStatus.PARSING)
    second = leases.claim(job.pk, waiting=JobStatus.QUEUED, working=JobStatus.PARSING)
    assert first is not None
    assert second is None


def test_a_late_worker_writes_nothing(collection: Collection, contributor: User) -> None:
    job = job_of(upload(collection, contributor))
    late = leases.claim(job.pk, waiting=JobStatus.QUEUED, working=JobStatus.PARSING)
    assert late is not None
    IngestionJob.objects.update(lease_until=timezone.now() - timedelta(minutes=5))
    taken = leases.claim(job.pk, waiting=JobStatus.QUEUED, working=JobStatus.PARSING)
    assert taken is not None
    assert taken.fence > late.fence
    with pytest.raises(leases.LeaseLost):
        late.report(1, 2)
    with pytest.raises(leases.LeaseLost), transaction.atomic():
        late.held()


def test_a_job_that_kills_its_workers_is_put_aside(
    collection: Collection, contributor: User
) -> None:
    job = job_of(upload(collection, contributor))
    for _ in range(9):
        assert leases.claim(job.pk, waiting=JobStatus.QUEUED, working=JobStatus.PARSING)
        IngestionJob.objects.update(lease_until=timezone.now() - timedelta(minutes=5))
    pipeline.parse_and_chunk(job.pk)
    job.refresh_from_db()
    assert (job.status, job.error_code) == (JobStatus.FAILED, "parse_crashed")


def test_deleting_in_between_makes_the_rest_a_no_op(
    collection: Collection, contributor: User, fake_embedder: FakeEmbedder
) -> None:
    version = upload(collection, contributor)
    job = job_of(version)
    pipeline.parse_and_chunk(job.pk)
    documents.delete_document(Document.objects.get(), actor=contributor)
    pipeline.embed_and_publish(job.pk)
    assert not DocumentVersion.objects.exists()
    assert search("annual leave", user=contributor).passages == []


def test_an_embedder_that_answers_and_still_fails_is_tried_again_and_then_said(
    collection: Collection, contributor: User, fake_embedder: FakeEmbedder
) -> None:
    job = job_of(upload(collection, contributor))
    pipeline.parse_and_chunk(job.pk)
    fake_embedder.error = EngineError("embedder_unavailable", "Down.", retryable=True)
    fake_embedder.check = lambda: EngineHealth(ok=True, detail="Answers.")  # type: ignore[method-assign]
    for _ in range(3):
        pipeline.embed_and_publish(job.pk)
    job.refresh_from_db()
    assert (job.status, job.error_code) == (JobStatus.FAILED, "embedder_unavailable")
    fake_embedder.error = None
    assert retry_jobs([job], actor=contributor) == 1
    pipeline.parse_and_chunk(job.pk)
    pipeline.embed_and_publish(job.pk)
    job.refresh_from_db()
    assert job.status == JobStatus.READY


def test_one_bad_document_does_not_fail_those_embedded_with_it(
    collection: Collection, contributor: User, fake_embedder: FakeEmbedder, monkeypatch: Any
) -> None:
    jobs = [
        job_of(upload(collection, contributor, b"# A\n\n" + word * 9, external_id=word.decode()))
        for word in (b"fine ", b"poison ", b"good ")
    ]
    for job in jobs:
        pipeline.parse_and_chunk(job.pk)
    embed = fake_embedder.embed

    def refusing(texts: list[str], *, kind: Any) -> Any:
        if any("poison" in text for text in texts):
            raise EngineError("embedder_bad_request", "No.", retryable=False)
        return embed(texts, kind=kind)

    monkeypatch.setattr(fake_embedder, "embed", refusing)
    pipeline.embed_and_publish(jobs[0].pk)
    ready = [IngestionJob.objects.get(pk=job.pk).status == JobStatus.READY for job in jobs]
    assert ready == [True, False, True]


def test_an_unexpected_error_is_not_a_stuck_file(
    collection: Collection, contributor: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = job_of(upload(collection, contributor))
    monkeypatch.setattr(pipeline, "_chunk", lambda *_: 1 / 0)
    for _ in range(3):
        pipeline.parse_and_chunk(job.pk)
    job.refresh_from_db()
    assert (job.status, job.error_code) == (JobStatus.FAILED, "internal")


def test_cancelling_frees_the_job_and_retry_starts_over(
    collection: Collection, contributor: User, run_pipeline: Callable[[], None]
) -> None:
    job = job_of(upload(collection, contributor))
    held = leases.claim(job.pk, waiting=JobStatus.QUEUED, working=JobStatus.PARSING)
    assert held is not None
    assert cancel_jobs([job], actor=contributor) == 1
    with pytest.raises(leases.LeaseLost):
        held.extend()
    assert retry_jobs([job], actor=contributor) == 1
    run_pipeline()
    assert IngestionJob.objects.get().status == JobStatus.READY


def test_a_newer_upload_cancels_the_unfinished_older_one(
    collection: Collection, contributor: User
) -> None:
    first = upload(collection, contributor, external_id="leave")
    upload(collection, contributor, TEXT + b"More.", external_id="leave")
    assert job_of(first).status == JobStatus.CANCELLED


def test_the_sweep_sends_again_what_nobody_holds(collection: Collection, contributor: User) -> None:
    job = job_of(upload(collection, contributor))
    hour = timezone.now() - timedelta(hours=1)
    OutboxEntry.objects.update(sent_at=hour)
    assert recovery.sweep() == 1
    assert recovery.sweep() == 0
    OutboxEntry.objects.update(sent_at=hour)
    assert leases.claim(job.pk, waiting=JobStatus.QUEUED, working=JobStatus.PARSING)
    assert recovery.sweep() == 0
    IngestionJob.objects.update(lease_until=hour)
    assert recovery.sweep() == 1


def test_a_message_is_relayed_until_the_broker_takes_it(
    collection: Collection, contributor: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: list[str] = []
    upload(collection, contributor)

    def refuse(*args: Any, **kwargs: Any) -> None:
        raise ConnectionError("no broker")

    monkeypatch.setattr(current_app, "send_task", refuse, raising=False)
    assert outbox.relay() == 0
    assert OutboxEntry.objects.filter(sent_at=None).count() == 1
    monkeypatch.setattr(
        current_app, "send_task", lambda task, **_: sent.append(task), raising=False
    )
    assert outbox.relay() == 1
    assert outbox.relay() == 0
    assert sent == ["ingestion.tasks.parse_version"]
