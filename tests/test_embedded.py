"""The parts of ``manage.py up``, one at a time."""

from __future__ import annotations

import json
import os
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from assistant.embedded import leftovers, memory, metrics, preparation
from assistant.embedded.config import BASE_DIR, DEFAULT_POOL_SIZE, read_config
from assistant.embedded.console import LogFollower
from assistant.embedded.errors import StartError
from assistant.embedded.group import Group
from assistant.embedded.ports import free_port, is_free, next_free_port
from assistant.embedded.processes import Program, keep_log_small, spawn
from assistant.embedded.programs import Programs
from assistant.embedded.secretfiles import read_or_make, write_private
from assistant.embedded.up import choose_web_port, web_url
from assistant.env import load_env, parse_env
from tests.services import TestServices

Sleeper = Callable[..., psutil.Process]


@pytest.fixture
def sleeper() -> Iterator[Sleeper]:
    """Starts harmless processes that nothing but the test should end."""
    started: list[subprocess.Popen[bytes]] = []

    def start(**env: str) -> psutil.Process:
        process = subprocess.Popen(
            [sys.executable, "-c", "import time; print(1, flush=True); time.sleep(300)"],
            env={**os.environ, **env},
            stdout=subprocess.PIPE,
        )
        started.append(process)
        assert process.stdout is not None
        process.stdout.readline()
        return psutil.Process(process.pid)

    yield start
    for process in started:
        process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()


# --- .env ---------------------------------------------------------------------------------------


def test_env_file_syntax() -> None:
    text = """
    # a comment
    PLAIN=value with spaces   # and a comment
    export EXPORTED=yes
    HASH=a#b
    SINGLE='as $it is # here'   # comment
    DOUBLE="line\\nbreak \\"quoted\\" \\\\ # kept"
    EMPTY=
    ONLY_COMMENT= # nothing
    """
    assert parse_env(text) == {
        "PLAIN": "value with spaces",
        "EXPORTED": "yes",
        "HASH": "a#b",
        "SINGLE": "as $it is # here",
        "DOUBLE": 'line\nbreak "quoted" \\ # kept',
        "EMPTY": "",
        "ONLY_COMMENT": "",
    }


@pytest.mark.parametrize("line", ["no equals sign", "1X=2", 'OPEN="quote', "A='b' c"])
def test_env_file_errors_name_the_line(line: str) -> None:
    with pytest.raises(ValueError, match="settings, line 2"):
        parse_env(f"GOOD=1\n{line}\n", source="settings")


def test_the_process_overrides_the_env_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / ".env").write_text("ONE=file\nTWO=file\n")
    monkeypatch.setenv("TWO", "process")
    env = load_env(tmp_path)
    assert (env["ONE"], env["TWO"]) == ("file", "process")


# --- configuration and ports --------------------------------------------------------------------


def test_arguments_win_over_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PORT", "9000")
    monkeypatch.setenv("DATA_DIR", str(tmp_path / "env"))
    from_env = read_config([], base_dir=tmp_path)
    assert (from_env.port, from_env.data_dir) == (9000, tmp_path / "env")
    given = read_config(["--port", "9001", "--data-dir", str(tmp_path / "x")], base_dir=tmp_path)
    assert (given.port, given.data_dir) == (9001, tmp_path / "x")


