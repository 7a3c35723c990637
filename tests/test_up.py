"""``manage.py up`` with nothing replaced: the way people start the system."""

from __future__ import annotations

import http.client
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from tests.up_process import REAL, ROOT, Up, still_running, wait_gone

# A machine that runs other tests beside this one; the time itself is measured, not asserted.
_READY_SECONDS = 180


@pytest.fixture(scope="module")
def data_dir() -> Iterator[Path]:
    """Kept over the tests of this module, which follow one site through its life."""
    directory = Path(tempfile.mkdtemp(prefix="knowledge-site-"))
    directory.chmod(0o711)
    yield directory / "data"
    shutil.rmtree(directory)


@pytest.fixture
def up(data_dir: Path) -> Iterator[Up]:
    process = Up(data_dir, what=REAL)
    process.wait_ready(seconds=_READY_SECONDS)
    yield process
    everything = process.processes() if process.process.poll() is None else {}
    assert process.stop() == 0, process.output
    assert wait_gone(everything, seconds=60) == []


def _manage(data_dir: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Another terminal: knows the data directory and nothing else."""
    inherited = {"PATH": os.environ["PATH"], "DATA_DIR": str(data_dir)}
    return subprocess.run(
        [sys.executable, "manage.py", *arguments],
        cwd=ROOT,
        env=inherited,
        capture_output=True,
        text=True,
        check=False,
    )


def _get(up: Up, path: str) -> int:
    connection = http.client.HTTPConnection("127.0.0.1", up.port, timeout=60)
    try:
        connection.request("GET", path)
        return connection.getresponse().status
    finally:
        connection.close()


def test_it_starts_says_how_to_sign_in_and_the_doctor_is_content(up: Up) -> None:
    assert f"http://127.0.0.1:{up.port}/" in up.output
    assert "Sign in as admin@example.com" in up.output
    password_file = up.data_dir / "admin-password"
    assert str(password_file) in up.output
    assert password_file.stat().st_mode & 0o077 == 0
    assert password_file.read_text().strip() not in up.output
    assert _get(up, "/health/live") == 200
    assert _get(up, "/health/ready") == 200

    # Workers may still be loading when pages are served already.
    deadline = time.monotonic() + _READY_SECONDS
    while (doctor := _manage(up.data_dir, "doctor", "--json")).returncode:
        assert time.monotonic() < deadline, doctor.stdout + doctor.stderr
    report = json.loads(doctor.stdout)
    assert report["ok"] is True
    assert [check for check in report["checks"] if check["state"] == "problem"] == []


def test_a_second_up_is_refused(up: Up) -> None:
    second = Up(up.data_dir, what=REAL)
    assert second.process.wait(timeout=_READY_SECONDS) == 1
    assert f"already running on {up.data_dir}, at http://127.0.0.1:{up.port}/" in second.output
    assert _get(up, "/health/live") == 200


def test_a_killed_up_leaves_nothing_to_the_next_and_data_survive(data_dir: Path) -> None:
    first = Up(data_dir, what=REAL)
    first.wait_ready(seconds=_READY_SECONDS)
    processes = first.processes()
    with psycopg.connect(first.services()["database_url"]) as connection:
        connection.execute("CREATE TABLE survivor AS SELECT 42 AS answer")

    first.process.send_signal(signal.SIGKILL)
    first.process.wait()
    again = Up(data_dir, what=REAL)
    again.wait_ready(seconds=_READY_SECONDS)
    try:
        assert still_running(processes) == []
        with psycopg.connect(again.services()["database_url"]) as connection:
            assert connection.execute("SELECT answer FROM survivor").fetchone() == (42,)
            connection.execute("DROP TABLE survivor")
    finally:
        processes = again.processes()
        assert again.stop(signal.SIGINT) == 0, again.output
    assert still_running(processes) == []


def test_a_backup_of_a_running_site_is_restored_into_a_new_one(up: Up, tmp_path: Path) -> None:
    file = tmp_path / "site.tar"
    made = _manage(up.data_dir, "backup", str(file))
    assert made.returncode == 0, made.stderr

    # The same site with force: what a person does after a mistake.
    restored = _manage(up.data_dir, "restore", str(file), "--force")

    assert restored.returncode == 0, restored.stderr
    assert "Restored 1 users" in restored.stdout
    assert _get(up, "/health/ready") == 200
