"""Doors for Celery: each resolves an id and calls the room behind it."""

from __future__ import annotations

from uuid import UUID

from celery import shared_task

from assistant.documents import actions as documents
from ingestion import outbox, pipeline


@shared_task(name="ingestion.tasks.parse_version")
def parse_version(job_id: str) -> None:
    pipeline.parse_and_chunk(UUID(job_id))


@shared_task(name="ingestion.tasks.embed_version")
def embed_version(job_id: str) -> None:
    pipeline.embed_and_publish(UUID(job_id))


@shared_task(name="ingestion.tasks.relay_outbox")
def relay_outbox() -> None:
    outbox.relay()
    outbox.forget_sent()


@shared_task(name="ingestion.tasks.sweep_jobs")
def sweep_jobs() -> None:
    pipeline.sweep()


@shared_task(name="ingestion.tasks.purge_originals")
def purge_originals() -> None:
    documents.purge_originals()
