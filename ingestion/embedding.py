"""Vectors for chunks that have none yet, across documents. Safe to repeat and to interrupt."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable

from assistant import engines
from assistant.retrieval import index
from ingestion.leases import Claim, LeaseLost

# Texts per request; the embedding server sorts them by length and cuts its own batches.
BATCH = 256


def embed_missing(
    claims: Iterable[Claim],
    *,
    is_lost: Callable[[Claim], bool],
    when_complete: Callable[[Claim], None],
) -> None:
    """Embed and store what the claimed versions miss; ``when_complete`` is called for each of them.

    Claims that are lost on the way are left alone. Raises EngineError when the embedder does not
    answer; what was stored until then stays.
    """
    embedder = engines.embedder()
    space = index.active_space(embedder.spec)
    open_claims = {claimed.version_id: claimed for claimed in claims}
    missing = index.count_without_vector(open_claims, space=space)
    totals = index.count_chunks(open_claims)
    batch: list[index.PendingChunk] = []
    while True:
        done_now = Counter(chunk.version_id for chunk in batch)
        for version_id, claimed in list(open_claims.items()):
            missing[version_id] -= done_now[version_id]
            try:
                if is_lost(claimed):
                    raise LeaseLost
                if missing[version_id] <= 0:
                    when_complete(claimed)
                elif done_now[version_id]:
                    total = totals[version_id]
                    claimed.report(total - missing[version_id], total)
                    continue
                else:
                    continue
            except LeaseLost:
                pass
            del open_claims[version_id]
        batch = index.chunks_without_vector(open_claims, space=space, limit=BATCH)
        if not batch:
            return
        vectors = embedder.embed([chunk.embed_text for chunk in batch], kind="passage")
        index.store_vectors(batch, vectors, space=space)
