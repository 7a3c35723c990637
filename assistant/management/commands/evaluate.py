"""Measure retrieval on a folder in BEIR layout: corpus.jsonl, queries.jsonl, qrels.tsv."""

from __future__ import annotations

import argparse
import io
import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from time import perf_counter, sleep
from typing import Any
from uuid import UUID

from django.core.management.base import BaseCommand, CommandError
from django.utils import timezone
from tqdm import tqdm

from assistant import engines
from assistant.database import release_connection
from assistant.documents.actions import Upload, create_collection
from assistant.documents.models import Collection, Document
from assistant.retrieval import Mode, search
from assistant.retrieval.evaluation import (
    Difference,
    compare,
    ndcg_by_query,
    read_jsonl,
    read_judgements,
    score,
)
from assistant.retrieval.evaluation_history import Run, fingerprint, keep, runs
from assistant.users.models import User
from ingestion import pipeline
from ingestion.actions import accept_upload
from ingestion.models import OPEN_STATUSES, IngestionJob, JobStatus

THREADS = 6
# Passages asked for: several may be of one document, and recall@100 needs 100 documents.
DEPTH = 400


@dataclass(frozen=True, slots=True)
class Configuration:
    name: str
    mode: Mode
    rerank: bool


CONFIGURATIONS = {
    each.name: each
    for each in (
        Configuration("hybrid", "hybrid", rerank=False),
        Configuration("hybrid+rerank", "hybrid", rerank=True),
        Configuration("vector", "vector", rerank=False),
        Configuration("keyword", "keyword", rerank=False),
    )
}


@dataclass(slots=True)
class Measured:
    """Rankings by query and latencies in milliseconds of one configuration."""

    rankings: dict[str, list[str]] = field(default_factory=dict)
    latencies: list[float] = field(default_factory=list)


class Command(BaseCommand):
    help = (
        "Index a BEIR-layout folder when absent and print nDCG, recall, MRR and latency. With"
        " --compare, several configurations are measured on the same queries, and each is held"
        " against the first; with --against, against an earlier run."
    )

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("folder", type=Path, metavar="DIR", nargs="?")
        parser.add_argument("--collection", help="default: the folder's name")
        parser.add_argument("--mode", choices=["hybrid", "vector", "keyword"], default="hybrid")
        parser.add_argument(
            "--compare",
            metavar="A,B,...",
            help=f"configurations, the first is the yardstick: {', '.join(CONFIGURATIONS)}",
        )
        parser.add_argument("--against", metavar="RUN", help="an earlier run, see --history")
        parser.add_argument("--history", action="store_true", help="list the runs so far")
        parser.add_argument("--seed", type=int, default=20, help="of the bootstrap")
        parser.add_argument("--json", action="store_true", help="print one JSON object")

    def handle(self, *args: Any, **options: Any) -> None:
        if options["history"]:
            self._history(as_json=options["json"])
            return
        folder: Path | None = options["folder"]
        if folder is None:
            raise CommandError("Name a BEIR-layout folder, or ask for --history.")
        for name in ("corpus.jsonl", "queries.jsonl", "qrels.tsv"):
            if not (folder / name).is_file():
                raise CommandError(f"{folder} has no {name}; it is not a BEIR-layout folder.")
        configurations = _configurations(options)
        dataset = folder.resolve().name
        earlier = _earlier_run(options["against"], dataset) if options["against"] else None
        actor = User.objects.filter(is_superuser=True, is_active=True).first()
        if actor is None:
            raise CommandError("There is no administrator yet; run `manage.py ensure_admin`.")
        collection = _collection(options["collection"] or f"Evaluation: {dataset}", actor)
        _index(collection, folder, actor, quiet=options["json"])
        judgements = read_judgements(folder / "qrels.tsv")
        queries = {
            row["_id"]: row["text"]
            for row in read_jsonl(folder / "queries.jsonl")
            if row["_id"] in judgements
        }
        measured = _measure(configurations, queries, collection, actor, quiet=options["json"])
        at = timezone.now().isoformat(timespec="seconds")
        basis = fingerprint()
        found = [
            Run(
                at=at,
                dataset=dataset,
                configuration=configuration.name,
                fingerprint=basis,
                figures=asdict(score(each.rankings, judgements, latencies_ms=each.latencies)),
                scores=ndcg_by_query(each.rankings, judgements),
            )
            for configuration, each in zip(configurations, measured, strict=True)
        ]
        for run in found:
            keep(run)
        pairs = [(earlier or found[0], run) for run in (found if earlier else found[1:])]
        differences = [
            (first, run, compare(first.scores, run.scores, seed=options["seed"]))
            for first, run in pairs
        ]
        if options["json"]:
            self._print_json(found, differences, options)
        else:
            self._print_figures(found)
            self._print_differences(differences, queries)

    def _print_json(
        self, found: list[Run], differences: list[tuple[Run, Run, Difference]], options: Any
    ) -> None:
        first = found[0]
        named: dict[str, Any] = {"set": first.dataset, "mode": options["mode"], **first.figures}
        if len(found) > 1 or differences:
            named |= {
                "mode": CONFIGURATIONS[first.configuration].mode,
                "configurations": {run.configuration: run.figures for run in found},
                "differences": [
                    {"from": before.name, "to": after.configuration, **asdict(difference)}
                    for before, after, difference in differences
                ],
            }
        self.stdout.write(json.dumps(named))

    def _print_figures(self, found: list[Run]) -> None:
        if len(found) > 1:
            self.stdout.write(" " * 18 + "".join(f"{run.configuration:>15}" for run in found))
        width = 15 if len(found) > 1 else 10
        for label in found[0].figures:
            values = "".join(f"{run.figures[label]:>{width}.4g}" for run in found)
            self.stdout.write(f"{label.replace('_', ' '):<18}{values}")

    def _print_differences(
        self, differences: list[tuple[Run, Run, Difference]], queries: dict[str, str]
    ) -> None:
        for first, run, difference in differences:
            self.stdout.write(
                f"\nnDCG@10 of {run.configuration} minus {first.name}: {difference.mean:+.4f}"
                f" (95 % from {difference.low:+.4f} to {difference.high:+.4f},"
                f" p = {difference.p:.3g}, {difference.queries} queries)"
            )
            is_about_it = run.configuration == "hybrid+rerank" != first.configuration
            if is_about_it and difference.mean < 0:
                self.stdout.write(
                    "  The reranker lowers it: `manage.py calibrate` on judged questions learns how"
                    " much its word counts, or unset RERANKER_MODEL."
                )
            for loss in difference.losses:
                text = " ".join(queries.get(loss.query, "").split())[:70]
                self.stdout.write(f"  {loss.before:.3f} -> {loss.after:.3f}  {loss.query}  {text}")

    def _history(self, *, as_json: bool) -> None:
        for run in runs():
            if as_json:
                listed = {"run": run.name, **asdict(run)}
                del listed["scores"]
                self.stdout.write(json.dumps(listed))
                continue
            figures = run.figures
            basis = "  ".join(f"{name} {value}" for name, value in run.fingerprint.items() if value)
            self.stdout.write(
                f"{run.name}\n    nDCG@10 {figures['ndcg_at_10']:.4f}"
                f"  recall@100 {figures['recall_at_100']:.4f}"
                f"  p50 {figures['latency_p50_ms']:.0f} ms  {basis}"
            )


