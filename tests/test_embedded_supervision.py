"""``up`` as a process: real PostgreSQL and Valkey, stand-ins for the rest."""

from __future__ import annotations

import re
import shutil
import signal
import socket
import stat
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import psycopg
import pytest
import redis

from tests.up_process import Up, still_running, wait_gone


@pytest.fixture
def data_dir() -> Iterator[Path]:
    """Directly below /tmp: PostgreSQL's account cannot enter pytest's private directories."""
    directory = Path(tempfile.mkdtemp(prefix="knowledge-up-"))
    directory.chmod(0o711)
    yield directory / "data"
    shutil.rmtree(directory)


@pytest.fixture
def up(data_dir: Path) -> Iterator[Up]:
    process = Up(data_dir, env={"WEB_CONCURRENCY": "2"})
    yield process
    everything = process.processes() if process.process.poll() is None else {}
    process.stop()
    assert wait_gone(everything, seconds=60) == []


def _runs(up: Up) -> int:
    """How often `prepare` wrote a row, read as another command of the site would."""
    with psycopg.connect(up.services()["database_url"]) as connection:
        row = connection.execute("SELECT count(*) FROM runs").fetchone()
    assert row is not None
    return int(row[0])


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_stop_signal_ends_everything_cleanly(up: Up, number: signal.Signals) -> None:
    up.wait_ready()
    processes = up.processes()
    assert len(processes) >= 12  # seven programs, PostgreSQL's own, the stand-ins' children
    counted = Path(up.services()["metrics_dir"])
    assert counted.is_dir()

    assert up.stop(number) == 0
    assert still_running(processes) == []
    assert not (up.data_dir / "run" / "services.json").exists()
    assert not counted.exists()
    assert "database system is shut down" in (up.data_dir / "logs" / "postgres.log").read_text()


def test_data_survive_a_stop_and_a_warm_start_prepares_nothing(up: Up) -> None:
    up.wait_ready()
    first = up.services()
    redis.from_url(first["redis_url"]).set("kept", "yes")
    assert up.stop() == 0

    again = Up(up.data_dir, port=up.port)
    again.wait_ready()
    try:
        assert _runs(again) == 1
        assert redis.from_url(again.services()["redis_url"]).get("kept") == b"yes"
        assert again.services()["database_url"] == first["database_url"]
    finally:
        assert again.stop() == 0


def test_a_second_up_is_refused_and_told_where_the_first_is(up: Up) -> None:
    up.wait_ready()
    processes = up.processes()

    second = Up(up.data_dir)

    assert second.process.wait(timeout=60) == 1
    assert f"already running on {up.data_dir}, at http://127.0.0.1:{up.port}/" in second.output
    assert len(still_running(processes)) == len(processes)
    assert _runs(up) == 1


def test_a_killed_up_leaves_nothing_and_loses_nothing(up: Up) -> None:
    up.wait_ready()
    valkey = redis.from_url(up.services()["redis_url"])
    valkey.set("kept", "yes")
    valkey.waitaof(1, 0, 60_000)  # until its file is synced, which is so once a second
    processes = up.processes()
    counted = Path(up.services()["metrics_dir"])

    up.process.kill()
    up.process.wait()
    again = Up(up.data_dir, port=up.port)
    again.wait_ready()

    try:
        assert still_running(processes) == []
        assert not counted.exists()
        assert _runs(again) == 1
        assert redis.from_url(again.services()["redis_url"]).get("kept") == b"yes"
    finally:
        assert again.stop() == 0


def test_a_program_that_falls_is_started_again(up: Up) -> None:
    up.wait_ready()
    web = up.named(str(up.port))
    postgres = up.named("bin/postgres")

    web.kill()
    up.wait_for(lambda: "web ended by signal 9; starting it again" in up.output)
    postgres.kill()
    up.wait_for(lambda: "postgres ended by signal 9; starting it again" in up.output)

    up.wait_for(lambda: _answers(up))
    assert up.named("bin/postgres").pid != postgres.pid
    assert _runs(up) == 1


def _answers(up: Up) -> bool:
    try:
        socket.create_connection(("127.0.0.1", up.port), timeout=10).close()
        _runs(up)
    except (OSError, psycopg.OperationalError):
        return False
    return True


