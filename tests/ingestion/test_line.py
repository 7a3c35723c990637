"""Whose turn it is: attached files first, everybody in each round, and nobody lost on the way."""

from __future__ import annotations

import io
import os
import random
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from urllib.parse import urlsplit
from uuid import UUID, uuid4

import pytest
from celery.exceptions import Reject
from django.db import connection
from django.db.models.functions import Now

from assistant.documents.actions import Upload, create_private_collection
from assistant.users.models import User
from ingestion import leases, slots, workers
from ingestion.actions import accept_upload, cancel_jobs, retry_jobs
from ingestion.leases import Claim
from ingestion.models import IngestionJob, JobStatus, OutboxEntry
from ingestion.progress import progress_of
from tests.factories import make_collection, make_user

pytestmark = pytest.mark.django_db
PARSE = {"waiting": JobStatus.QUEUED, "working": JobStatus.PARSING}
EMBED = {"waiting": JobStatus.EMBEDDING, "working": JobStatus.EMBEDDING}


def send(
    count: int, name: str, *, by: User, batch: UUID | None = None, into: UUID | None = None
) -> list[IngestionJob]:
    """``count`` uploads; their titles are ``name`` and a number from 0."""
    place = into or make_collection(contributors=[by]).pk
    jobs = []
    for number in range(count):
        content = io.BytesIO(f"# {name} {number}\n\nWords of {name} {number}.".encode())
        upload = Upload(
            content=content, filename=f"{name}.md", media_type="", title=f"{name}{number}"
        )
        version = accept_upload(place, upload, actor=by, batch=batch)
        jobs.append(IngestionJob.objects.get(version=version))
    return jobs


def attach(count: int, name: str, *, by: User) -> list[IngestionJob]:
    return send(count, name, by=by, into=create_private_collection(name="Files", owner=by).pk)


def mail(count: int) -> list[IngestionJob]:
    """A batch of somebody else's, sent before."""
    return send(count, "mass", by=make_user(), batch=uuid4())


def title(claimed: Claim | None) -> str:
    assert claimed is not None
    found: str = IngestionJob.objects.get(pk=claimed.job_id).version.document.title
    return found


def turns(message_for: IngestionJob, count: int) -> list[str]:
    return [title(leases.claim_next(message_for.pk, **PARSE)) for _ in range(count)]


def test_an_attached_file_is_next_whatever_waits() -> None:
    first, *_ = mail(40)
    (file,) = attach(1, "offer", by=make_user())
    workers.sign("worker@test", workers.queues())
    assert progress_of([file])[file.pk].sentence == "Waiting next in line"
    assert turns(first, 2) == ["offer0", "mass0"]


def test_batches_take_turns_and_so_does_who_sends_one_by_one() -> None:
    first, *_ = mail(6)
    send(3, "b", by=make_user(), batch=uuid4())
    send(2, "single", by=make_user())
    assert " ".join(turns(first, 11)) == (
        "mass0 b0 single0 mass1 b1 single1 mass2 b2 mass3 mass4 mass5"
    )


def test_a_late_comer_enters_the_round_that_is_under_way() -> None:
    first, *_ = mail(6)
    turns(first, 3)
    send(2, "late", by=make_user(), batch=uuid4())
    assert " ".join(turns(first, 5)) == "mass3 late0 mass4 late1 mass5"


def test_where_embedding_is_behind_a_late_comer_is_in_time_for_it() -> None:
    jobs = mail(6)
    IngestionJob.objects.update(status=JobStatus.EMBEDDING)
    assert title(leases.claim_next(jobs[0].pk, **EMBED)) == "mass0"
    (late,) = send(1, "late", by=make_user())
    IngestionJob.objects.filter(pk=late.pk).update(status=JobStatus.EMBEDDING)
    taken = [title(leases.claim_next(late.pk, **EMBED)) for _ in range(3)]
    assert taken == ["mass1", "late0", "mass2"]


def test_ones_own_batch_does_not_hold_up_ones_next_file() -> None:
    person = make_user()
    first, *_ = send(6, "mine", by=person, batch=uuid4())
    send(1, "urgent", by=person, batch=uuid4())
    assert " ".join(turns(first, 4)) == "mine0 mine1 urgent0 mine2"


def test_a_batch_for_each_file_gains_nothing() -> None:
    person = make_user()
    first, *_ = [job for n in range(6) for job in send(1, f"own{n}-", by=person, batch=uuid4())]
    send(2, "other", by=make_user(), batch=uuid4())
    assert " ".join(turns(first, 4)) == "own0-0 other0 own1-0 other1"


def test_many_attached_files_do_not_starve_an_upload() -> None:
    first, *_ = mail(3)
    attach(25, "a", by=make_user())
    taken = turns(first, 28)
    assert [taken.index(f"mass{number}") for number in range(3)] == [10, 21, 27]