@pytest.mark.parametrize("port", ["abc", "70000", "-1"])
def test_a_port_that_is_none_is_refused(
    port: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PORT", port)
    with pytest.raises(StartError):
        read_config([], base_dir=tmp_path)


def test_there_are_as_many_web_processes_as_cores_and_at_most_four(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("WEB_CONCURRENCY", raising=False)
    for available, wanted in ((1, 1), (3, 3), (64, 4)):
        monkeypatch.setattr(os, "sched_getaffinity", lambda _, n=available: set(range(n)))
        assert read_config([], base_dir=tmp_path).web_processes == wanted
    monkeypatch.setenv("WEB_CONCURRENCY", "16")
    assert read_config([], base_dir=tmp_path).web_processes == 16


@pytest.mark.parametrize("name", ["WEB_CONCURRENCY", "DATABASE_POOL_SIZE"])
@pytest.mark.parametrize("value", ["auto", "-1", "2.5", "1001"])
def test_a_number_that_is_none_is_refused_in_words(
    name: str, value: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(StartError, match=rf"^{name} must be a number from . to \d+, not '{value}'"):
        read_config([], base_dir=tmp_path)


def test_no_web_process_at_all_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WEB_CONCURRENCY", "0")
    with pytest.raises(StartError, match="WEB_CONCURRENCY must be a number from 1 to 64"):
        read_config([], base_dir=tmp_path)


@pytest.mark.parametrize(
    ("processes", "pool", "connections"),
    [("4", "20", 120), ("2", "20", 80), ("8", "20", 200), ("4", "50", 240), ("8", "0", 200)],
)
def test_the_database_takes_the_connections_of_all_processes(
    processes: str, pool: str, connections: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WEB_CONCURRENCY", processes)
    monkeypatch.setenv("DATABASE_POOL_SIZE", pool)
    config = read_config([], base_dir=tmp_path)
    assert config.database_connections == connections
    postgres = Programs(config, run_id="").postgres(
        home=tmp_path, port=1, superuser_password="", password="", account=None
    )
    assert f"--max_connections={max(120, connections)}" in postgres.program().argv


def test_the_pool_is_as_large_as_the_settings_make_it() -> None:
    source = (BASE_DIR / "assistant" / "settings.py").read_text(encoding="utf-8")
    assert f'_int("DATABASE_POOL_SIZE", {DEFAULT_POOL_SIZE})' in source


def test_a_taken_default_port_gives_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("PORT", raising=False)
    with socket.socket() as taken:
        port = free_port()
        taken.bind(("127.0.0.1", port))
        taken.listen()
        monkeypatch.setattr("assistant.embedded.config.DEFAULT_PORT", port)
        chosen = choose_web_port(read_config([], base_dir=tmp_path))
        assert not is_free("127.0.0.1", port)
    assert chosen == next_free_port("127.0.0.1", port + 1) != port
    assert f"Port {port} is taken, using {chosen}." in capsys.readouterr().out


def test_a_preferred_port_is_kept_while_it_is_free() -> None:
    port = free_port()
    assert free_port(preferred=port) == port
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", port))
        taken.listen()
        assert free_port(preferred=port) != port


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("127.0.0.1", "http://127.0.0.1:8000/"),
        ("0.0.0.0", "http://127.0.0.1:8000/"),
        ("::", "http://[::1]:8000/"),
        ("box", "http://box:8000/"),
    ],
)
def test_the_printed_address_can_be_opened(host: str, url: str) -> None:
    assert web_url(host, 8000) == url


# --- secrets ------------------------------------------------------------------------------------


def test_a_secret_is_made_once_and_is_private(tmp_path: Path) -> None:
    first = read_or_make(tmp_path / "secrets", "key")
    assert read_or_make(tmp_path / "secrets", "key") == first
    assert len(first) >= 43
    assert stat.S_IMODE((tmp_path / "secrets").stat().st_mode) == 0o700
    assert stat.S_IMODE((tmp_path / "secrets" / "key").stat().st_mode) == 0o600


def test_replacing_a_readable_file_makes_it_private(tmp_path: Path) -> None:
    file = tmp_path / "services.json"
    file.write_text("old")
    file.chmod(0o644)
    write_private(file, "new")
    assert (file.read_text(), stat.S_IMODE(file.stat().st_mode)) == ("new", 0o600)


# --- what a killed run left ---------------------------------------------------------------------


def test_leftovers_are_found_by_run_id_and_by_pid_with_start_time(
    tmp_path: Path, sleeper: Sleeper
) -> None:
    ledger = leftovers.Ledger(tmp_path)
    marked = sleeper(**{leftovers.RUN_ID: ledger.run_id})
    recorded = sleeper()
    other_run = sleeper(**{leftovers.RUN_ID: uuid.uuid4().hex})
    ledger.open()
    ledger.add(recorded.pid)

    found = leftovers.find_leftovers(tmp_path)

    assert {process.pid for process in found} == {marked.pid, recorded.pid}
    assert leftovers.end(found, seconds=60) == []
    assert not marked.is_running() or marked.status() == psutil.STATUS_ZOMBIE
    assert other_run.is_running()


def test_a_recycled_pid_is_not_a_leftover(tmp_path: Path, sleeper: Sleeper) -> None:
    innocent = sleeper()
    record = {
        "run_id": uuid.uuid4().hex,
        "processes": [{"pid": innocent.pid, "created": innocent.create_time() - 100}],
    }
    (tmp_path / "processes.json").write_text(json.dumps(record))
    assert leftovers.find_leftovers(tmp_path) == []


def test_one_that_inherited_the_id_does_not_end_itself(tmp_path: Path, sleeper: Sleeper) -> None:
    """`up` may be typed in a shell that a worker of the last run opened."""
    ledger = leftovers.Ledger(tmp_path)
    ledger.open()
    script = (
        "import sys; from pathlib import Path; from assistant.embedded import leftovers;"
        "print(len(leftovers.find_leftovers(Path(sys.argv[1]))))"
    )
    result = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path)],
        env={**os.environ, leftovers.RUN_ID: ledger.run_id},
        capture_output=True,
        text=True,
        check=True,
    )
    assert result.stdout.strip() == "0"


