"""What ``manage.py doctor`` looks at. Each check says what it found and, if need be, what to do."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from datetime import timedelta
from pathlib import Path
from typing import Literal

import redis
from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.db import DatabaseError, connection
from django.db.migrations.executor import MigrationExecutor
from django.utils import timezone

from assistant import engines
from assistant.retrieval import calibration, reranking, row_security, spaces
from inference.types import EngineError
from ingestion import sandbox_site, workers
from ingestion.models import OPEN_STATUSES, IngestionJob, OutboxEntry

State = Literal["ok", "warning", "problem"]

_START = "Start it with `make run`, or check DATABASE_URL."
_FREE_BYTES = 2 * 1024**3
# The relay runs every three seconds; a message this old means that nobody relays.
_OUTBOX_AGE = timedelta(seconds=60)


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the report. ``advice`` is empty when there is nothing to do."""

    name: str
    state: State
    detail: str
    advice: str = ""

    def as_dict(self) -> dict[str, str]:
        return asdict(self)


def diagnose() -> Iterator[Finding]:
    """All findings, in the order in which a person should look at them. Never raises."""
    for name, check in _CHECKS.items():
        yield _guarded(name, check)


def _guarded(name: str, check: Callable[[str], Finding]) -> Finding:
    try:
        return check(name)
    except DatabaseError as error:
        return Finding(name, "problem", _first_line(error), _START)
    except (redis.RedisError, OSError) as error:
        return Finding(
            name, "problem", _first_line(error), "Start it with `make run`, or check REDIS_URL."
        )
    except (EngineError, ImproperlyConfigured) as error:
        return Finding(name, "problem", _first_line(error), "See docs/operations.md.")


def _database(name: str) -> Finding:
    with connection.cursor() as cursor:
        cursor.execute("SHOW server_version")
        version = cursor.fetchone()[0]
        cursor.execute("SELECT rolsuper OR rolbypassrls FROM pg_roles WHERE rolname = current_user")
        above_the_law = cursor.fetchone()[0]
    if above_the_law:
        return Finding(
            name,
            "warning",
            f"PostgreSQL {version}, reached with a role that no row security binds",
            "Use a role without SUPERUSER and BYPASSRLS in DATABASE_URL.",
        )
    return Finding(name, "ok", f"PostgreSQL {version}")


def _pgvector(name: str) -> Finding:
    with connection.cursor() as cursor:
        cursor.execute("SELECT extversion FROM pg_extension WHERE extname = 'vector'")
        row = cursor.fetchone()
    if row is None:
        return Finding(
            name, "problem", "not installed", "As database superuser: CREATE EXTENSION vector;"
        )
    version = tuple(int(part) for part in row[0].split("."))
    if version < (0, 8):
        return Finding(
            name, "problem", f"{row[0]} has no iterative scans", "Update pgvector to 0.8 or newer."
        )
    return Finding(name, "ok", row[0])


def _migrations(name: str) -> Finding:
    executor = MigrationExecutor(connection)
    plan = executor.migration_plan(executor.loader.graph.leaf_nodes())
    if plan:
        return Finding(name, "problem", f"{len(plan)} are not applied", "Run `manage.py prepare`.")
    return Finding(name, "ok", "all applied")


def _row_security(name: str) -> Finding:
    gap = row_security.find_gap()
    if gap is None:
        return Finding(name, "ok", f"holds: {row_security.READER_ROLE} reads what grants allow")
    if settings.ROW_SECURITY == "warn":
        return Finding(name, "warning", f"{gap.detail}; searches go on without it", gap.advice)
    return Finding(name, "problem", f"{gap.detail}; searches are refused", gap.advice)


def _broker(name: str) -> Finding:
    client = redis.Redis.from_url(
        settings.REDIS_URL, socket_timeout=5, socket_connect_timeout=5, decode_responses=True
    )
    with client:
        client.ping()
        server = client.info("server")
        version = server.get("valkey_version") or server.get("redis_version", "?")
        try:
            limits: dict[str | None, str | None] = client.config_get(
                "maxmemory-policy", "appendonly"
            )
        except redis.ResponseError:  # managed services often forbid CONFIG
            return Finding(name, "ok", f"answers ({version}); its settings cannot be read")
    if limits.get("maxmemory-policy") not in {None, "noeviction"}:
        return Finding(
            name,
            "problem",
            f"may drop messages to save memory ({limits['maxmemory-policy']})",
            "Set maxmemory-policy noeviction.",
        )
    if limits.get("appendonly") == "no":
        return Finding(
            name,
            "warning",
            "keeps nothing on disk: a restart delays open uploads and ends running answers",
            "Set appendonly yes.",
        )
    return Finding(name, "ok", f"answers ({version}), keeps its data")


def _workers(name: str) -> Finding:
    """By what they did, not by whether they answer: a worker can answer and consume nothing."""
    missing = workers.queues_without_worker()
    if missing and not workers.broker_answers():
        return Finding(
            name,
            "problem",
            "wait for the broker",
            "They go on by themselves when it is back.",
        )
    if missing:
        return Finding(
            name,
            "problem",
            f"nobody works on {', '.join(missing)}",
            "Start the workers (`make run` does) and see DATA_DIR/logs/worker-*.log.",
        )
    latest = max(seconds or 0 for seconds in workers.workers_alive().values())
    return Finding(name, "ok", f"all queues are served, as of {latest:.0f} s ago")


