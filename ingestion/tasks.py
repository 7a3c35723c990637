"""Doors for Celery: each resolves an id and calls the room behind it."""

from __future__ import annotations

import time
from uuid import UUID

from celery import shared_task

from assistant.documents import actions as documents
from assistant.documents import storage
from assistant.retrieval import reanalysis, reembedding
from ingestion import outbox, pipeline, recovery, workers


@shared_task(name="ingestion.tasks.parse_version")
def parse_version(job_id: str) -> None:
    pipeline.parse_next(UUID(job_id))


@shared_task(name="ingestion.tasks.embed_version")
def embed_version(job_id: str) -> None:
    pipeline.embed_next(UUID(job_id))


@shared_task(name="ingestion.tasks.relay_outbox")
def relay_outbox() -> None:
    outbox.relay()


@shared_task(name="ingestion.tasks.sweep_jobs")
def sweep_jobs() -> None:
    recovery.sweep()
    outbox.forget_sent()
    workers.forget_silent()


@shared_task(name=workers.PROBE_TASK)
def show_life() -> None:
    """Its arrival is its effect: see ``assistant.celery``."""


@shared_task(name="ingestion.tasks.purge_originals")
def purge_originals() -> None:
    documents.purge_originals()


@shared_task(name="ingestion.tasks.remove_strays")
def remove_strays() -> None:
    """One folder of the storage a minute, all of them in about four hours."""
    documents.remove_strays(folder=int(time.time() / 60) % storage.FOLDERS)


@shared_task(name="ingestion.tasks.continue_reembedding")
def continue_reembedding() -> None:
    reembedding.fill()


@shared_task(name="ingestion.tasks.renew_analysis")
def renew_analysis() -> None:
    reanalysis.renew(seconds=5)
