"""Whether the database still is as the last preparation left it.

A warm start then skips a process that would load all of Django to find nothing to do (a tenth of
the time to start). The answer comes from what is there, not from a flag: the applied migrations as
the database lists them, and the files they were made from.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from importlib import metadata
from pathlib import Path

import psycopg

from assistant.embedded.config import BASE_DIR

_PACKAGES = ("assistant", "ingestion")


def state(data_dir: Path, *, database_url: str, env: Mapping[str, str]) -> str | None:
    """A digest of code, settings and database; None when something has yet to be made."""
    applied = _applied_migrations(database_url)
    if not applied or not (data_dir / "static").is_dir():
        return None
    digest = hashlib.sha256()
    for part in (*_code(), *_settings(env), *applied):
        digest.update(part.encode() + b"\0")
    return digest.hexdigest()


def _applied_migrations(database_url: str) -> list[str]:
    """Names of applied migrations; empty when there are none or nobody answers."""
    try:
        with psycopg.connect(database_url, connect_timeout=5) as connection:
            rows = connection.execute("SELECT app, name FROM django_migrations ORDER BY app, name")
            return [f"{app}.{name}" for app, name in rows]
    except psycopg.Error:
        return []


def _code() -> Iterator[str]:
    """Installed packages bring migrations and static files too, hence their versions."""
    for name, version in sorted((d.name, d.version) for d in metadata.distributions()):
        yield f"{name}=={version}"
    for package in _PACKAGES:
        for file in sorted((BASE_DIR / package).rglob("migrations/*.py")):
            yield f"{file.name}:{hashlib.sha256(file.read_bytes()).hexdigest()}"
    for file in sorted((BASE_DIR / "assistant").rglob("static/**/*")):
        if file.is_file():
            status = file.stat()
            yield f"{file}:{status.st_size}:{status.st_mtime_ns}"


def _settings(env: Mapping[str, str]) -> Iterator[str]:
    for name in ("ADMIN_EMAIL", "ADMIN_PASSWORD", "EMBEDDING_MODEL"):
        yield f"{name}={env.get(name, '')}"
