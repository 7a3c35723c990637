"""A real site to be hurt: ``manage.py up`` on a folder of its own, and handles on its processes."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import psutil
import psycopg
import redis

from tests.chaos.corpus import Item
from tests.up_process import ROOT, Up, spawned_webs

# Poison is recognised soon, and a hog may not take the machine with it.
LIMITS = {"PARSE_TIMEOUT_SECONDS": "10", "PARSE_MEMORY_MB": "1024"}
# What a client of the site does about an answer that says "later".
_LATER = {429, 500, 502, 503, 504, 507}


class WebUse(NamedTuple):
    """Of all web processes together."""

    processes: int
    threads: int
    files: int
    mebibytes: float


@dataclass
class Site:
    """Everything here survives the parts of the site it talks to."""

    up: Up
    token: str
    strange: list[str] = field(default_factory=list)
    slowest_upload: float = 0.0

    @property
    def data_dir(self) -> Path:
        return self.up.data_dir

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self.up.port}/api/v1"

    def client(self) -> httpx.Client:
        headers = {"Authorization": f"Bearer {self.token}"}
        return httpx.Client(base_url=self.base_url, headers=headers, timeout=60)

    # -- processes ------------------------------------------------------------------------

    def child(self, *words: str) -> psutil.Process | None:
        """The program of ``up`` whose command line has all the words, if it runs now."""
        for process in psutil.Process(self.up.process.pid).children():
            try:
                if all(word in " ".join(process.cmdline()) for word in words):
                    return process
            except psutil.Error:
                continue
        return None

    def web_use(self) -> WebUse:
        """What the processes that serve hold now, without the one that looks after several."""
        first = self.child("uvicorn")
        assert first is not None
        webs = list(spawned_webs(first).values()) or [first]
        return WebUse(
            len(webs),
            sum(web.num_threads() for web in webs),
            sum(web.num_fds() for web in webs),
            sum(web.memory_info().rss for web in webs) / 2**20,
        )

    def worker(self, name: str) -> psutil.Process | None:
        return self.child("worker", f"{name}@%h")

    def postgres(self) -> psutil.Process | None:
        return self.child("postgres", "--listen_addresses")

    def valkey(self) -> psutil.Process | None:
        return self.child("valkey-server")

    def embeddings(self) -> psutil.Process | None:
        return self.child("inference.serving.embedding_server")

    # -- stores ---------------------------------------------------------------------------

    def rows(self, statement: str, *parameters: Any) -> list[tuple[Any, ...]]:
        """Asks PostgreSQL, waiting for up to two minutes while it is away."""

        def ask() -> list[tuple[Any, ...]]:
            url = self.up.services()["database_url"]
            with psycopg.connect(url, connect_timeout=5) as connection:
                rows: list[tuple[Any, ...]] = connection.execute(statement, parameters).fetchall()
                return rows

        rows: list[tuple[Any, ...]] = patient(ask, psycopg.OperationalError, seconds=120)
        return rows

    def one(self, statement: str, *parameters: Any) -> Any:
        return self.rows(statement, *parameters)[0][0]

    def broker(self) -> redis.Redis:
        return redis.Redis.from_url(self.up.services()["redis_url"], socket_timeout=5)

    def open_jobs(self) -> int:
        count: int = self.one(
            "SELECT count(*) FROM ingestion_ingestionjob"
            " WHERE status IN ('queued', 'parsing', 'embedding')"
        )
        return count

    # -- what people do -------------------------------------------------------------------

    def new_collection(self, name: str) -> str:
        with self.client() as api:
            made = api.post("/collections/", json={"name": f"{name} {time.time()}"})
            identity: str = made.raise_for_status().json()["id"]
            return identity

    def delete_collection(self, collection: str) -> None:
        with self.client() as api:
            api.delete(f"/collections/{collection}/").raise_for_status()

    def upload(self, collection: str, items: Sequence[Item]) -> dict[str, int]:
        """Send the files, four at a time, until each is taken or refused for good.

        Returns the last status by external id; 202 is an acknowledgement the site must keep.
        """
        with self.client() as api, ThreadPoolExecutor(4) as pool:
            statuses = pool.map(lambda item: self._send(api, collection, item), items)
            return dict(zip((item.external_id for item in items), statuses, strict=True))

    def _send(self, api: httpx.Client, collection: str, item: Item) -> int:
        deadline = time.monotonic() + 300
        while True:
            began = time.monotonic()
            try:
                answer = api.post(
                    "/documents/",
                    data={"collection": collection, "external_id": item.external_id},
                    files={"file": (item.filename, item.content)},
                )
            except httpx.HTTPError:  # the web process itself is away
                status = 0
            else:
                status = answer.status_code
                self.look_at(answer)
                if status == 202:
                    self.slowest_upload = max(self.slowest_upload, time.monotonic() - began)
            if (status and status not in _LATER) or time.monotonic() > deadline:
                return status
            time.sleep(0.5)

    def look_at(self, answer: httpx.Response) -> None:
        """Refusals must be in the API's own form; those that pass say when to come again."""
        status, kind = answer.status_code, answer.headers.get("content-type", "")
        if status >= 400 and "application/problem+json" not in kind:
            self.strange.append(f"{status} as {kind}: {answer.text[:120]!r}")
        elif status == 500:
            self.strange.append(f"500: {answer.text[:200]}")
        elif status == 503 and "retry-after" not in answer.headers:
            self.strange.append("503 without Retry-After")


def patient(
    act: Callable[[], Any], *errors: type[Exception], seconds: float, pause: float = 0.3
) -> Any:
    """``act()`` until it raises none of ``errors``, which is raised after ``seconds``."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            return act()
        except errors:
            if time.monotonic() > deadline:
                raise
            time.sleep(pause)


def wait_until(is_so: Callable[[], bool], *, seconds: float, pause: float = 0.3) -> float:
    """Seconds until it was so. Raises TimeoutError."""
    began = time.monotonic()
    while not is_so():
        if time.monotonic() - began > seconds:
            raise TimeoutError(f"not within {seconds:.0f} s")
        time.sleep(pause)
    return time.monotonic() - began


@contextmanager
def running_site(
    *,
    before: Callable[[Path], None] = lambda _: None,
    after: Callable[[Path], None] = lambda _: None,
    **env: str,
) -> Iterator[Site]:
    """A ready site with poison known to its parse worker; ended and removed afterwards."""
    folder = Path(tempfile.mkdtemp(prefix="knowledge-chaos-")).resolve()
    folder.chmod(0o711)
    before(folder / "data")
    up = Up(folder / "data", what=("-m", "tests.chaos.up"), env={**LIMITS, **env})
    try:
        up.wait_ready(seconds=300)
        made = subprocess.run(
            [sys.executable, "manage.py", "createtoken", "admin@example.com"],
            cwd=ROOT,
            env={**os.environ, "DATA_DIR": str(up.data_dir)}
            | {"DATABASE_URL": "", "REDIS_URL": "", "SECRET_KEY": "", "EMBEDDING_BASE_URL": ""},
            capture_output=True,
            text=True,
            check=True,
        )
        yield Site(up, made.stdout.splitlines()[-1])
    finally:
        if up.process.poll() is None:
            for process in psutil.Process(up.process.pid).children(recursive=True):
                try:
                    process.send_signal(signal.SIGCONT)  # a stopped one cannot end in order
                except psutil.Error:
                    continue
            up.stop(seconds=120)
        after(up.data_dir)
        if "CHAOS_KEEP" not in os.environ:
            shutil.rmtree(folder, ignore_errors=True)
