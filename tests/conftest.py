"""The test session: real PostgreSQL and Valkey, real pipeline, small deterministic models.

Servers start and the environment is set while this module is imported, before Django's settings
are: the settings read their addresses once.
"""

from __future__ import annotations

import atexit
import ipaddress
import os
import socket
import sys
import tempfile
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from tests.services import start_test_services

SERVICES = start_test_services()
atexit.register(SERVICES.stop)
DATA_DIR = Path(tempfile.mkdtemp(prefix="data-", dir=SERVICES.data_dir))
for name in ("tmp", "media"):
    (DATA_DIR / name).mkdir()
for name in (
    "LLM_BASE_URL",
    "LLM_MODEL",
    "LLM_API_KEY",
    "RERANKER_BASE_URL",
    "HTTPS",
    "METRICS_TOKEN",
):
    os.environ.pop(name, None)
os.environ.update(
    {
        "DATABASE_URL": SERVICES.database_url,
        "REDIS_URL": SERVICES.redis_url,
        "SECRET_KEY": "only-for-tests-" + "0123456789abcdef" * 3,
        "DATA_DIR": str(DATA_DIR),
        "DATABASE_POOL_SIZE": "0",
        "ALLOWED_HOSTS": "localhost,127.0.0.1,testserver",
        "MAX_UPLOAD_MB": "5",
        "HF_HUB_OFFLINE": "1",
        "TRANSFORMERS_OFFLINE": "1",
        "DO_NOT_TRACK": "1",
        "SCARF_NO_ANALYTICS": "1",
        "UNSTRUCTURED_DISABLE_NOTICE": "1",
        "TOKENIZERS_PARALLELISM": "false",
        "DJANGO_SETTINGS_MODULE": "assistant.settings",
    }
)

import django  # noqa: E402 - the environment comes first
from django.conf import settings  # noqa: E402

# Argon2 is slow on purpose; no test is about the strength of a stored password.
settings.PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
# Hashed names need `collectstatic`, which the browser tests run and these do not.
settings.STORAGES["staticfiles"] = {
    "BACKEND": "django.contrib.staticfiles.storage.StaticFilesStorage"
}
django.setup()

from django.test import Client  # noqa: E402

from assistant import engines  # noqa: E402
from assistant.retrieval import spaces  # noqa: E402
from assistant.users.models import ApiToken, User  # noqa: E402
from inference.fakes import FakeEmbedder, FakeLLM  # noqa: E402

SHARED_DATA = Path(
    os.environ.get("SHARED_DATA") or Path(__file__).resolve().parents[2] / "shared" / "data"
)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The data folder beside the repository; tests that need it are skipped without it."""
    if not SHARED_DATA.is_dir():
        pytest.skip(f"no shared data in {SHARED_DATA} (set SHARED_DATA)")
    return SHARED_DATA


@pytest.fixture(scope="session")
def django_db_keepdb() -> bool:
    """Nothing to drop at the end: the whole server goes away with its files."""
    return True


class NetworkBlocked(RuntimeError):
    """A test tried to reach something outside this machine."""


@pytest.fixture(autouse=True, scope="session")
def no_network() -> Iterator[None]:
    """Below every mock: sockets of this process reach this machine and nothing else."""
    connect, connect_ex = socket.socket.connect, socket.socket.connect_ex

    def check(sock: socket.socket, address: Any) -> None:
        if sock.family == socket.AF_UNIX or not isinstance(address, tuple):
            return
        host = address[0]
        try:
            if host in ("localhost", "") or ipaddress.ip_address(host).is_loopback:
                return
        except ValueError:
            pass
        raise NetworkBlocked(f"a test tried to connect to {host}")

    def guarded_connect(self: socket.socket, address: Any) -> None:
        check(self, address)
        return connect(self, address)

    def guarded_connect_ex(self: socket.socket, address: Any) -> int:
        check(self, address)
        return connect_ex(self, address)

    socket.socket.connect = guarded_connect  # type: ignore[assignment]
    socket.socket.connect_ex = guarded_connect_ex  # type: ignore[assignment]
    try:
        yield
    finally:
        socket.socket.connect = connect  # type: ignore[method-assign]
        socket.socket.connect_ex = connect_ex  # type: ignore[method-assign]


@pytest.fixture(autouse=True)
def fresh_engines() -> Iterator[None]:
    """No client of one test lives on in the next."""
    engines.reset()
    spaces.forget()
    yield
    engines.reset()


@pytest.fixture
def fake_embedder(monkeypatch: pytest.MonkeyPatch) -> FakeEmbedder:
    """A deterministic embedder in place of the model server; equal words are near each other."""
    embedder = FakeEmbedder()
    monkeypatch.setattr(engines, "embedder", cache(lambda: embedder))
    return embedder


@pytest.fixture
def fake_llm(monkeypatch: pytest.MonkeyPatch, fake_embedder: FakeEmbedder) -> FakeLLM:
    """A scripted language model in place of vLLM; set ``scripts`` to choose what it says."""
    llm = FakeLLM()
    monkeypatch.setattr(engines, "llm", cache(lambda: llm))
    return llm


@pytest.fixture
def run_pipeline(db: None, fake_embedder: FakeEmbedder) -> Callable[[], None]:
    """A function that takes every open job to its end in this process, with the real sandbox."""
    from ingestion import pipeline
    from ingestion.models import IngestionJob, JobStatus

    def run() -> None:
        for status, stage in (
            (JobStatus.QUEUED, pipeline.parse_and_chunk),
            (JobStatus.EMBEDDING, pipeline.embed_and_publish),
        ):
            for job_id in list(
                IngestionJob.objects.filter(status=status)
                .order_by("created_at")
                .values_list("pk", flat=True)
            ):
                stage(job_id)

    return run


class Caller:
    """A user with a client for each credential that can stand for them."""

    def __init__(self, user: User) -> None:
        self.user = user

    def token(self, *scopes: str) -> str:
        return ApiToken.generate(self.user, scopes=list(scopes))[1]

    def with_token(self, *scopes: str) -> Client:
        """A client that sends a fresh token with every request, with both scopes by default."""
        token = self.token(*(scopes or ("read", "write")))
        return Client(headers={"Authorization": f"Bearer {token}"}, raise_request_exception=False)

    def with_session(self, *, enforce_csrf: bool = False) -> Client:
        client = Client(enforce_csrf_checks=enforce_csrf, raise_request_exception=False)
        client.force_login(self.user, backend="django.contrib.auth.backends.ModelBackend")
        return client


@pytest.fixture
def as_caller() -> type[Caller]:
    return Caller