def _configurations(options: dict[str, Any]) -> list[Configuration]:
    """Raises CommandError for one that there is not, or that this site cannot run."""
    has_reranker = engines.reranker() is not None
    if not options["compare"]:
        mode = options["mode"]
        reranks = mode == "hybrid" and has_reranker
        return [CONFIGURATIONS["hybrid+rerank" if reranks else mode]]
    names = [name.strip() for name in options["compare"].split(",")]
    for name in names:
        if name not in CONFIGURATIONS:
            raise CommandError(f"There is no {name!r}. There are {', '.join(CONFIGURATIONS)}.")
        if CONFIGURATIONS[name].rerank and not has_reranker:
            raise CommandError("No reranker is set; see RERANKER_MODEL in docs/configuration.md.")
    if len(set(names)) < 2:
        raise CommandError("Name two configurations at least, such as --compare hybrid,keyword.")
    return [CONFIGURATIONS[name] for name in dict.fromkeys(names)]


def _earlier_run(name: str, dataset: str) -> Run:
    found = next((run for run in runs() if run.name == name), None)
    if found is None:
        raise CommandError(f"There is no run {name!r}; `manage.py evaluate --history` lists them.")
    if found.dataset != dataset:
        raise CommandError(f"That run was on {found.dataset}; only runs of one set compare.")
    return found


def _measure(
    configurations: list[Configuration],
    queries: dict[str, str],
    collection: Collection,
    actor: User,
    *,
    quiet: bool,
) -> list[Measured]:
    """Query by query through all configurations in turn, so that load meets them alike."""
    measured = [Measured() for _ in configurations]
    for query_id, text in tqdm(queries.items(), desc="searching", disable=quiet or None):
        for configuration, each in zip(configurations, measured, strict=True):
            started = perf_counter()
            result = search(
                text,
                user=actor,
                collections=[collection.pk],
                limit=DEPTH,
                mode=configuration.mode,
                rerank=configuration.rerank,
            )
            each.latencies.append((perf_counter() - started) * 1000)
            ids = (passage.external_id or "" for passage in result.passages)
            each.rankings[query_id] = list(dict.fromkeys(ids))
    return measured


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
