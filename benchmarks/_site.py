"""A site of its own for a benchmark: ``manage.py up`` on a temporary folder and a free port."""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import psycopg

ROOT = Path(__file__).resolve().parent.parent
OURS = {"DATABASE_URL", "REDIS_URL", "SECRET_KEY", "EMBEDDING_BASE_URL", "DATA_DIR", "PORT"}


@dataclass(frozen=True, slots=True)
class Site:
    """``process`` is the supervisor's process id."""

    api: httpx.Client
    services: dict[str, Any]
    process: int


class Activity(NamedTuple):
    """Connections of clients to a database, the asker's own left out; ``longest_idle`` is in
    seconds, inside a transaction.
    """

    open: int
    busy: int
    longest_idle: float


def activity(connection: psycopg.Connection) -> Activity:
    found = connection.execute(
        """
        SELECT count(*), count(*) FILTER (WHERE state <> 'idle'),
               coalesce(max(extract(epoch FROM now() - state_change))
                   FILTER (WHERE state LIKE 'idle in transaction%'), 0)::float
        FROM pg_stat_activity
        WHERE pid <> pg_backend_pid() AND backend_type = 'client backend'
        """
    ).fetchone()
    assert found is not None
    return Activity(*found)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextmanager
def running_site(**env: str) -> Iterator[Site]:
    """Yields a ready site with an administrator's API client; ends and removes it afterwards."""
    folder = Path(tempfile.mkdtemp(prefix="knowledge-bench-")).resolve()
    folder.chmod(0o711)
    data_dir = folder / "data"
    port = free_port()
    environment = {k: v for k, v in os.environ.items() if k not in OURS} | env
    up = subprocess.Popen(
        [sys.executable, "manage.py", "up", "--data-dir", str(data_dir), "--port", str(port)],
        cwd=ROOT,
        env=environment,
        stdout=subprocess.DEVNULL,
    )
    try:
        _wait_until_ready(port, up)
        token = subprocess.run(
            [sys.executable, "manage.py", "createtoken", "admin@example.com"],
            cwd=ROOT,
            env={**environment, "DATA_DIR": str(data_dir)},
            capture_output=True,
            text=True,
            check=True,
        ).stdout.splitlines()[-1]
        services = json.loads((data_dir / "run" / "services.json").read_text(encoding="utf-8"))
        with httpx.Client(
            base_url=f"http://127.0.0.1:{port}/api/v1",
            headers={"Authorization": f"Bearer {token}"},
            timeout=120,
        ) as api:
            yield Site(api, services, up.pid)
    finally:
        up.terminate()
        up.wait(timeout=90)
        shutil.rmtree(folder, ignore_errors=True)


def peak_memory(process: int) -> dict[str, int]:
    """MiB that each process below ``process`` held at most, by what it is; Linux only.

    Those of one name are counted by the largest.
    """
    peaks: dict[str, int] = {}
    names: dict[int, str] = {}
    for child, parent in _descendants(process):
        try:
            status = Path(f"/proc/{child}/status").read_text(encoding="utf-8")
            command = Path(f"/proc/{child}/cmdline").read_text(encoding="utf-8")
        except OSError:  # it has ended
            continue
        if match := re.search(r"VmHWM:\s+(\d+) kB", status):
            # Those that uvicorn starts are called by how Python starts them.
            is_spawned = "multiprocessing" in command and parent in names
            name = names[child] = names[parent] if is_spawned else _name_of(command)
            peaks[name] = max(peaks.get(name, 0), int(match[1]) // 1024)
    return dict(sorted(peaks.items()))


def cpu_seconds(process: int) -> float:
    """What ``process``, all below it and their ended children have used so far; Linux only."""
    ticks = 0
    for each in (process, *(child for child, _ in _descendants(process))):
        try:
            fields = Path(f"/proc/{each}/stat").read_text(encoding="utf-8").rpartition(")")[2]
        except OSError:  # it has ended, and its parent counts it
            continue
        ticks += sum(map(int, fields.split()[11:15]))
    return ticks / os.sysconf("SC_CLK_TCK")


def _descendants(process: int) -> Iterator[tuple[int, int]]:
    """Process ids, each with its parent's, which comes before it."""
    for path in Path(f"/proc/{process}/task").glob("*/children"):
        try:
            children = path.read_text(encoding="utf-8").split()
        except OSError:
            continue
        for child in children:
            yield int(child), process
            yield from _descendants(int(child))


def _name_of(command: str) -> str:
    words = command.replace("\0", " ")
    for name, part in (
        ("web", "uvicorn"),
        ("worker parse", "-Q parse"),
        ("worker embed", "-Q embed"),
        ("beat", " beat "),
        ("embedding server", "embedding_server"),
        ("parser", "sandbox_zygote"),
        ("postgres", "postgres"),
        ("valkey", "valkey"),
    ):
        if part in words:
            return name
    return words.split(" ")[0].rpartition("/")[2] or "other"


def _wait_until_ready(port: int, up: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 300
    while time.monotonic() < deadline:
        if up.poll() is not None:
            raise SystemExit("`manage.py up` ended; run it by hand to see why.")
        try:
            if httpx.get(f"http://127.0.0.1:{port}/health/ready").status_code == 200:
                return
        except httpx.HTTPError:
            pass
        time.sleep(0.2)
    raise SystemExit("The site did not become ready.")


def documents(count: int) -> list[dict[str, str]]:
    """Markdown of the shared handbook where it is, else this repository's own pages, repeated."""
    shared = Path(os.environ.get("SHARED_DATA", ROOT.parent / "shared" / "data"))
    folder = shared / "corpora" / "18f_handbook"
    pages = sorted((folder if folder.is_dir() else ROOT).rglob("*.md"))
    pages = [page for page in pages if ".venv" not in page.parts and page.stat().st_size > 500]
    texts = [page.read_text(encoding="utf-8", errors="replace") for page in pages]
    return [
        {
            "external_id": f"page-{i}",
            "title": pages[i % len(pages)].stem,
            # A number makes repeated pages differ, so that no vector is taken over.
            "text": f"Page {i}.\n\n{texts[i % len(pages)]}",
        }
        for i in range(count)
    ]


def upload(site: Site, rows: list[dict[str, str]]) -> str:
    """Send ``rows`` in batches to a new collection; returns its id without waiting."""
    made = site.api.post("/collections/", json={"name": f"Benchmark {time.time()}"})
    collection: str = made.raise_for_status().json()["id"]
    for start in range(0, len(rows), 100):
        body = {"collection": collection, "documents": rows[start : start + 100]}
        site.api.post("/documents/batch/", json=body).raise_for_status()
    return collection
