"""The embedded PostgreSQL: its files, its account, and who else may be on them."""

from __future__ import annotations

import os
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from assistant.embedded import leftovers, postgres
from assistant.embedded.accounts import can_enter, database_account
from assistant.embedded.errors import StartError
from assistant.embedded.ports import free_port
from assistant.embedded.processes import spawn

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")


@pytest.fixture
def innocent() -> Iterator[psutil.Process]:
    """A process that has nothing to do with any of this."""
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(300)"])
    yield psutil.Process(process.pid)
    process.kill()
    process.wait()


def _server(home: Path, **changes: object) -> postgres.Postgres:
    values: dict[str, object] = {
        "home": home,
        "port": free_port(),
        "log": home.parent / "postgres.log",
        "superuser_password": "super-secret",
        "password": "secret",
        "account": database_account(),
        "durable": False,
    }
    return postgres.Postgres(**{**values, **changes})  # type: ignore[arg-type]


@pytest.fixture
def reachable() -> Iterator[Path]:
    """A directory that PostgreSQL's account can enter; pytest's are private."""
    directory = Path(tempfile.mkdtemp(prefix="knowledge-pg-")).resolve()
    directory.chmod(0o711)
    yield directory
    shutil.rmtree(directory)


def test_a_stale_pid_file_with_a_recycled_pid_does_not_stop_a_start(
    reachable: Path, innocent: psutil.Process
) -> None:
    server = _server(reachable / "postgres")
    server.initialise()
    (server.data / "postmaster.pid").write_text(f"{innocent.pid}\n{server.data}\n1\n")

    server.end_leftovers()
    child = spawn(server.program())
    try:
        while not server.is_ready():
            assert child.is_alive(), server.log.read_text()
        assert innocent.is_running()
    finally:
        child.send(signal.SIGQUIT)
        child.process.wait()


def test_a_server_still_on_these_files_is_stopped_whoever_started_it(reachable: Path) -> None:
    server = _server(reachable / "postgres")
    server.initialise()
    child = spawn(server.program())
    while not server.is_ready():
        assert child.is_alive(), server.log.read_text()

    server.end_leftovers()

    assert child.process.wait(timeout=60) == 0  # a shutdown, not a kill
    assert leftovers.find_servers(server.data, "postgres") == []


def test_a_wrong_password_file_is_explained(reachable: Path) -> None:
    server = _server(reachable / "postgres")
    server.initialise()
    child = spawn(server.program())
    try:
        while not server.is_ready():
            assert child.is_alive(), server.log.read_text()
        with pytest.raises(StartError, match="secrets"):
            _server(server.home, port=server.port, superuser_password="other").is_ready()
    finally:
        child.send(signal.SIGQUIT)
        child.process.wait()


def test_a_cluster_of_another_major_version_is_not_touched(tmp_path: Path) -> None:
    other = tmp_path / "postgres" / "17"
    other.mkdir(parents=True)
    (other / "PG_VERSION").write_text("17\n")
    with pytest.raises(StartError, match="another PostgreSQL than 18"):
        _server(tmp_path / "postgres").initialise()


def test_an_interrupted_initdb_is_begun_again(reachable: Path) -> None:
    server = _server(reachable / "postgres")
    server.home.mkdir()
    (server.home / "new").mkdir()
    (server.home / "new" / "PG_VERSION").write_text("18\n")
    server.initialise()
    assert (server.data / "global" / "pg_control").exists()
    assert not (server.home / "new").exists()
    assert (server.data / "pg_hba.conf").read_text() == "host all all 127.0.0.1/32 scram-sha-256\n"


@as_root
def test_a_private_data_directory_gets_its_database_elsewhere(reachable: Path) -> None:
    private = reachable / "private"
    private.mkdir(mode=0o700)
    data_dir = private / "data"
    data_dir.mkdir()
    account = database_account()
    assert not can_enter(account, data_dir)

    home = postgres.cluster_home(data_dir, account, home=reachable / "shared")

    assert home.is_relative_to(reachable / "shared")
    assert can_enter(account, home.parent)
    assert stat.S_IMODE(private.stat().st_mode) == 0o700, "somebody's directory was opened"
    # The note travels with the data directory.
    moved = reachable / "moved"
    data_dir.rename(moved)
    assert postgres.cluster_home(moved, account, home=reachable / "shared") == home


@as_root
def test_a_private_installation_is_copied_for_the_account(
    reachable: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    account = database_account()
    assert account is not None
    monkeypatch.setattr(postgres, "can_enter", lambda *_: False)
    binaries = postgres.binaries_for(account, home=reachable / "shared")
    result = subprocess.run(
        [str(binaries / "postgres"), "--version"],
        user=account.uid,
        group=account.gid,
        extra_groups=[],
        capture_output=True,
        text=True,
        check=True,
    )
    assert result.stdout.startswith("postgres (PostgreSQL) 18.")
    assert postgres.binaries_for(account, home=reachable / "shared") == binaries
