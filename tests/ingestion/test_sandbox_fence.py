"""What holds a hostile parser where the kernel offers all, and where it offers less.

The functions named ``child_*`` run in the sandboxed child in place of the parser. ``MODES`` force
the ways of kernels and containers that refuse something.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import pytest

from ingestion import sandbox_landlock, sandbox_seccomp, sandbox_view
from ingestion.admission import RTF
from ingestion.elements import Element, ElementKind, ParsedDocument
from ingestion.errors import FailureCode, IngestionError
from ingestion.parsing_limits import Limits
from ingestion.sandbox import Sandbox
from ingestion.sandbox_fence import MAX_PROCESSES

MODES: Final = {
    "everything": (),
    "no namespaces": ("--absent", "namespaces"),
    "no Landlock": ("--absent", "landlock"),
}
LIMITS: Final = Limits(
    wall_seconds=120, cpu_seconds=120, memory=256 << 20, max_temporary_bytes=4 << 20
)


def words(text: str) -> ParsedDocument:
    return ParsedDocument(text, (Element(ElementKind.PARAGRAPH, 0, len(text)),), parser="test")


def child_calls(data: bytes, **_: Any) -> ParsedDocument:
    """The errno of each system call asked for; 0 when it went through."""
    libc = ctypes.CDLL(None, use_errno=True)
    results = []
    for line in data.decode().splitlines():
        numbers = [ctypes.c_long(int(word)) for word in line.split()]
        ctypes.set_errno(0)
        libc.syscall(*numbers)
        results.append(str(ctypes.get_errno()))
    return words(" ".join(results))


def child_starts_a_program(data: bytes, **_: Any) -> ParsedDocument:
    try:
        subprocess.run(["/bin/true"], check=True)
    except OSError as error:
        return words(f"errno {error.errno}")
    return words("started")


def child_forks(data: bytes, **_: Any) -> ParsedDocument:
    count = 0
    while count < 1000:
        try:
            if os.fork() == 0:
                time.sleep(300)
                os._exit(0)
        except OSError:
            break
        count += 1
    if count > MAX_PROCESSES:
        time.sleep(60)  # only the zygote counts, and it comes round within this
    return words(str(count))


def child_shares_out_its_hunger(data: bytes, **_: Any) -> ParsedDocument:
    """Eight programs, none of which takes more than the limit for itself."""
    hunger = "import time; hoard = bytearray(b'x') * (100 << 20); time.sleep(300)"
    programs = [subprocess.Popen(["/usr/bin/env", "python3", "-c", hunger]) for _ in range(8)]
    for program in programs:
        program.wait()
    return words("fed")


def child_fills_its_folder(data: bytes, **_: Any) -> ParsedDocument:
    for number in range(10):
        try:
            Path(f"part-{number}").write_bytes(bytes(1 << 20))
        except OSError as error:
            return words(f"errno {error.errno}")
    time.sleep(60)  # where only the zygote looks, it comes round within this
    return words("full")


def child_lists(data: bytes, **_: Any) -> ParsedDocument:
    """The places that it can look into and what it sees there, a line each."""
    seen = []
    for place in data.decode().splitlines():
        try:
            seen.append(" ".join([place, *sorted(path.name for path in Path(place).iterdir())]))
        except OSError as error:
            assert error.errno in (errno.EACCES, errno.ENOENT), error
    return words("\n".join(seen) or "nothing")


def child_decodes(data: bytes, **_: Any) -> ParsedDocument:
    """Needs a module that is imported when it is first used."""
    return words(data.decode("shift_jis_2004"))


@contextmanager
def sandbox(parser: str, mode: str) -> Iterator[Sandbox]:
    box = Sandbox(
        parser=f"tests.ingestion.test_sandbox_fence:{parser}",
        zygote_options=("--light", *MODES[mode]),
    )
    try:
        yield box
    finally:
        box.close()


@pytest.fixture
def ask(tmp_path: Path) -> Callable[..., str]:
    """The words a child answers with, or the code it ends in."""

    def ask(
        parser: str,
        data: str = "x",
        *,
        mode: str = "everything",
        media_type: str = RTF,
        limits: Limits = LIMITS,
    ) -> str:
        path = tmp_path / "document"
        path.write_text(data)
        with sandbox(parser, mode) as box:
            try:
                parsed = box.parse(path, media_type=media_type, filename="x", limits=limits)
            except IngestionError as error:
                return error.code
            return parsed.text

    return ask


def offered(mode: str) -> None:
    """Skip where this machine itself does not offer what the mode leaves."""
    readable = sandbox_view.readable_paths("ingestion")
    if mode != "no namespaces" and not sandbox_view.can_enclose(readable):
        pytest.skip("this kernel or container refuses namespaces")
    if mode != "no Landlock" and not sandbox_landlock.version():
        pytest.skip("this kernel has no Landlock")


@pytest.fixture(params=MODES)
def mode(request: pytest.FixtureRequest) -> str:
    offered(request.param)
    return str(request.param)


def test_system_calls_are_filtered(ask: Callable[..., str], mode: str) -> None:
    if platform.machine() != "x86_64":
        pytest.skip("the numbers below are those of x86_64")
    calls = {
        "41 2 1 0": errno.EPERM,  # socket(AF_INET, SOCK_STREAM)
        "41 10 2 0": errno.EPERM,  # socket(AF_INET6, SOCK_DGRAM)
        "41 1 1 0": errno.EPERM,  # socket(AF_UNIX): services of this machine listen there
        "53 2 1 0 0": errno.EPERM,  # socketpair(AF_INET)
        "101 0 0 0 0": errno.EPERM,  # ptrace(TRACEME)
        "272 268435456": errno.EPERM,  # unshare(CLONE_NEWUSER)
        "56 268435473 0 0 0 0": errno.EPERM,  # clone(CLONE_NEWUSER | SIGCHLD)
        "435 0 0": errno.ENOSYS,  # clone3
        "425 1 0": errno.ENOSYS,  # io_uring_setup
        "460 0 0 0": errno.ENOSYS,  # newer than the list
        "16 0 21522 0": errno.EPERM,  # ioctl(TIOCSTI)
        "135 4": errno.EPERM,  # personality(0x4)
        "302 1 7 0 0": errno.EPERM,  # prlimit64 of another process
        "157 1 0 0 0 0": errno.EPERM,  # prctl(PR_SET_PDEATHSIG, 0)
        "157 4 1 0 0 0": errno.EPERM,  # prctl(PR_SET_DUMPABLE, 1)
        "112": errno.EPERM,  # setsid
        "321 0 0 0": errno.EPERM,  # bpf
        "39": 0,  # getpid
    }
    answers = ask("child_calls", "\n".join(calls), mode=mode).split()
    assert dict(zip(calls, map(int, answers), strict=True)) == calls


def test_calls_of_another_architecture_end_the_child(ask: Callable[..., str]) -> None:
    if platform.machine() != "x86_64":
        pytest.skip("x32 belongs to x86_64")
    assert ask("child_calls", str(0x4000_0000 | 39)) == FailureCode.PARSE_CRASHED


def test_only_formats_that_need_programs_may_start_them(ask: Callable[..., str], mode: str) -> None:
    assert ask("child_starts_a_program", mode=mode) == "started"
    text = ask("child_starts_a_program", mode=mode, media_type="text/markdown")
    assert text == f"errno {errno.EPERM}"
    assert ask("child_forks", mode=mode, media_type="text/markdown") == "0"


def test_a_fork_bomb_is_bounded(ask: Callable[..., str], mode: str) -> None:
    answer = ask("child_forks", mode=mode, limits=replace(LIMITS, memory=8 << 30))
    if mode == "no namespaces":
        # Nothing but the zygote counts, and it ends the whole child.
        assert answer == FailureCode.PARSE_CRASHED
    else:
        assert 1 <= int(answer) < MAX_PROCESSES


def test_memory_is_that_of_a_child_and_its_programs_together(
    ask: Callable[..., str], mode: str
) -> None:
    assert ask("child_shares_out_its_hunger", mode=mode) == FailureCode.PARSE_MEMORY


def test_the_private_folder_is_bounded_as_a_whole(ask: Callable[..., str], mode: str) -> None:
    answer = ask("child_fills_its_folder", mode=mode)
    if mode == "no namespaces":
        assert answer == FailureCode.PARSE_CRASHED
    else:
        assert answer == f"errno {errno.ENOSPC}"


def test_what_is_not_needed_is_not_there(ask: Callable[..., str], mode: str) -> None:
    project = Path(__file__).resolve().parents[2]
    places = ["/home", "/etc", "/proc", "/proc/1", "/sys", "/var", str(project)]
    seen = ask("child_lists", "\n".join(places), mode=mode)
    if mode == "no namespaces":
        assert seen == "nothing"
        return
    # With a root of its own, the way to what is needed can be walked, and nothing beside it.
    on_the_way = {
        *("alternatives", "fonts", "ld.so.cache", "ld.so.conf", "ld.so.conf.d", "localtime"),
        *("magic", "mime.types", "ingestion", "tests", ".venv"),
    }
    for line in seen.splitlines():
        assert set(line.split()[1:]) <= on_the_way, line


def test_modules_can_still_be_imported(ask: Callable[..., str]) -> None:
    offered("everything")
    assert ask("child_decodes", "words") == "words"


def test_without_any_view_of_its_own_nothing_is_parsed(tmp_path: Path) -> None:
    (tmp_path / "x").write_text("x")
    box = Sandbox(zygote_options=("--light", "--absent", "namespaces", "landlock"))
    try:
        with pytest.raises(IngestionError) as caught:
            box.parse(tmp_path / "x", media_type="text/plain", filename="x", limits=LIMITS)
    finally:
        box.close()
    assert caught.value.code is FailureCode.SANDBOX_LOST
    assert "neither" in caught.value.cause


def run_filter(program: list[tuple[int, int, int, int]], number: int, architecture: int) -> int:
    """What a filter answers to a system call with arguments 0: a classic BPF machine."""
    data = struct.pack("=IIQ6Q", number, architecture, 0, *[0] * 6)
    at = accumulator = 0
    while True:
        code, jump_true, jump_false, operand = program[at]
        at += 1
        match code:
            case 0x20:
                (accumulator,) = struct.unpack_from("=I", data, operand)
            case 0x15:
                at += jump_true if accumulator == operand else jump_false
            case 0x35:
                at += jump_true if accumulator >= operand else jump_false
            case 0x45:
                at += jump_true if accumulator & operand else jump_false
            case 0x06:
                return operand


@pytest.mark.parametrize(
    ("machine", "architecture", "socket_number", "getpid"),
    [("x86_64", 0xC000_003E, 41, 39), ("aarch64", 0xC000_00B7, 198, 172)],
)
def test_the_filter_of_each_machine(
    monkeypatch: pytest.MonkeyPatch,
    machine: str,
    architecture: int,
    socket_number: int,
    getpid: int,
) -> None:
    names = os.uname()
    faked = os.uname_result((*names[:4], machine))
    monkeypatch.setattr(os, "uname", lambda: faked)
    for programs in (True, False):
        program = sandbox_seccomp._program(may_start_programs=programs, signals_to=4711)
        assert len(program) < 4096
        refused = 0x0005_0000 | errno.EPERM
        assert run_filter(program, socket_number, architecture) == refused
        assert run_filter(program, getpid, architecture) == 0x7FFF_0000
        assert run_filter(program, 435, architecture) == 0x0005_0000 | errno.ENOSYS
        assert run_filter(program, getpid, 0x4000_0003) == 0x8000_0000  # i386
        execve = {"x86_64": 59, "aarch64": 221}[machine]
        assert (run_filter(program, execve, architecture) == refused) is not programs


def test_an_unknown_machine_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    faked = os.uname_result((*os.uname()[:4], "riscv64"))
    monkeypatch.setattr(os, "uname", lambda: faked)
    with pytest.raises(OSError, match="riscv64"):
        sandbox_seccomp.assemble(may_start_programs=False, signals_to=None)


def test_the_tables_are_those_of_the_kernel() -> None:
    """Against the kernel's own headers, where they are installed."""
    headers = (
        (0, Path(f"/usr/include/{platform.machine()}-linux-gnu/asm/unistd_64.h")),
        (1, Path("/usr/include/asm-generic/unistd.h")),
    )
    if not headers[1][1].exists() or sys.platform != "linux":
        pytest.skip("linux-libc-dev is not installed")
    for column, header in headers:
        if not header.exists():
            continue
        known = {}
        for line in header.read_text().splitlines():
            parts = line.split()
            if len(parts) >= 3 and parts[0] == "#define" and parts[2].isdigit():
                known[parts[1].removeprefix("__NR3264_").removeprefix("__NR_")] = int(parts[2])
        ours = sandbox_seccomp._FORBIDDEN | sandbox_seccomp._STARTING | sandbox_seccomp._ABSENT
        for name, numbers in ours.items():
            if name in known:
                assert numbers[column] == known[name], name