def test_the_place_that_is_told_is_the_order_of_the_claims() -> None:
    jobs = mail(5) + send(3, "b", by=make_user()) + attach(2, "a", by=make_user())
    assert leases.claim_next(jobs[0].pk, **PARSE) is not None
    waiting = list(IngestionJob.objects.filter(status=JobStatus.QUEUED))
    told = {
        shown.queue.ahead: job.version.document.title
        for job in waiting
        if (shown := progress_of(waiting)[job.pk]).queue is not None
    }
    assert sorted(told) == list(range(1, 10)), "behind the one that is being read"
    assert [told[place] for place in sorted(told)] == turns(jobs[0], 9)


def test_every_message_in_any_order_takes_one_and_all_are_taken() -> None:
    jobs = mail(8) + send(4, "b", by=make_user()) + attach(3, "a", by=make_user())
    messages = [entry.job_id for entry in OutboxEntry.objects.all()]
    random.Random(5).shuffle(messages)
    taken = [leases.claim_next(job_id, **PARSE) for job_id in messages]
    assert {claimed.job_id for claimed in taken if claimed} == {job.pk for job in jobs}
    assert leases.claim_next(messages[0], **PARSE) is None, "one that comes twice finds nothing"


def test_one_that_failed_waits_for_its_own_message() -> None:
    failed, other, third = mail(3)
    IngestionJob.objects.filter(pk=failed.pk).update(attempts=1, error_code="internal")
    OutboxEntry.objects.filter(job=failed).update(not_before=Now() + timedelta(seconds=60))
    assert turns(failed, 1) == ["mass1"], "a message from before the failure"
    OutboxEntry.objects.filter(job=failed).update(not_before=Now())
    assert turns(other, 1) == ["mass2"]
    assert leases.claim_next(third.pk, **PARSE) is None
    assert title(leases.claim_next(failed.pk, **PARSE)) == "mass0"


def test_what_is_tried_again_by_a_person_stands_at_the_end_of_its_batch() -> None:
    jobs = mail(4)
    cancel_jobs(jobs[:2], actor=make_user())
    retry_jobs(IngestionJob.objects.filter(pk__in=[job.pk for job in jobs[:2]]), actor=make_user())
    assert " ".join(turns(jobs[2], 4)) == "mass2 mass3 mass0 mass1"


def test_what_is_embedded_together_is_of_one_lane_and_not_too_much() -> None:
    mass, files = mail(6), attach(2, "a", by=make_user())
    IngestionJob.objects.update(status=JobStatus.EMBEDDING, stage_total=200)
    first = leases.claim_next(mass[0].pk, **EMBED)
    assert title(first) == "a0"
    assert first is not None
    more = leases.claim_more(first, JobStatus.EMBEDDING, limit=31, work=512)
    assert [title(claimed) for claimed in more] == ["a1"]
    first = leases.claim_next(files[0].pk, **EMBED)
    assert first is not None
    more = leases.claim_more(first, JobStatus.EMBEDDING, limit=31, work=512)
    assert sorted(map(title, more)) == ["mass1", "mass2", "mass3"]


def test_the_last_thread_is_kept_for_attached_files(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slots, "_for_all", threading.Semaphore(1))
    monkeypatch.setattr(slots, "_is_ending", False)
    first, second, third = mail(3)
    with slots.claimed(first.pk, **PARSE) as ordinary:
        assert title(ordinary) == "mass0"
        attach(1, "offer", by=make_user())
        with slots.claimed(second.pk, **PARSE) as hurried:
            assert title(hurried) == "offer0"
        threading.Timer(0.1, slots.end).start()
        with pytest.raises(Reject), slots.claimed(third.pk, **PARSE):
            pass


@contextmanager
def worker(log: Path) -> Iterator[None]:
    """The product's, with its queues and a fake embedder, on this test's database."""
    command = [
        *(sys.executable, "-m", "tests.ingestion.fake_embedder_worker", "worker"),
        *("-Q", "parse,embed,default", "-n", "line@%h", "--pool", "threads", "-c", "3"),
        *("--without-gossip", "--without-mingle", "--loglevel", "INFO"),
    ]
    database = urlsplit(os.environ["DATABASE_URL"])
    url = database._replace(path=f"/{connection.settings_dict['NAME']}").geturl()
    with log.open("wb") as output:
        process = subprocess.Popen(
            command,
            env={**os.environ, "DATABASE_URL": url},
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    try:
        yield
    finally:
        process.kill()
        process.wait()


@pytest.mark.django_db(transaction=True)
def test_a_real_worker_reads_an_attached_file_while_an_upload_waits(tmp_path: Path) -> None:
    mass = mail(200)
    (file,) = attach(1, "offer", by=make_user())
    deadline = time.monotonic() + 120
    log = tmp_path / "worker.log"
    with worker(log):
        while file.status != JobStatus.READY and time.monotonic() < deadline:
            time.sleep(0.2)
            file.refresh_from_db()
    assert (file.status, file.attempts) == (JobStatus.READY, 1), log.read_text()[-5000:]
    before = IngestionJob.objects.filter(
        pk__in=[job.pk for job in mass], finished_at__lte=file.finished_at
    )
    assert before.count() < len(mass) / 2
