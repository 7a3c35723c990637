"""Measure retrieval on a folder in BEIR layout: corpus.jsonl, queries.jsonl, qrels.tsv."""

from __future__ import annotations

import argparse
import io
import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from time import perf_counter, sleep
from typing import Any
from uuid import UUID

from django.core.management.base import BaseCommand, CommandError
from tqdm import tqdm

from assistant.database import release_connection
from assistant.documents.actions import Upload, create_collection
from assistant.documents.models import Collection, Document
from assistant.retrieval import search
from assistant.retrieval.evaluation import read_jsonl, read_judgements, score
from assistant.users.models import User
from ingestion import pipeline
from ingestion.actions import accept_upload
from ingestion.models import OPEN_STATUSES, IngestionJob, JobStatus

THREADS = 6
# Passages asked for: several may be of one document, and recall@100 needs 100 documents.
DEPTH = 400


class Command(BaseCommand):
    help = "Index a BEIR-layout folder when absent and print nDCG, recall, MRR and latency."

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("folder", type=Path, metavar="DIR")
        parser.add_argument("--collection", help="default: the folder's name")
        parser.add_argument("--mode", choices=["hybrid", "vector", "keyword"], default="hybrid")
        parser.add_argument("--json", action="store_true", help="print one JSON object")

    def handle(self, *args: Any, **options: Any) -> None:
        folder: Path = options["folder"]
        for name in ("corpus.jsonl", "queries.jsonl", "qrels.tsv"):
            if not (folder / name).is_file():
                raise CommandError(f"{folder} has no {name}; it is not a BEIR-layout folder.")
        actor = User.objects.filter(is_superuser=True, is_active=True).first()
        if actor is None:
            raise CommandError("There is no administrator yet; run `manage.py ensure_admin`.")
        name = options["collection"] or f"Evaluation: {folder.resolve().name}"
        collection = _collection(name, actor)
        _index(collection, folder, actor, quiet=options["json"])
        judgements = read_judgements(folder / "qrels.tsv")
        queries = {
            row["_id"]: row["text"]
            for row in read_jsonl(folder / "queries.jsonl")
            if row["_id"] in judgements
        }
        rankings, latencies = {}, []
        for query_id, text in tqdm(
            queries.items(), desc="searching", disable=options["json"] or None
        ):
            started = perf_counter()
            result = search(
                text, user=actor, collections=[collection.pk], limit=DEPTH, mode=options["mode"]
            )
            latencies.append((perf_counter() - started) * 1000)
            ids = (passage.external_id or "" for passage in result.passages)
            rankings[query_id] = list(dict.fromkeys(ids))
        figures = asdict(score(rankings, judgements, latencies_ms=latencies))
        if options["json"]:
            named = {"set": folder.resolve().name, "mode": options["mode"], **figures}
            self.stdout.write(json.dumps(named))
            return
        for label, value in figures.items():
            self.stdout.write(f"{label.replace('_', ' '):<18}{value:>10.4g}")


def _collection(name: str, actor: User) -> Collection:
    found = Collection.objects.for_user(actor).filter(name=name).first()
    return found or create_collection(
        name=name, description="Made by manage.py evaluate.", actor=actor
    )


def _index(collection: Collection, folder: Path, actor: User, *, quiet: bool) -> None:
    """Bring what is missing through the real pipeline, in this process, beside any workers."""
    have = set(
        Document.objects.filter(collection=collection, current_version__isnull=False).values_list(
            "external_id", flat=True
        )
    )
    missing = [row for row in read_jsonl(folder / "corpus.jsonl") if row["_id"] not in have]
    with ThreadPoolExecutor(THREADS) as pool:
        jobs = pool.map(lambda row: _ingest(collection.pk, row, actor), missing)
        hidden = quiet or not missing or None
        for _ in tqdm(jobs, total=len(missing), desc="indexing", disable=hidden):
            pass
    _finish(collection)
    failed = _failures(collection)
    if failed:
        raise CommandError(f"{len(failed)} documents could not be indexed: {failed[0]}")


def _ingest(collection_id: UUID, row: dict[str, Any], actor: User) -> None:
    try:
        title = row.get("title", "")
        version = accept_upload(
            collection_id,
            Upload(
                content=io.BytesIO(row["text"].encode() or title.encode()),
                filename=f"{row['_id'].replace('/', '_')}.txt",
                media_type="text/plain",
                title=title or row["_id"],
                external_id=row["_id"],
            ),
            actor=actor,
        )
        pipeline.parse_and_chunk(version.job.pk)
        pipeline.embed_and_publish(version.job.pk)
    finally:
        release_connection()


def _finish(collection: Collection) -> None:
    """Wait for documents that another thread or a worker took along."""
    open_jobs = IngestionJob.objects.filter(
        version__document__collection=collection, status__in=OPEN_STATUSES
    )
    while job := open_jobs.first():
        pipeline.parse_and_chunk(job.pk)
        pipeline.embed_and_publish(job.pk)
        sleep(0.2)


def _failures(collection: Collection) -> Sequence[str]:
    return list(
        Document.objects.filter(
            collection=collection, latest_version__job__status=JobStatus.FAILED
        ).values_list("latest_version__job__error_detail", flat=True)
    )