def test_a_second_signal_hurries(data_dir: Path) -> None:
    up = Up(data_dir, env={"STUBBORN": "1"})
    up.wait_ready()
    processes = up.processes()

    up.process.send_signal(signal.SIGINT)
    up.wait_for(lambda: "Stopping." in up.output)
    time.sleep(0.5)
    assert up.process.poll() is None, "stand-ins that ignore SIGTERM were not waited for"
    asked = time.monotonic()
    up.process.send_signal(signal.SIGINT)
    # The embedding stand-in is stubborn as well, one stage later.
    while up.process.poll() is None and time.monotonic() - asked < 60:
        time.sleep(0.5)
        if up.process.poll() is None:
            up.process.send_signal(signal.SIGINT)

    # The last of these signals may meet a process that has done everything and is on its way out.
    assert up.process.wait(timeout=60) in (0, -signal.SIGINT)
    assert "Hurrying." in up.output
    assert not re.search(r"did not stop within \d\d s", up.output)  # nobody had all of its time
    assert still_running(processes) == []


def test_a_wanted_port_that_is_taken_is_an_error_that_names_another(data_dir: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        up = Up(data_dir, port=port)
        assert up.process.wait(timeout=60) == 1
    assert f"port {port} on 127.0.0.1 is taken" in up.output
    assert "Try `--port " in up.output


def test_a_program_that_never_starts_ends_up_with_its_last_words(data_dir: Path) -> None:
    up = Up(data_dir, env={"PREPARE_FAILS": "1"})
    assert up.process.wait(timeout=60) == 1
    assert "Cannot start: prepare failed." in up.output
    assert "this is why" in up.output


def test_secrets_are_private_and_needed(up: Up) -> None:
    up.wait_ready()
    for file in [
        *(up.data_dir / "secrets").iterdir(),
        up.data_dir / "run" / "services.json",
        up.data_dir / "run" / "valkey.conf",
    ]:
        assert stat.S_IMODE(file.stat().st_mode) == 0o600, file
    assert (up.data_dir / "secrets" / "secret-key").stat().st_size > 40

    services = up.services()
    for secret in (services["database_url"], services["redis_url"]):
        password = secret.rpartition("@")[0].rpartition(":")[2]
        assert len(password) > 40
        lines = [" ".join(p.cmdline()) for p in up.processes().values()]
        assert not any(password in line for line in lines), "a password on a command line"

    without = services["database_url"].replace(_password(services["database_url"]), "wrong")
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        psycopg.connect(without)
    with pytest.raises(redis.AuthenticationError):
        redis.from_url(services["redis_url"].replace(_password(services["redis_url"]), "")).ping()


def _password(url: str) -> str:
    return url.rpartition("@")[0].rpartition(":")[2]


def test_the_application_role_obeys_row_security_and_valkey_keeps_every_key(up: Up) -> None:
    up.wait_ready()
    services = up.services()
    with psycopg.connect(services["database_url"]) as connection:
        role = connection.execute(
            "SELECT rolsuper, rolbypassrls, rolcreaterole, rolcreatedb"
            " FROM pg_roles WHERE rolname = current_user"
        ).fetchone()
        extensions = connection.execute("SELECT extname FROM pg_extension").fetchall()
        checksums = connection.execute("SHOW data_checksums").fetchone()
    assert role == (False, False, False, False)
    assert {"vector", "pg_trgm", "unaccent", "btree_gin"} <= {name for (name,) in extensions}
    assert checksums == ("on",)

    settings = redis.from_url(services["redis_url"]).config_get("*")
    assert (settings["maxmemory-policy"], settings["appendonly"]) == ("noeviction", "yes")


def test_services_that_are_configured_are_used_and_not_started(up: Up, data_dir: Path) -> None:
    up.wait_ready()
    services = up.services()
    other = Up(
        data_dir.with_name("other"),
        env={
            "DATABASE_URL": services["database_url"],
            "REDIS_URL": services["redis_url"],
            "EMBEDDING_BASE_URL": services["embedding_url"],
        },
    )
    try:
        other.wait_ready()
        assert len(psutil.Process(other.process.pid).children()) == 4  # web, two workers, beat
        assert other.services()["database_url"] == services["database_url"]
        assert not (other.data_dir / "postgres").exists()
    finally:
        assert other.stop() == 0
    assert _runs(up) == 2
