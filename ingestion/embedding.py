"""Vectors for the chunks of one version that have none yet. Safe to repeat and to interrupt."""

from __future__ import annotations

from collections.abc import Callable
from uuid import UUID

from assistant import engines
from assistant.retrieval import index
from ingestion.leases import LeaseLost

# Texts per request. The embedding server batches across requests, so several jobs at once fill it.
BATCH = 64


def embed_missing(
    version_id: UUID, *, report: Callable[[int, int], None], should_stop: Callable[[], bool]
) -> int:
    """Embed and store what is missing; returns how many chunks were embedded.

    Raises EngineError when the embedder does not answer, LeaseLost when the job is no longer ours.
    """
    embedder = engines.embedder()
    space = index.active_space(embedder.spec)
    total, embedded = index.count_chunks(version_id), 0
    while batch := index.chunks_without_vector(version_id, space=space, limit=BATCH):
        if should_stop():
            raise LeaseLost
        vectors = embedder.embed([chunk.embed_text for chunk in batch], kind="passage")
        index.store_vectors(batch, vectors, space=space)
        embedded += len(batch)
        report(total - index.count_without_vector(version_id, space=space), total)
    return embedded
