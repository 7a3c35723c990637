"""One real PostgreSQL and one real Valkey for a test session.

``tests/conftest.py`` starts them while it is imported, before Django's settings are, because the
settings read their addresses once.
"""

from __future__ import annotations

import contextlib
import secrets
import shutil
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from assistant.embedded.accounts import database_account
from assistant.embedded.ports import free_port
from assistant.embedded.postgres import Postgres
from assistant.embedded.processes import Child, last_lines, spawn
from assistant.embedded.valkey import Valkey


@dataclass(frozen=True, slots=True)
class TestServices:
    """Running servers. Their role may create databases; template1 has the extensions."""

    __test__ = False

    database_url: str
    redis_url: str
    data_dir: Path
    children: tuple[Child, ...]

    def stop(self) -> None:
        """End the servers and remove their files. Safe to call twice."""
        for child in self.children:
            child.send(child.program.hurry_signal)
        for child in self.children:
            with contextlib.suppress(Exception):
                child.process.wait(timeout=10)
            child.kill()
        shutil.rmtree(self.data_dir, ignore_errors=True)


def start_test_services() -> TestServices:
    """Start both on free ports and wait until they answer; about two seconds.

    The servers end with this process, also when it is killed. Raises RuntimeError with the end
    of the log when one does not come up.
    """
    data_dir = Path(tempfile.mkdtemp(prefix="knowledge-test-")).resolve()
    data_dir.chmod(0o711)  # PostgreSQL runs as another account under root
    postgres = Postgres(
        home=data_dir / "postgres",
        port=free_port(),
        log=data_dir / "postgres.log",
        superuser_password=secrets.token_urlsafe(16),
        password=secrets.token_urlsafe(16),
        account=database_account(),
        durable=False,
    )
    valkey = Valkey(
        data=data_dir / "valkey",
        config=data_dir / "valkey.conf",
        port=free_port(),
        log=data_dir / "valkey.log",
        password=secrets.token_urlsafe(16),
        durable=False,
    )
    children: list[Child] = []
    services = TestServices(postgres.url, valkey.url, data_dir, ())
    try:
        valkey.initialise()
        children.append(spawn(valkey.program()))
        postgres.initialise()
        children.append(spawn(postgres.program()))
        services = TestServices(postgres.url, valkey.url, data_dir, tuple(children))
        _wait(valkey.is_ready, children[0])
        _wait(postgres.is_ready, children[1])
        postgres.bootstrap()
    except BaseException:
        services.stop()
        raise
    return services


def _wait(is_ready: Callable[[], bool], child: Child, *, seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not is_ready():
        if not child.is_alive() or time.monotonic() > deadline:
            log = "\n".join(last_lines(child.program.log, 20))
            raise RuntimeError(f"{child.program.name} did not start:\n{log}")
        time.sleep(0.05)
