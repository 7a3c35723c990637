"""The child process under attack: every misbehaviour ends in its code, and nothing stays behind.

The functions named ``child_*`` run in the sandboxed child in place of the parser.
"""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from ingestion.admission import PDF
from ingestion.elements import Element, ElementKind, ParsedDocument
from ingestion.errors import FailureCode, IngestionError
from ingestion.parsing_limits import Limits
from ingestion.sandbox import Sandbox

ROOT = Path(__file__).resolve().parents[2]
LIMITS = Limits(wall_seconds=120, cpu_seconds=120, memory=512 << 20)
SECRET = "SANDBOX_TEST_SECRET"


def words(text: str) -> ParsedDocument:
    return ParsedDocument(text, (Element(ElementKind.PARAGRAPH, 0, len(text)),), parser="test")


def child_echo(data: bytes, **_: Any) -> ParsedDocument:
    return words(data.decode())


def child_loops(data: bytes, **_: Any) -> ParsedDocument:
    while True:
        pass


def child_sleeps(data: bytes, **_: Any) -> ParsedDocument:
    subprocess.Popen(["/bin/sleep", data.decode()])
    time.sleep(1000)
    return words("late")


def child_eats_memory(data: bytes, **_: Any) -> ParsedDocument:
    hoard = []
    while True:
        hoard.append(bytearray(16 << 20))


def child_is_killed(data: bytes, **_: Any) -> ParsedDocument:
    os.kill(os.getpid(), int(data))
    time.sleep(1000)
    return words("alive")


def child_exits(data: bytes, **_: Any) -> ParsedDocument:
    os._exit(0)


def child_raises(data: bytes, **_: Any) -> ParsedDocument:
    raise RuntimeError("boom")


def child_talks_too_much(data: bytes, **_: Any) -> ParsedDocument:
    return words("x" * 3_000_000)


def child_lies(data: bytes, **_: Any) -> ParsedDocument:
    return ParsedDocument("short", (Element(ElementKind.PARAGRAPH, 0, 9000),))


def child_writes_rubbish(data: bytes, **_: Any) -> ParsedDocument:
    for descriptor in range(3, 64):
        try:
            os.write(descriptor, b"\x09\0\0\0\x04rubbish" * 100)
        except OSError:
            continue
    return words("x")


def child_reports_progress(
    data: bytes, *, on_progress: Callable[[int, int], None], **_: Any
) -> ParsedDocument:
    for page in range(1, 6):
        on_progress(page, 5)
    return words("done")


def child_looks_around(data: bytes, **_: Any) -> ParsedDocument:
    """What a hostile parser could reach, as lines."""
    found = []
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as reach:
            reach.settimeout(2)
            reach.connect(("127.0.0.1", int(data)))
        found.append("network")
    except OSError:
        pass
    if any(SECRET in name or SECRET in value for name, value in os.environ.items()):
        found.append("secret")
    found.extend(
        f"no {name} limit"
        for name in ("CORE", "AS", "CPU", "FSIZE", "NOFILE")
        if resource.getrlimit(getattr(resource, f"RLIMIT_{name}"))[0] == resource.RLIM_INFINITY
    )
    if ctypes.CDLL(None).prctl(39, 0, 0, 0, 0) != 1:  # PR_GET_NO_NEW_PRIVS
        found.append("new privileges")
    for descriptor in range(3, 64):
        try:
            if stat.S_ISSOCK(os.fstat(descriptor).st_mode):
                found.append(f"socket {descriptor}")
        except OSError:
            continue
    Path(os.environ["TMPDIR"], "left-behind").write_text("x")
    found.append(f"directory {Path.cwd()}")
    return words("\n".join(found))


@contextmanager
def sandbox(parser: str) -> Iterator[Sandbox]:
    target = f"tests.ingestion.test_sandbox:{parser}"
    box = Sandbox(parser=target, zygote_options=("--light",))
    try:
        yield box
    finally:
        box.close()


def parse(box: Sandbox, path: Path, data: str = "words", **options: Any) -> ParsedDocument:
    path.write_text(data)
    limits = options.pop("limits", LIMITS)
    return box.parse(path, media_type=PDF, filename="x.pdf", limits=limits, **options)


def zygotes(box: Sandbox) -> list[int]:
    return [handle.pid for handle in box._zygotes.values()]


def descendants(process: int) -> list[int]:
    """Living processes below ``process``, zombies left out."""
    parents = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            if fields[0] != "Z":
                parents[int(entry.name)] = int(fields[1])
    found = [process]
    for known in found:
        found += [child for child, parent in parents.items() if parent == known]
    return found[1:]


