"""What brings a job on its way again: sweeps, strays, an orderly end, and what failures mean."""

from __future__ import annotations

import errno
import io
import os
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from celery import current_app
from django.db import OperationalError
from django.utils import timezone

from assistant.documents import actions as documents
from assistant.documents.actions import Upload
from assistant.documents.models import Collection, Document
from assistant.users.models import User
from inference.fakes import FakeEmbedder
from inference.types import EngineError, EngineHealth
from ingestion import leases, outbox, pipeline, recovery
from ingestion.actions import accept_upload
from ingestion.errors import FailureCode, IngestionError
from ingestion.failing import end_badly
from ingestion.leases import Claim
from ingestion.models import IngestionJob, JobStatus, OutboxEntry

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def own_node() -> Iterator[None]:
    leases.work_as("parse@test")
    yield
    leases.work_as("test")


@pytest.fixture
def add(collection: Collection, contributor: User) -> Callable[..., IngestionJob]:
    def upload(text: str = "# Leave\n\nThirty days.\n", **options: Any) -> IngestionJob:
        content = io.BytesIO(text.encode())
        version = accept_upload(
            collection.pk,
            Upload(content=content, filename="leave.md", media_type="", **options),
            actor=contributor,
        )
        return IngestionJob.objects.get(version=version)

    return upload


def claim(job: IngestionJob) -> Claim:
    taken = leases.claim(job.pk, waiting=JobStatus.QUEUED, working=JobStatus.PARSING)
    assert taken is not None
    return taken


def all_sent(ago: timedelta) -> None:
    OutboxEntry.objects.update(sent_at=timezone.now() - ago)


def test_a_message_that_an_empty_queue_lost_is_sent_again_in_seconds(add: Any) -> None:
    add()
    all_sent(timedelta(seconds=5))
    assert recovery.sweep() == 0
    all_sent(timedelta(seconds=15))
    assert recovery.sweep() == 1
    assert recovery.sweep() == 0


def test_a_message_behind_a_long_queue_is_not_sent_over_and_over(
    add: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recovery, "_is_empty", lambda task: False)
    add()
    all_sent(timedelta(minutes=30))
    assert recovery.sweep() == 0
    all_sent(timedelta(minutes=90))
    assert recovery.sweep() == 1


def test_a_lapsed_lease_is_sent_for_once(add: Any) -> None:
    job = add()
    late = claim(job)
    all_sent(timedelta(hours=2))
    IngestionJob.objects.update(lease_until=timezone.now() - timedelta(seconds=2))
    assert recovery.sweep() == 1
    assert recovery.sweep() == 0
    job.refresh_from_db()
    assert (job.status, job.lease_owner, job.attempts) == (JobStatus.QUEUED, "", 1)
    with pytest.raises(leases.LeaseLost):
        late.extend()


def test_what_a_dead_worker_of_this_name_held_is_taken_back_at_once(add: Any) -> None:
    job = add()
    claim(job)
    assert recovery.take_back_strays() == 0, "it was claimed this moment"
    IngestionJob.objects.update(lease_until=timezone.now() + timedelta(seconds=40))
    assert recovery.take_back_strays() == 1
    job.refresh_from_db()
    assert (job.status, job.lease_owner) == (JobStatus.QUEUED, "")


def test_what_a_living_thread_or_another_worker_holds_is_left_alone(add: Any) -> None:
    mine, others = add("# A\n\none", external_id="a"), add("# B\n\ntwo", external_id="b")
    held = claim(mine)
    leases.work_as("parse@elsewhere")
    claim(others)
    leases.work_as("parse@test")
    IngestionJob.objects.update(lease_until=timezone.now() + timedelta(seconds=40))
    with leases.heartbeat([held]):
        assert recovery.take_back_strays() == 0


def test_an_orderly_end_gives_leases_back_without_an_attempt(add: Any) -> None:
    job = add()
    held = claim(job)
    with leases.heartbeat([held]) as is_lost:
        assert not is_lost(held)
        leases.give_all_back()
        assert is_lost(held)
    job.refresh_from_db()
    assert (job.status, job.lease_owner, job.attempts) == (JobStatus.QUEUED, "", 0)
    assert OutboxEntry.objects.filter(job=job, task=outbox.PARSE_TASK).count() == 2
    end_badly([held], IngestionError(FailureCode.CANCELLED))
    job.refresh_from_db()
    assert job.status == JobStatus.QUEUED, "the thread that was told to stop wrote nothing"


@pytest.mark.parametrize("error", [OperationalError("gone"), OSError(errno.ENOSPC, "full")])
def test_an_outage_costs_no_attempt_however_long_it_lasts(add: Any, error: Exception) -> None:
    job = add()
    for _ in range(12):
        end_badly([claim(job)], error)
        job.refresh_from_db()
        assert (job.status, job.attempts) == (JobStatus.QUEUED, 0)
    assert job.error_detail, "people see why it waits"


