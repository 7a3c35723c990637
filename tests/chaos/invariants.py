"""What must hold after every fault, asked of PostgreSQL, the broker, the disk and the search."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

import httpx

from tests.chaos.corpus import Item
from tests.chaos.site import Site

_DOCUMENTS = """
    SELECT d.external_id, d.id, j.status, j.error_code, j.error_detail, j.attempts, j.lease_owner,
           d.current_version_id = v.id, count(c.id), count(e.id),
           count(DISTINCT c.ordinal), coalesce(max(c.ordinal) + 1, 0),
           (SELECT count(*) FROM documents_documentversion o WHERE o.document_id = d.id)
    FROM documents_document d
    JOIN documents_documentversion v ON v.id = d.latest_version_id
    JOIN ingestion_ingestionjob j ON j.version_id = v.id
    LEFT JOIN retrieval_chunk c ON c.version_id = v.id
    LEFT JOIN retrieval_embedding e ON e.chunk_id = c.id
    WHERE d.collection_id = %s AND d.deleted_at IS NULL
    GROUP BY d.id, j.id, v.id
"""
_ORPHANS = {
    "chunks of versions that nobody answers with": """
        SELECT count(*) FROM retrieval_chunk c
        LEFT JOIN documents_document d ON d.current_version_id = c.version_id
        WHERE d.id IS NULL""",
    "vectors without chunk": """
        SELECT count(*) FROM retrieval_embedding e
        LEFT JOIN retrieval_chunk c ON c.id = e.chunk_id WHERE c.id IS NULL""",
    "vectors in the wrong collection": """
        SELECT count(*) FROM retrieval_embedding e
        JOIN retrieval_chunk c ON c.id = e.chunk_id WHERE e.collection_id <> c.collection_id""",
    "versions without job": """
        SELECT count(*) FROM documents_documentversion v
        LEFT JOIN ingestion_ingestionjob j ON j.version_id = v.id WHERE j.id IS NULL""",
    "leases": "SELECT count(*) FROM ingestion_ingestionjob WHERE lease_owner <> ''",
    "open jobs": """
        SELECT count(*) FROM ingestion_ingestionjob
        WHERE status IN ('queued', 'parsing', 'embedding')""",
    "unsent messages": "SELECT count(*) FROM ingestion_outboxentry WHERE sent_at IS NULL",
}


def chunk_counts(site: Site, collection: str) -> dict[str, int]:
    """By external id: the oracle, when nothing was hurt."""
    return {row[0]: row[8] for row in site.rows(_DOCUMENTS, collection)}


def violations(
    site: Site,
    collection: str,
    corpus: Sequence[Item],
    statuses: Mapping[str, int],
    oracle: Mapping[str, int],
) -> list[str]:
    """Every invariant that does not hold, in words; empty when all do."""
    rows = {row[0]: row for row in site.rows(_DOCUMENTS, collection)}
    found: list[str] = []
    for item in corpus:
        accepted = statuses.get(item.external_id) == 202
        if accepted and item.external_id not in rows:
            found.append(f"I1 {item.external_id}: acknowledged, but lost")
        elif not accepted and not item.is_poison:
            found.append(f"I1 {item.external_id}: never accepted ({statuses[item.external_id]})")
        elif item.external_id in rows:
            found += _document(item, rows[item.external_id], oracle)
    found += [
        f"{'I5' if name in ('leases', 'open jobs', 'unsent messages') else 'I3'} {count} {name}"
        for name, statement in _ORPHANS.items()
        if (count := site.one(statement))
    ]
    ready = [(item, rows[item.external_id][1]) for item in corpus if item.external_id in rows]
    if missing := _files(site)[1]:
        found.append(f"I3 {len(missing)} rows without file")
    found += _canaries(site, collection, [pair for pair in ready if pair[0].canary])
    found += [f"web {text}" for text, _ in Counter(site.strange).most_common(5)]
    return found


def _document(item: Item, row: tuple[object, ...], oracle: Mapping[str, int]) -> list[str]:
    name = item.external_id
    _, _, status, code, detail, attempts, _, current, chunks, vectors, ordinals, last, versions = (
        row
    )
    found: list[str] = []
    if versions != 1:
        found.append(f"I2 {name}: {versions} versions of one upload")
    if item.is_poison:
        if status != "failed" or code not in item.codes or not detail:
            found.append(f"I1 {name}: {status} {code}, expected failed {item.codes}")
        if chunks:
            found.append(f"I3 {name}: failed, with {chunks} chunks")
        # Three by itself; as often as not it was its worker or reader that somebody killed.
        if not isinstance(attempts, int) or attempts > 9:
            found.append(f"I1 {name}: {attempts} attempts")
        return found
    if status != "ready" or not current:
        found.append(f"I1 {name}: {status} {code} after {attempts} attempts, current: {current}")
    elif not (chunks == vectors == ordinals == last == oracle.get(name, chunks)) or not chunks:
        found.append(
            f"I2 {name}: {chunks} chunks, {vectors} vectors, {ordinals} ordinals up to {last},"
            f" expected {oracle.get(name)}"
        )
    return found


def strays(site: Site) -> int:
    """Originals that a killed process left before its commit; swept when they are an hour old."""
    return len(_files(site)[0])


def _files(site: Site) -> tuple[set[str], set[str]]:
    """Files that no row names, and rows whose file is not there."""
    media = site.data_dir / "media"
    there = {str(path.relative_to(media)) for path in media.rglob("*") if path.is_file()}
    named = {key for (key,) in site.rows("SELECT storage_key FROM documents_documentversion")}
    leaving = {key for (key,) in site.rows("SELECT storage_key FROM documents_pendingfileremoval")}
    return there - named - leaving, named - there


def _canaries(site: Site, collection: str, ready: Sequence[tuple[Item, object]]) -> list[str]:
    def missed(api: httpx.Client, item: Item, document: object) -> str | None:
        body = {"query": item.canary, "collections": [collection], "mode": "keyword", "limit": 1}
        answer = api.post("/search/", json=body)
        results = answer.json().get("results", [])
        if results and results[0]["document"]["id"] == str(document):
            return None
        return f"I4 {item.external_id}: not found by its canary ({answer.status_code})"

    with site.client() as api, ThreadPoolExecutor(4) as pool:
        misses = pool.map(lambda pair: missed(api, *pair), ready)
        return [miss for miss in misses if miss]
