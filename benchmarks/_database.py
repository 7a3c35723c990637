"""A PostgreSQL of its own for a benchmark, on a folder that may be kept, and Django on it."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import cast

import psycopg.conninfo

from assistant.embedded.accounts import database_account
from assistant.embedded.config import OFFLINE
from assistant.embedded.ports import free_port
from assistant.embedded.postgres import Postgres, cluster_home
from assistant.embedded.processes import last_lines, spawn
from assistant.embedded.secretfiles import read_or_make


@contextmanager
def running_database(folder: Path) -> Iterator[str]:
    """Yields the URL of a server with the site's own settings, with Django set up on it.

    What is in ``folder`` from an earlier run is served again; the server ends with the block.
    """
    folder.mkdir(mode=0o711, parents=True, exist_ok=True)
    secrets = folder / "secrets"
    secrets.mkdir(mode=0o700, exist_ok=True)
    account = database_account()
    postgres = Postgres(
        home=cluster_home(folder, account),
        port=free_port(),
        log=folder / "postgres.log",
        superuser_password=read_or_make(secrets, "postgres-superuser"),
        password=read_or_make(secrets, "postgres"),
        account=account,
    )
    postgres.end_leftovers()
    postgres.initialise()
    server = spawn(postgres.program())
    try:
        deadline = time.monotonic() + 120
        while not postgres.is_ready():
            if not server.is_alive() or time.monotonic() > deadline:
                raise SystemExit("\n".join(last_lines(server.program.log, 20)))
            time.sleep(0.1)
        postgres.bootstrap()
        _set_up_django(postgres.url, folder)
        yield postgres.url
    finally:
        server.send(signal.SIGINT)
        server.process.wait(timeout=120)


def _set_up_django(url: str, folder: Path) -> None:
    os.environ.update(OFFLINE)
    os.environ.update(
        DATABASE_URL=url,
        DATA_DIR=str(folder),
        SECRET_KEY="only-for-benchmarks-" + "0123456789abcdef" * 2,
        DJANGO_SETTINGS_MODULE="assistant.settings",
    )
    import django
    from django.apps import apps
    from django.core.management import call_command
    from django.db import connection
    from django.db.backends.postgresql.base import DatabaseWrapper

    if apps.ready:  # on an earlier database of this process
        connection.close()
        cast(DatabaseWrapper, connection).close_pool()
        parts = psycopg.conninfo.conninfo_to_dict(url)
        for name in ("host", "port", "user", "password", "dbname"):
            connection.settings_dict["NAME" if name == "dbname" else name.upper()] = parts[name]
    else:
        django.setup()
    call_command("migrate", interactive=False, verbosity=0)
