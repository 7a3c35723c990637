"""Whether a document costs the same on an empty site and on a full one.

    python -m benchmarks.scale [--sizes 1000,10000,50000] [--documents 150]

Fills a site to each size with rows of the same shape as real ones (two chunks a document, random
unit vectors, through the real indexes), then sends further Markdown pages through the whole
pipeline and takes the time until the last is ready. Prints documents per second and CPU seconds
per document (all processes of the site; the steadier figure on a machine that others use too) at
each size, their ratios to the smallest, and the peak memory of each process.
"""

from __future__ import annotations

import argparse
import time

import psycopg

from assistant.retrieval import analysis
from benchmarks._site import Site, cpu_seconds, documents, peak_memory, running_site, upload
from benchmarks.ingestion import wait

_FILL = """
WITH made AS (
    SELECT gen_random_uuid() AS document, gen_random_uuid() AS version, n
    FROM generate_series(%(start)s, %(stop)s - 1) AS n
), document AS (
    INSERT INTO documents_document
        (id, collection_id, external_id, path, title, source_url, metadata, current_version_id,
         latest_version_id, created_at, updated_at)
    SELECT document, %(collection)s, 'filler-' || n, '', 'Filler ' || n, '', '{}', version, version,
           now(), now() FROM made
), version AS (
    INSERT INTO documents_documentversion
        (id, document_id, number, sha256, size, media_type, filename, storage_key, parser, warnings,
         chunk_count, created_at, published_at)
    SELECT version, document, 1, md5(n::text) || md5(n::text), 500, 'text/markdown', 'filler.md',
           'originals/none/' || n, 'filler', '{}', 2, now(), now() FROM made
), job AS (
    INSERT INTO ingestion_ingestionjob
        (id, version_id, status, attempts, fence, lease_owner, stage_done, stage_total, error_code,
         error_detail, created_at, finished_at)
    SELECT gen_random_uuid(), version, 'ready', 1, 1, '', 2, 2, '', '', now(),
           now() - interval '1 hour' FROM made
), chunk AS (
    INSERT INTO retrieval_chunk
        (version_id, document_id, collection_id, ordinal, text, context, heading_path, char_start,
         char_end, content_hash, terms, term_count, analyser)
    SELECT version, document, %(collection)s, part, words, '', '{}', 0, length(words),
           sha256((n || ' ' || part)::bytea), to_tsvector('english', words), 40,
           %(analyser)s
    FROM made CROSS JOIN generate_series(0, 1) AS part CROSS JOIN LATERAL (
        SELECT string_agg('word' || (random() * 20000)::int, ' ') || ' ' || n AS words
        FROM generate_series(1, 40 + (n %% 2))
    ) AS text
    RETURNING id, content_hash
)
INSERT INTO retrieval_embedding (chunk_id, space_id, collection_id, content_hash, vector)
SELECT id, (SELECT id FROM retrieval_embeddingspace WHERE is_active), %(collection)s, content_hash,
       ARRAY(
           -- the id makes it another vector for each row
           SELECT random() - 0.5 + 0 * chunk.id FROM generate_series(1, %(width)s)
       )::real[]::vector::halfvec
FROM chunk
"""
_AT_ONCE = 1_000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--sizes", default="1000,10000,50000")
    parser.add_argument("--documents", type=int, default=150)
    arguments = parser.parse_args()
    sizes = [int(size) for size in arguments.sizes.split(",")]
    pages = iter(documents(arguments.documents * (len(sizes) + 1)))
    with running_site() as site:
        wait(site, upload(site, [next(pages)]), 1)
        filler = site.api.post("/collections/", json={"name": "Filler"}).raise_for_status().json()
        first: tuple[float, float] | None = None
        filled = 0
        for size in sizes:
            fill(site, filler["id"], filled, size)
            filled = size
            rows = [next(pages) for _ in range(arguments.documents)]
            started, used = time.perf_counter(), cpu_seconds(site.process)
            wait(site, upload(site, rows), len(rows))
            rate = len(rows) / (time.perf_counter() - started)
            cost = (cpu_seconds(site.process) - used) / len(rows)
            first = first or (rate, cost)
            print(
                f"{size:>8,} documents there"
                f"   {rate:6.2f} documents/s (ratio {rate / first[0]:.2f})"
                f"   {cost:.3f} CPU s/document (ratio {cost / first[1]:.2f})",
                flush=True,
            )
        peaks = peak_memory(site.process)
    print("peak memory: " + ", ".join(f"{name} {mib} MiB" for name, mib in peaks.items()))


def fill(site: Site, collection: str, start: int, stop: int) -> None:
    with psycopg.connect(site.services["database_url"], autocommit=True) as connection:
        row = connection.execute(
            """
            SELECT s.dimension, i.indexname, i.indexdef FROM retrieval_embeddingspace s
            JOIN pg_indexes i ON i.indexname = 'embedding_hnsw_' || s.id WHERE s.is_active
            """
        ).fetchone()
        assert row is not None
        # Building it anew is ten times faster than to insert random vectors one by one.
        connection.execute(f"DROP INDEX {row[1]}")
        for begin in range(start, stop, _AT_ONCE):
            values = {
                "collection": collection,
                "start": begin,
                "stop": min(stop, begin + _AT_ONCE),
                "width": row[0],
                "analyser": analysis.VERSION,
            }
            connection.execute(_FILL, values)
        connection.execute("SET maintenance_work_mem = '1GB'")
        connection.execute(row[2])
        connection.execute("ANALYZE")


if __name__ == "__main__":
    main()
