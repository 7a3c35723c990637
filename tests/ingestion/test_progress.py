"""Place in the queue, time left, and what holds a file up, in words and numbers."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone
from pytest_django import DjangoAssertNumQueries

from assistant.documents.models import DocumentVersion
from ingestion import leases, outbox, progress, workers
from ingestion.actions import cancel_jobs
from ingestion.errors import FailureCode, IngestionError
from ingestion.failing import end_badly
from ingestion.models import IngestionJob, JobStatus, WorkerSign
from ingestion.progress import Place, about, progress_of
from tests.factories import make_collection, make_document, make_user

pytestmark = pytest.mark.django_db


@pytest.fixture
def at_work(db: None) -> None:
    workers.sign("worker@test", workers.queues())


def job_of(document: Any) -> IngestionJob:
    return IngestionJob.objects.get(version=document.latest_version_id)


def waiting(count: int = 1) -> list[IngestionJob]:
    """Uploads into different collections, one after the other."""
    return [job_of(make_document(make_collection(), ready=False)) for _ in range(count)]


def finished(count: int, *, chunks: int, seconds: float, ended: float = 0.0) -> None:
    """``count`` files of 100 bytes, one after the other, each ``chunks`` and ``seconds`` long."""
    now = timezone.now() - timedelta(seconds=ended)
    for number in range(count):
        job = job_of(make_document(make_collection()))
        end = now - timedelta(seconds=number * seconds)
        IngestionJob.objects.filter(pk=job.pk).update(
            started_at=end - timedelta(seconds=seconds), finished_at=end
        )
        DocumentVersion.objects.filter(pk=job.version_id).update(chunk_count=chunks, size=100)


def of(job: IngestionJob) -> progress.Progress:
    job.refresh_from_db()
    return progress_of([job])[job.pk]


def test_the_place_counts_every_open_file_that_came_before(at_work: None) -> None:
    first, second, third = waiting(3)
    IngestionJob.objects.filter(pk=first.pk).update(status=JobStatus.EMBEDDING)
    make_document(make_collection())  # ready: in nobody's way
    assert of(third).queue == Place(ahead=2, eta_seconds=None)
    assert of(third).sentence == "Waiting behind 2 others"
    cancel_jobs([second], actor=make_user())
    assert of(third).sentence == "Waiting behind 1 other"
    IngestionJob.objects.filter(pk=first.pk).update(status=JobStatus.READY)
    assert of(third).sentence == "Waiting next in line"
    assert of(first).queue is None


def test_no_time_is_told_when_nothing_was_measured(at_work: None) -> None:
    finished(2, chunks=10, seconds=1)
    (job,) = waiting()
    assert progress.throughput() is None
    assert of(job).queue == Place(ahead=0, eta_seconds=None)
    finished(3, chunks=10, seconds=1, ended=3600)
    assert progress.throughput() is None


def test_the_time_left_follows_from_what_was_finished(at_work: None) -> None:
    finished(5, chunks=10, seconds=2)
    jobs = waiting(3)
    DocumentVersion.objects.filter(job__in=jobs).update(size=400)
    measured = progress.throughput()
    assert measured is not None
    assert measured.chunks_per_second == pytest.approx(5, rel=0.01)
    # 400 bytes are 40 chunks of this type, and 8 seconds each.
    assert [of(job).queue for job in jobs] == [Place(0, 8), Place(1, 16), Place(2, 24)]
    assert progress.eta_of(jobs[-1].pk) == 24
    IngestionJob.objects.filter(pk=jobs[0].pk).update(
        status=JobStatus.EMBEDDING, stage_done=30, stage_total=40
    )
    assert of(jobs[1]).queue == Place(1, 10)


def test_idle_times_are_no_slow_times(at_work: None) -> None:
    finished(3, chunks=10, seconds=2)
    finished(3, chunks=10, seconds=2, ended=300)
    measured = progress.throughput()
    assert measured is not None
    assert measured.chunks_per_second == pytest.approx(5, rel=0.01)


def test_a_rate_of_good_times_sinks_while_workers_are_stuck(at_work: None) -> None:
    finished(5, chunks=10, seconds=2)
    (job,) = waiting()
    IngestionJob.objects.filter(pk=job.pk).update(
        status=JobStatus.PARSING,
        lease_owner="somebody",
        started_at=timezone.now() - timedelta(seconds=100),
    )
    measured = progress.throughput()
    assert measured is not None
    assert measured.chunks_per_second == pytest.approx(0.5, rel=0.02)


def test_stages_are_said_with_what_is_done(at_work: None) -> None:
    (job,) = waiting()
    for values, words in (
        ({"status": "parsing", "stage_done": 3, "stage_total": 20}, "Reading page 3 of 20"),
        ({"status": "parsing", "stage_done": 0, "stage_total": 0}, "Reading"),
        ({"status": "embedding", "stage_done": 3, "stage_total": 9}, "Indexing 3 of 9"),
        ({"status": "embedding", "stage_done": 0, "stage_total": 9}, "Waiting to be indexed"),
        ({"status": "embedding", "lease_owner": "somebody"}, "Indexing 0 of 9"),
        ({"status": "ready"}, "Ready"),
        ({"status": "failed"}, "Failed"),
        ({"status": "cancelled"}, "Cancelled"),
    ):
        IngestionJob.objects.filter(pk=job.pk).update(**values)
        assert of(job).words == words


def test_a_second_attempt_is_announced_with_its_reason(at_work: None) -> None:
    (job,) = waiting()
    claimed = leases.claim(job.pk, waiting=JobStatus.QUEUED, working=JobStatus.PARSING)
    assert claimed is not None
    end_badly([claimed], IngestionError(FailureCode.INTERNAL))
    again = of(job).again
    assert again is not None
    assert 1 <= again.seconds <= 5
    assert (again.attempt, again.attempts) == (2, 3)
    assert of(job).note.endswith("s (attempt 2 of 3): Something went wrong on our side.")
    assert of(job).words == "Waiting"
    leases.claim(job.pk, waiting=JobStatus.QUEUED, working=JobStatus.PARSING)
    assert of(job).again is None


def test_without_a_worker_that_is_what_is_said() -> None:
    (job,) = waiting()
    finished(5, chunks=10, seconds=2)
    found = of(job)
    assert found.blocked is not None
    assert found.blocked.code == "no_worker"
    assert found.note.startswith("No worker is running. Nothing is lost")
    assert found.queue == Place(ahead=0, eta_seconds=None)
    workers.sign("embedder@test", ["embed"])
    assert of(job).note.startswith("No worker is running that reads files.")
    WorkerSign.objects.all().delete()
    workers.sign("parser@test", ["parse"])
    assert of(job).blocked is None
    IngestionJob.objects.filter(pk=job.pk).update(status=JobStatus.EMBEDDING)
    assert "that indexes files" in of(job).note
    IngestionJob.objects.filter(pk=job.pk).update(lease_owner="somebody")
    assert of(job).blocked is None
    WorkerSign.objects.all().delete()
    IngestionJob.objects.filter(pk=job.pk).update(status=JobStatus.FAILED, lease_owner="")
    assert of(job).blocked is None


def test_without_a_broker_that_is_what_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    (job,) = waiting()
    monkeypatch.setattr(workers, "broker_answers", lambda: False)
    found = of(job).blocked
    assert found is not None
    assert found.code == "broker_unreachable"


def test_the_broker_is_not_asked_while_workers_work(
    at_work: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workers, "broker_answers", lambda: pytest.fail("asked"))
    assert of(waiting()[0]).blocked is None


def test_the_cost_does_not_grow_with_the_jobs(
    at_work: None, django_assert_num_queries: DjangoAssertNumQueries
) -> None:
    finished(3, chunks=10, seconds=1)
    ready = job_of(make_document(make_collection()))
    with django_assert_num_queries(0):
        progress_of([ready])
    few = waiting(2)
    with django_assert_num_queries(4):
        progress_of(few)
    many = waiting(10)
    outbox.add(many[0], outbox.PARSE_TASK)
    with django_assert_num_queries(4):
        assert len(progress_of(many)) == 10


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (None, ""),
        (0, "a few seconds"),
        (24, "about 20 seconds"),
        (57, "about 1 minute"),
        (200, "about 3 minutes"),
        (3550, "about 1 hour"),
        (7300, "about 2 hours"),
        (86000, "about 1 day"),
        (200000, "about 2 days"),
    ],
)
def test_time_is_said_as_people_do(seconds: int | None, words: str) -> None:
    assert about(seconds) == words
