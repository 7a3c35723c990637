"""End-to-end ingestion against bare sentence-transformers on the same texts.

    python -m benchmarks.ingestion [--documents 240]

Starts a site, uploads Markdown pages over REST, and takes the time from the first request until
the last document is ready: upload, storage, sandboxed parsing, chunking, indexing, embedding and
publishing. Then, with the site stopped, embeds the texts of the same chunks by a bare
``SentenceTransformer.encode`` with batch 32, in bf16 where the CPU has it and in fp32, in a process
of its own. Prints chunks per second of each and their ratio; the ratio is what counts on a shared
machine. The first parse of a fresh site loads the parser; one page is sent ahead so that this is
not measured.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time

import psycopg

from benchmarks._site import Site, documents, peak_memory, running_site, upload

BARE = """
import json, sys, time
import torch
from sentence_transformers import SentenceTransformer
from inference.embedding_models import resolve_model
from inference.serving.encoder import cpu_has_bf16
texts = json.load(sys.stdin)
model = SentenceTransformer(resolve_model("").source, device="cpu")
for name in ("bf16", "fp32"):
    if name == "bf16" and not cpu_has_bf16():
        continue
    model = model.to(torch.bfloat16 if name == "bf16" else torch.float32)
    model.encode(texts[:32], batch_size=32)
    started = time.perf_counter()
    model.encode(texts, batch_size=32, normalize_embeddings=True)
    print(json.dumps([name, len(texts) / (time.perf_counter() - started)]))
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--documents", type=int, default=240)
    count: int = parser.parse_args().documents
    with running_site() as site:
        wait(site, upload(site, documents(1)), 1)
        started = time.perf_counter()
        collection = upload(site, documents(count))
        wait(site, collection, count)
        seconds = time.perf_counter() - started
        texts = chunk_texts(site, collection)
        peaks = peak_memory(site.process)
    ours = len(texts) / seconds
    print(f"{count} documents, {len(texts)} chunks in {seconds:.1f} s")
    print(f"end to end            {ours:8.1f} chunks/s")
    bare = subprocess.run(
        [sys.executable, "-c", BARE],
        input=json.dumps(texts),
        capture_output=True,
        text=True,
        check=True,
    )
    for line in bare.stdout.splitlines():
        if line.startswith("["):
            name, rate = json.loads(line)
            print(f"bare encode {name}      {rate:8.1f} chunks/s   ratio {ours / rate:.2f}")
    print("peak memory           " + ", ".join(f"{name} {mib} MiB" for name, mib in peaks.items()))


def wait(site: Site, collection: str, count: int) -> None:
    """Until every document of ``collection`` has ended; fails when one failed."""
    statement = """
        SELECT j.status, count(*) FROM ingestion_ingestionjob j
        JOIN documents_documentversion v ON v.id = j.version_id
        JOIN documents_document d ON d.id = v.document_id
        WHERE d.collection_id = %s GROUP BY 1
    """
    with psycopg.connect(site.services["database_url"], autocommit=True) as connection:
        while True:
            states: dict[str, int] = dict(connection.execute(statement, [collection]).fetchall())
            if states.get("failed"):
                raise SystemExit(f"{states['failed']} documents failed.")
            if states.get("ready", 0) == count:
                return
            time.sleep(0.1)


def chunk_texts(site: Site, collection: str) -> list[str]:
    """What was embedded, in the order it was stored."""
    statement = """
        SELECT concat_ws(E'\\n', nullif(context, ''), text) FROM retrieval_chunk
        WHERE collection_id = %s ORDER BY id
    """
    with psycopg.connect(site.services["database_url"]) as connection:
        return [row[0] for row in connection.execute(statement, [collection]).fetchall()]


if __name__ == "__main__":
    main()