@pytest.mark.parametrize("content", ["", "{", "[]", '{"run_id": 1}', '{"processes": [1]}'])
def test_a_damaged_ledger_means_no_leftovers(tmp_path: Path, content: str) -> None:
    (tmp_path / "processes.json").write_text(content)
    assert leftovers.find_leftovers(tmp_path) == []


# --- processes ----------------------------------------------------------------------------------


def test_killing_a_child_kills_what_it_started(tmp_path: Path) -> None:
    script = (
        "import subprocess, sys, time\n"
        "p = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(300)'])\n"
        "print(p.pid, flush=True)\ntime.sleep(300)"
    )
    log = tmp_path / "child.log"
    child = spawn(Program("child", (sys.executable, "-c", script), dict(os.environ), tmp_path, log))
    while not (text := log.read_text().strip()):
        assert child.is_alive()
    grandchild = psutil.Process(int(text))

    child.kill()

    assert child.process.returncode == -signal.SIGKILL
    psutil.wait_procs([grandchild], timeout=60)
    assert not grandchild.is_running() or grandchild.status() == psutil.STATUS_ZOMBIE


@pytest.mark.parametrize("is_working", [True, False])
def test_a_program_that_runs_but_does_not_work_is_started_again(
    tmp_path: Path, is_working: bool
) -> None:
    sign = tmp_path / "sign"
    sign.touch()
    script = "import time, pathlib, sys\nwhile True:\n time.sleep(0.1)"
    if is_working:
        script += "\n pathlib.Path(sys.argv[1]).touch()"
    program = Program(
        "worker",
        (sys.executable, "-c", script, str(sign)),
        dict(os.environ),
        tmp_path,
        tmp_path / "log",
        sign_of_life=sign,
        silent_seconds=3,
    )
    group = Group(leftovers.Ledger(tmp_path))
    group.catch_signals()
    try:
        begun = sign.stat().st_mtime_ns
        first = group.start(program)
        deadline = time.monotonic() + 60
        while is_working and sign.stat().st_mtime_ns == begun:  # it may take long to start
            assert time.monotonic() < deadline
        if is_working:
            deadline = time.monotonic() + 4
        while first.is_alive() and time.monotonic() < deadline:
            group.tick(0.1)
        assert first.is_alive() == is_working
    finally:
        group.stop([["worker"]])
        group.release()


def test_the_reason_of_a_fall_is_told_though_the_server_went_on_talking(tmp_path: Path) -> None:
    script = "import sys; print('this is why'); print('INFO:     Waiting\\n' * 12); sys.exit(1)"
    argv = (sys.executable, "-c", script)
    group = Group(leftovers.Ledger(tmp_path))
    group.catch_signals()
    try:
        with pytest.raises(StartError, match=r"web failed\.\n  web \| this is why\n  Log:"):
            group.run_to_end(
                Program("web", argv, dict(os.environ), tmp_path, tmp_path / "log"), seconds=60
            )
    finally:
        group.release()


def test_a_log_is_cut_and_one_older_kept(tmp_path: Path) -> None:
    log = tmp_path / "a.log"
    log.write_text("x" * 100)
    keep_log_small(log, limit=100)
    assert log.stat().st_size == 100
    keep_log_small(log, limit=99)
    assert log.stat().st_size == 0
    assert (tmp_path / "a.log.1").stat().st_size == 100


