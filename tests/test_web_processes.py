"""Two web processes behind one port, as ``manage.py up`` starts them."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import psutil
import pytest

from tests.up_process import REAL, ROOT, Up, spawned_webs, wait_gone

_READY_SECONDS = 180
_ENV = {"WEB_CONCURRENCY": "2", "METRICS_TOKEN": "a-token-for-tests", "DATABASE_POOL_SIZE": "20"}


@pytest.fixture(scope="module")
def up() -> Iterator[Up]:
    """Kept over the tests of this module; the last one ends it."""
    directory = Path(tempfile.mkdtemp(prefix="knowledge-webs-"))
    directory.chmod(0o711)
    process = Up(directory / "data", what=REAL, env=_ENV)
    try:
        process.wait_ready(seconds=_READY_SECONDS)
        yield process
    finally:
        process.stop(seconds=90)
        shutil.rmtree(directory)


def _parent(up: Up) -> psutil.Process:
    return up.named("uvicorn")


def _wait_for_two(up: Up) -> list[psutil.Process]:
    """Both web processes, each of which has answered."""

    def serves(web: psutil.Process) -> bool:
        with _only(web, up):
            return _live(up, seconds=1) == 200

    def both() -> bool:
        try:
            webs = spawned_webs(_parent(up))
            return len(webs) == 2 and all(serves(web) for web in webs.values())
        except (psutil.Error, AssertionError, httpx.HTTPError):  # on its way down or up
            return False

    up.wait_for(both, seconds=60)
    return list(spawned_webs(_parent(up)).values())


@contextmanager
def _only(web: psutil.Process, up: Up) -> Iterator[None]:
    """What is asked in here is answered by ``web``. For seconds: silent ones are replaced."""
    others = [other for pid, other in spawned_webs(_parent(up)).items() if pid != web.pid]
    try:
        for other in others:
            other.suspend()
            while other.status() != psutil.STATUS_STOPPED:
                time.sleep(0.01)
        yield
    finally:
        for other in others:
            other.resume()


def _live(up: Up, *, seconds: float = 10) -> int:
    return httpx.get(f"http://127.0.0.1:{up.port}/health/live", timeout=seconds).status_code


def _counted(up: Up) -> int:
    """How often ``/health/live`` was asked, as the process says that takes this request."""
    headers = {"Authorization": f"Bearer {_ENV['METRICS_TOKEN']}"}
    page = httpx.get(f"http://127.0.0.1:{up.port}/metrics", headers=headers).raise_for_status()
    name = "django_http_requests_total_by_view_transport_method_total"
    labels = r'\{[^}]*view="health-live"[^}]*\}'
    found = re.findall(rf"^{name}{labels} (\S+)$", page.text, re.MULTILINE)
    assert len(found) == 1, found
    return int(float(found[0]))


def test_each_process_serves_and_tells_what_both_count(up: Up) -> None:
    webs = _wait_for_two(up)
    expected = _counted(up)
    for web, times in zip(webs, (3, 5), strict=True):
        with _only(web, up):
            assert [_live(up) for _ in range(times)] == [200] * times
            expected += times
        for other in webs:
            with _only(other, up):
                assert _counted(up) == expected


def test_an_answer_is_read_from_any_process(up: Up) -> None:
    webs = _wait_for_two(up)
    token = subprocess.run(
        [sys.executable, "manage.py", "createtoken", "admin@example.com"],
        cwd=ROOT,
        env={"PATH": os.environ["PATH"], "DATA_DIR": str(up.data_dir)},
        capture_output=True,
        text=True,
        check=True,
    ).stdout.splitlines()[-1]
    with httpx.Client(
        base_url=f"http://127.0.0.1:{up.port}/api/v1",
        headers={"Authorization": f"Bearer {token}", "Connection": "close"},
        timeout=60,
    ) as api:
        with _only(webs[0], up):
            chat = api.post("/conversations/", json={"title": "A trial"}).raise_for_status().json()
            asked = api.post(f"/conversations/{chat['id']}/messages/", json={"content": "Leave?"})
            events = f"/answers/{asked.raise_for_status().json()['answer']['id']}/events"
            here = api.get(events).raise_for_status().text
        with _only(webs[1], up):
            there = api.get(events).raise_for_status().text
    assert "event: done" in here
    assert there == here


def test_a_killed_process_is_replaced_and_what_it_counted_stays(up: Up) -> None:
    killed, other = _wait_for_two(up)
    with _only(killed, up):
        assert _live(up) == 200
    before = _counted(up)

    killed.kill()
    assert [_live(up) for _ in range(10)] == [200] * 10
    assert _counted(up) == before + 10

    up.wait_for(lambda: killed.pid not in spawned_webs(_parent(up)), seconds=60)
    new = next(web for web in _wait_for_two(up) if web.pid != other.pid)
    before = _counted(up)
    with _only(new, up):
        assert _live(up) == 200
        assert _counted(up) == before + 1
    assert "web ended" not in up.output


def test_a_process_is_replaced_where_the_directory_of_counts_is_gone(up: Up) -> None:
    webs = _wait_for_two(up)
    shutil.rmtree(up.services()["metrics_dir"])

    webs[0].kill()

    up.wait_for(lambda: webs[0].pid not in spawned_webs(_parent(up)), seconds=60)
    new = next(web for web in _wait_for_two(up) if web.pid != webs[1].pid)
    with _only(new, up):
        assert _live(up) == 200
    assert "web ended" not in up.output


def test_the_fall_of_the_first_takes_all_and_all_are_started_again(up: Up) -> None:
    _wait_for_two(up)
    parent = _parent(up)
    webs = spawned_webs(parent)

    parent.kill()

    assert wait_gone(webs, seconds=20) == []
    up.wait_for(lambda: "web ended by signal 9; starting it again" in up.output)
    assert not {web.pid for web in _wait_for_two(up)} & set(webs)


def test_a_killed_up_leaves_no_web_process_and_a_stop_nothing_at_all(up: Up) -> None:
    _wait_for_two(up)
    everything, webs = up.processes(), spawned_webs(_parent(up))

    up.process.send_signal(signal.SIGKILL)
    up.process.wait()
    assert wait_gone(webs, seconds=20) == []

    again = Up(up.data_dir, what=REAL, env=_ENV)
    try:
        again.wait_ready(seconds=_READY_SECONDS)
        assert wait_gone(everything, seconds=1) == []
        _wait_for_two(again)
        everything, counted = again.processes(), Path(again.services()["metrics_dir"])
        assert counted.is_dir()
    finally:
        assert again.stop(seconds=90) == 0, again.output
    assert wait_gone(everything, seconds=20) == []
    assert not counted.exists()
    log = (up.data_dir / "logs" / "web.log").read_text(encoding="utf-8")
    assert "Traceback" not in log
