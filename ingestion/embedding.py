"""Vectors for chunks that have none yet, across documents. Safe to repeat and to interrupt."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress

from assistant import engines
from assistant.retrieval import index, spaces
from ingestion.leases import Claim, LeaseLost

# Texts per request; the embedding server sorts them by length and cuts its own batches.
BATCH = 256


def embed_missing(
    claims: Iterable[Claim],
    *,
    is_lost: Callable[[Claim], bool],
    publish: Callable[[Sequence[Claim]], list[Claim]],
) -> list[Claim]:
    """Embed and store what the claimed versions miss, and publish each once it is whole.

    Claims that are lost on the way are left alone. Returns those that ``publish`` gave back because
    another model's vectors are needed since. Raises EngineError when the embedder does not answer;
    what was stored until then stays.
    """
    space = spaces.ensure_active(engines.embedder().spec)
    embedder = spaces.embedder_of(space)
    open_claims = {claimed.version_id: claimed for claimed in claims}
    missing = index.count_without_vector(open_claims, space=space)
    totals = index.count_chunks(open_claims)
    batch: list[index.PendingChunk] = []
    outdated: list[Claim] = []
    while True:
        done_now = Counter(chunk.version_id for chunk in batch)
        missing.subtract(done_now)
        whole: list[Claim] = []
        for version_id, claimed in list(open_claims.items()):
            if is_lost(claimed):
                del open_claims[version_id]
            elif missing[version_id] <= 0:
                whole.append(claimed)
                del open_claims[version_id]
            elif done_now[version_id]:
                with suppress(LeaseLost):  # is_lost tells at the next round
                    claimed.report(totals[version_id] - missing[version_id], totals[version_id])
        if whole:
            outdated += publish(whole)
        batch = index.chunks_without_vector(open_claims, space=space, limit=BATCH)
        if not batch:
            return outdated
        vectors = embedder.embed([chunk.embed_text for chunk in batch], kind="passage")
        index.store_vectors(batch, vectors, space=space)