def wait_until(condition: Callable[[], bool], seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "condition did not come true"
        time.sleep(0.05)


def is_running(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.parametrize(
    ("parser", "data", "limits", "code"),
    [
        ("child_loops", "", Limits(wall_seconds=1), FailureCode.PARSE_TIMEOUT),
        ("child_loops", "", Limits(cpu_seconds=1), FailureCode.PARSE_TIMEOUT),
        ("child_sleeps", "1000", Limits(wall_seconds=1), FailureCode.PARSE_TIMEOUT),
        ("child_eats_memory", "", LIMITS, FailureCode.PARSE_MEMORY),
        ("child_is_killed", str(int(signal.SIGKILL)), LIMITS, FailureCode.SANDBOX_LOST),
        ("child_is_killed", str(int(signal.SIGSEGV)), LIMITS, FailureCode.PARSE_CRASHED),
        ("child_exits", "", LIMITS, FailureCode.PARSE_CRASHED),
        ("child_raises", "", LIMITS, FailureCode.PARSE_CRASHED),
        ("child_lies", "", LIMITS, FailureCode.PARSE_CRASHED),
        ("child_writes_rubbish", "", LIMITS, FailureCode.PARSE_CRASHED),
        ("child_talks_too_much", "", Limits(max_output_bytes=1 << 20), FailureCode.TOO_MUCH_TEXT),
    ],
)
def test_misbehaviour_ends_in_its_code(
    tmp_path: Path, parser: str, data: str, limits: Limits, code: FailureCode
) -> None:
    with sandbox(parser) as box:
        with pytest.raises(IngestionError) as caught:
            parse(box, tmp_path / "x", data, limits=limits)
        assert caught.value.code is code
        (zygote,) = zygotes(box)
        wait_until(lambda: not descendants(zygote))  # the child's own children are gone too
        assert is_running(zygote)


def test_child_has_no_network_no_secret_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(SECRET, "value")
    with socket.create_server(("127.0.0.1", 0)) as server, sandbox("child_looks_around") as box:
        port = server.getsockname()[1]
        found = parse(box, tmp_path / "x", str(port)).text.splitlines()
    (directory,) = found
    assert directory.startswith("directory ")
    assert not Path(directory.removeprefix("directory ")).exists()
    assert not list(Path(tempfile.gettempdir()).glob("knowledge-parse-*/left-behind"))


def test_progress_arrives_in_order(tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    with sandbox("child_reports_progress") as box:
        parse(box, tmp_path / "x", on_progress=lambda done, total: seen.append((done, total)))
    assert seen == [(page, 5) for page in range(1, 6)]


def test_cancelling_kills_the_child(tmp_path: Path) -> None:
    cancel = threading.Event()
    threading.Timer(0.5, cancel.set).start()
    with sandbox("child_loops") as box:
        with pytest.raises(IngestionError) as caught:
            parse(box, tmp_path / "x", should_cancel=cancel.is_set)
        assert caught.value.code is FailureCode.CANCELLED
        (zygote,) = zygotes(box)
        wait_until(lambda: not descendants(zygote))


def test_a_killed_zygote_is_noticed_and_replaced(tmp_path: Path) -> None:
    with sandbox("child_sleeps") as box:
        failures: list[IngestionError] = []

        def attempt() -> None:
            try:
                parse(box, tmp_path / "x", "1000")
            except IngestionError as error:
                failures.append(error)

        thread = threading.Thread(target=attempt)
        thread.start()
        wait_until(lambda: bool(zygotes(box)) and len(descendants(zygotes(box)[0])) == 2)
        (first,) = zygotes(box)
        family = descendants(first)
        os.kill(first, signal.SIGKILL)
        thread.join(60)
        assert [error.code for error in failures] == [FailureCode.SANDBOX_LOST]
        assert failures[0].retryable
        wait_until(lambda: not any(map(is_running, family)))
        with pytest.raises(IngestionError) as caught:
            parse(box, tmp_path / "y", "1000", limits=Limits(wall_seconds=0.5))
        assert caught.value.code is FailureCode.PARSE_TIMEOUT
        assert zygotes(box) != [first]


def test_threads_share_one_sandbox(tmp_path: Path) -> None:
    results: dict[int, str] = {}

    def work(number: int) -> None:
        for turn in range(5):
            text = f"document {number} {turn}"
            results[number * 10 + turn] = parse(box, tmp_path / f"{number}-{turn}", text).text

    with sandbox("child_echo") as box:
        threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        assert len(zygotes(box)) == 1
    assert results == {n * 10 + t: f"document {n} {t}" for n in range(4) for t in range(5)}


def test_a_forked_worker_gets_its_own_zygote(tmp_path: Path) -> None:
    with sandbox("child_echo") as box:
        parse(box, tmp_path / "x")
        before = zygotes(box)
        process = os.fork()
        if process == 0:
            try:
                same = parse(box, tmp_path / "y", "forked").text == "forked"
                own = zygotes(box) != before
                box.close()
                os._exit(0 if same and own else 1)
            finally:
                os._exit(2)
        assert os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) == 0
        assert parse(box, tmp_path / "x", "still here").text == "still here"
        assert zygotes(box) == before


WORKER = """
import sys, threading
from pathlib import Path
from tests.ingestion import test_sandbox
box = test_sandbox.Sandbox(parser="tests.ingestion.test_sandbox:child_sleeps")
threading.Thread(target=test_sandbox.parse, args=(box, Path(sys.argv[1]), "1000")).start()
"""


def test_a_killed_worker_takes_everything_with_it(tmp_path: Path) -> None:
    worker = subprocess.Popen(
        [sys.executable, "-c", WORKER, str(tmp_path / "x")],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    try:
        # zygote, child, and the sleep that the child has started
        wait_until(lambda: len(descendants(worker.pid)) >= 3)
        family = descendants(worker.pid)
        worker.kill()
        worker.wait()
        wait_until(lambda: not any(map(is_running, family)))
    finally:
        worker.kill()
        worker.wait()


def test_the_real_parsers_work_inside(tmp_path: Path) -> None:
    """unstructured and pandoc start under the limits, in a process without network."""
    path = tmp_path / "x"
    box = Sandbox()
    try:
        for media_type, data, expected in (
            ("text/markdown", b"# Top\n\nwords", "Top\n\nwords"),
            ("application/rtf", b"{\\rtf1\\ansi hello\\par world}", "hello\n\nworld"),
            ("text/csv", b"a,b\n1,2\n", "a | b\n1 | 2"),
        ):
            path.write_bytes(data)
            document = box.parse(path, media_type=media_type, filename="x", limits=Limits())
            assert document.text == expected
    finally:
        box.close()