def _ingestion(name: str) -> Finding:
    now = timezone.now()
    late = OutboxEntry.objects.filter(sent_at=None, not_before__lt=now - _OUTBOX_AGE).count()
    lapsed = IngestionJob.objects.filter(
        status__in=OPEN_STATUSES,
        lease_until__lt=now - timedelta(seconds=2 * settings.JOB_LEASE_SECONDS),
    ).count()
    waiting = IngestionJob.objects.filter(status__in=OPEN_STATUSES).count()
    if late or lapsed:
        return Finding(
            name,
            "problem",
            f"{late} messages not relayed, {lapsed} jobs whose worker is gone not taken over",
            "Is `beat` running? See DATA_DIR/logs/beat.log and worker-embed.log.",
        )
    return Finding(name, "ok", f"{waiting} uploads in work")


def _embedder(name: str) -> Finding:
    space = spaces.active()
    embedder = spaces.embedder_of(space)
    health = embedder.check()
    if not health.ok:
        return Finding(
            name,
            "problem",
            health.detail,
            "See DATA_DIR/logs/embeddings.log, or check EMBEDDING_BASE_URL.",
        )
    components = embedder.embed(["how long is a vector?"], kind="query").shape[1]
    if components != embedder.spec.dimension:
        return Finding(
            name,
            "problem",
            f"gives {components} components, {embedder.spec.dimension} are expected",
            "EMBEDDING_MODEL and the server at EMBEDDING_BASE_URL must be the same model.",
        )
    wanted = engines.embedder().spec.model
    if space is not None and space.model != wanted:
        return Finding(
            name,
            "warning",
            f"the documents are indexed with {space.model}, EMBEDDING_MODEL is {wanted}",
            f"To move to it: `manage.py reembed --model {wanted}`; else set EMBEDDING_MODEL back.",
        )
    return Finding(name, "ok", f"{health.model or embedder.spec.model}, {components} components")


def _language_model(name: str) -> Finding:
    llm = engines.llm()
    health = asyncio.run(llm.check())
    if not health.ok:
        return Finding(
            name, "problem", health.detail, "Check LLM_BASE_URL, LLM_MODEL and LLM_API_KEY."
        )
    if not llm.is_language_model:
        return Finding(
            name,
            "warning",
            "none is connected: answers are quoted sentences",
            "Set LLM_BASE_URL and LLM_MODEL.",
        )
    if health.degraded:
        return Finding(name, "warning", health.detail, "Start the servers that do not answer.")
    choices = ", ".join(choice.name for choice in engines.model_choices())
    also = f" Can be chosen: {choices}." if choices else ""
    return Finding(name, "ok", f"{health.model or llm.model}: {health.detail}{also}")


def _reranker(name: str) -> Finding:
    reranker = engines.reranker()
    if reranker is None:
        return Finding(name, "ok", "none is configured")
    if not calibration.current(spaces.active(), reranker.model).has_use_for_reranker:
        return Finding(
            name,
            "warning",
            f"{reranker.model} is not asked: judged questions showed that it does not help",
            "Unset RERANKER_MODEL, or set another one and run `manage.py calibrate`.",
        )
    asked = len(reranking.PROBES)
    right = reranking.probed(reranker)
    found = f"{reranker.model} finds the answers of {right} of {asked} plain questions"
    if right < reranking.PROBES_TO_PASS:
        return Finding(
            name,
            "warning",
            f"{found}: hardly better than by chance",
            "Check that RERANKER_MODEL is a reranking model; `manage.py evaluate DIR --compare"
            " hybrid,hybrid+rerank` measures what it does to your questions.",
        )
    return Finding(name, "ok", found)


def _disk(name: str) -> Finding:
    usage = shutil.disk_usage(settings.DATA_DIR)
    free = f"{usage.free / 1e9:.1f} GB free in {settings.DATA_DIR}"
    if usage.free < _FREE_BYTES:
        return Finding(name, "problem", free, "Make room: PostgreSQL stops when it is full.")
    if usage.free < usage.total * 0.1:
        return Finding(name, "warning", free, "Make room before it runs full.")
    return Finding(name, "ok", free)


def _storage(name: str) -> Finding:
    for directory in (Path(settings.MEDIA_ROOT), Path(settings.TEMP_DIR)):
        try:
            with tempfile.NamedTemporaryFile(dir=directory, prefix=".doctor-") as file:
                file.write(b"written by manage.py doctor")
                file.flush()
        except OSError as error:
            return Finding(
                name,
                "problem",
                f"cannot write to {directory}: {error.strerror}",
                "Give the account that runs the assistant write access to it.",
            )
    return Finding(name, "ok", f"writable: {settings.MEDIA_ROOT}")


def _sandbox(name: str) -> Finding:
    report = sandbox_site.examine()
    if report.problems:
        return Finding(
            name,
            "problem",
            " ".join(report.problems),
            "Workers refuse to read documents; see docs/security.md, The parser sandbox.",
        )
    return Finding(name, "ok", f"holds: {report.means}")


def _first_line(error: Exception) -> str:
    return (str(error) or type(error).__name__).strip().splitlines()[0]


_CHECKS: dict[str, Callable[[str], Finding]] = {
    "database": _database,
    "pgvector": _pgvector,
    "migrations": _migrations,
    "row security": _row_security,
    "broker": _broker,
    "workers": _workers,
    "ingestion": _ingestion,
    "embeddings": _embedder,
    "language model": _language_model,
    "reranker": _reranker,
    "disk": _disk,
    "storage": _storage,
    "sandbox": _sandbox,
}