def test_while_the_embedder_is_away_documents_wait(add: Any, fake_embedder: FakeEmbedder) -> None:
    job = add()
    pipeline.parse_and_chunk(job.pk)
    fake_embedder.error = EngineError("embedder_unavailable", "Down.", retryable=True)
    health = fake_embedder.check
    fake_embedder.check = lambda: EngineHealth(ok=False, detail="Down.")  # type: ignore[method-assign]
    for _ in range(12):
        pipeline.embed_and_publish(job.pk)
    job.refresh_from_db()
    assert (job.status, job.error_code) == (JobStatus.EMBEDDING, "embedder_unavailable")
    fake_embedder.error = None
    fake_embedder.check = health  # type: ignore[method-assign]
    pipeline.embed_and_publish(job.pk)
    job.refresh_from_db()
    assert job.status == JobStatus.READY


def test_another_model_at_the_embedders_address_is_said(
    add: Any, fake_embedder: FakeEmbedder
) -> None:
    job = add()
    pipeline.parse_and_chunk(job.pk)
    fake_embedder.error = EngineError("embedder_mismatch", "Another model.", retryable=False)
    pipeline.embed_and_publish(job.pk)
    job.refresh_from_db()
    assert (job.status, job.error_code) == (JobStatus.FAILED, "embedder_misconfigured")
    assert "administrator" in job.error_detail


def test_a_parser_that_was_killed_from_outside_is_no_verdict_on_its_document(add: Any) -> None:
    job = add()
    lost = IngestionError(FailureCode.SANDBOX_LOST)
    for _ in range(8):
        end_badly([claim(job)], lost)
        job.refresh_from_db()
        assert job.status == JobStatus.QUEUED
    end_badly([claim(job)], lost)
    job.refresh_from_db()
    assert (job.status, job.error_code) == (JobStatus.FAILED, "parse_crashed")


def test_one_that_failed_before_takes_no_others_along(
    add: Any, fake_embedder: FakeEmbedder
) -> None:
    first, second = add("# A\n\none", external_id="a"), add("# B\n\ntwo", external_id="b")
    for job in (first, second):
        pipeline.parse_and_chunk(job.pk)
    IngestionJob.objects.filter(pk=first.pk).update(attempts=1)
    pipeline.embed_and_publish(first.pk)
    second.refresh_from_db()
    assert second.status == JobStatus.EMBEDDING
    IngestionJob.objects.filter(pk=first.pk).update(status=JobStatus.EMBEDDING, attempts=1)
    pipeline.embed_and_publish(second.pk)
    first.refresh_from_db()
    assert first.status == JobStatus.EMBEDDING


def test_late_tasks_of_deleted_and_replaced_documents_do_nothing(
    add: Any, contributor: User, fake_embedder: FakeEmbedder
) -> None:
    old = add("# Old\n\nOld words.", external_id="a")
    late = claim(old)
    new = add("# New\n\nNew words.", external_id="a")
    with pytest.raises(leases.LeaseLost):
        late.report(1, 1)
    for stage in (pipeline.parse_and_chunk, pipeline.embed_and_publish):
        stage(old.pk)
        stage(new.pk)
    document = Document.objects.get()
    assert document.current_version_id == new.version_id
    old.refresh_from_db()
    assert old.status == JobStatus.CANCELLED
    documents.delete_document(document, actor=contributor)
    for stage in (pipeline.parse_and_chunk, pipeline.embed_and_publish):
        stage(new.pk)
    assert not Document.objects.exists()


def test_a_broker_that_refuses_is_not_asked_for_every_upload(
    add: Any, monkeypatch: pytest.MonkeyPatch, django_capture_on_commit_callbacks: Any
) -> None:
    asked: list[str] = []

    def refuse(task: str, **_: Any) -> None:
        asked.append(task)
        raise ConnectionError("no broker")

    monkeypatch.setattr(outbox, "_paused_until", 0.0)
    monkeypatch.setattr(current_app, "send_task", refuse, raising=False)
    with django_capture_on_commit_callbacks(execute=True):
        for number in range(5):
            add(f"# {number}", external_id=str(number))
    assert len(asked) == 1
    assert OutboxEntry.objects.filter(sent_at=None).count() == 5


def test_copies_that_killed_workers_left_are_removed_when_old(
    tmp_path: Path, settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings.TEMP_DIR = tmp_path
    monkeypatch.setattr(recovery.tempfile, "tempdir", str(tmp_path))  # type: ignore[attr-defined]
    for name, age in (("knowledge-parse-old", 7200), ("knowledge-parse-new", 60), ("mine", 7200)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "original").write_text("secret")
        os.utime(tmp_path / name, (time.time() - age,) * 2)
    assert recovery.remove_workplaces() == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["knowledge-parse-new", "mine"]