def test_only_errors_reach_the_console(tmp_path: Path) -> None:
    log = tmp_path / "web.log"
    log.write_text("ERROR from yesterday\n")
    follower = LogFollower("web", log)
    with log.open("a") as stream:
        stream.write('{"level": "info", "event": "fine"}\n')
        stream.write('{"level": "error", "event": "broken\\npipe"}\n')
        stream.write("INFO: all is well\n")
        stream.write("CRITICAL: not well " + "x" * 500 + "\n")
        stream.write("ERROR: half a li")
    lines = follower.errors()
    assert lines[0] == "web | broken pipe"
    assert lines[1].startswith("web | CRITICAL: not well xx")
    assert len(lines) == 2
    assert max(map(len, lines)) <= 240
    with log.open("a") as stream:
        stream.write("ne\n")
    assert follower.errors() == ["web | ERROR: half a line"]
    log.write_text("FATAL: after a cut\n")
    assert follower.errors() == ["web | FATAL: after a cut"]


# --- memory ------------------------------------------------------------------------------------


def test_memory_settings_fit_small_and_large_machines(monkeypatch: pytest.MonkeyPatch) -> None:
    gib = 1024**3
    small, large = memory.database_settings(2 * gib), memory.database_settings(512 * gib)
    assert (small["shared_buffers"], small["maintenance_work_mem"]) == ("256MB", "64MB")
    assert (large["shared_buffers"], large["maintenance_work_mem"]) == ("8192MB", "1024MB")
    assert 0 < memory.memory_bytes() <= psutil.virtual_memory().total

    class Tiny:
        f_bavail, f_frsize = 64 * 1024, 1024  # a container's 64 MB

    monkeypatch.setattr(os, "statvfs", lambda _path: Tiny)
    assert memory.database_settings(24 * gib)["dynamic_shared_memory_type"] == "mmap"


def test_what_web_processes_count_is_kept_where_no_disk_is_full(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for given, at in (("/dev/shm", "/dev/shm"), (str(tmp_path / "none"), tempfile.gettempdir())):
        monkeypatch.setattr(metrics, "_SHARED_MEMORY", Path(given))
        made = metrics.make_directory()
        assert made.parent == Path(at)
        assert stat.S_IMODE(made.stat().st_mode) == 0o700
        metrics.remove_directory(made)
        assert not made.exists()


def test_only_a_directory_of_ours_is_removed(tmp_path: Path) -> None:
    metrics.remove_directory(tmp_path)
    metrics.remove_directory(Path())
    assert tmp_path.is_dir()


def test_only_web_processes_count_together_and_only_where_they_are_several(tmp_path: Path) -> None:
    programs = Programs(read_config([], base_dir=tmp_path), run_id="")
    assert programs.web(port=1, metrics_dir=tmp_path).env[metrics.VARIABLE] == str(tmp_path)
    assert metrics.VARIABLE not in programs.web(port=1, metrics_dir=None).env
    assert not any(metrics.VARIABLE in worker.env for worker in programs.workers())


# --- preparation --------------------------------------------------------------------------------


def test_nothing_prepared_and_nothing_reachable_are_both_unprepared(tmp_path: Path) -> None:
    unreachable = f"postgresql://nobody@127.0.0.1:{free_port()}/none"
    (tmp_path / "static").mkdir()
    assert preparation.state(tmp_path, database_url=unreachable, env={}) is None


@pytest.mark.django_db(transaction=True)
def test_preparation_notices_a_migration_taken_back_and_a_changed_setting(tmp_path: Path) -> None:
    from django.db import connection

    database = connection.settings_dict
    url = (
        f"postgresql://{database['USER']}:{database['PASSWORD']}@{database['HOST']}:"
        f"{database['PORT']}/{database['NAME']}"
    )
    assert preparation.state(tmp_path, database_url=url, env={}) is None, "no static files yet"
    (tmp_path / "static").mkdir()
    before = preparation.state(tmp_path, database_url=url, env={})
    assert before is not None
    assert preparation.state(tmp_path, database_url=url, env={}) == before
    assert preparation.state(tmp_path, database_url=url, env={"ADMIN_EMAIL": "x@y"}) != before
    with connection.cursor() as cursor:
        cursor.execute("SELECT id, app, name, applied FROM django_migrations LIMIT 1")
        row = cursor.fetchone()
        cursor.execute("DELETE FROM django_migrations WHERE id = %s", [row[0]])
        try:
            assert preparation.state(tmp_path, database_url=url, env={}) != before
        finally:
            cursor.execute("INSERT INTO django_migrations VALUES (%s, %s, %s, %s)", row)
    assert preparation.state(tmp_path, database_url=url, env={}) == before


def test_stopping_test_services_twice_is_harmless() -> None:
    TestServices("", "", Path("/nonexistent/knowledge-test"), ()).stop()
