"""The child that parses one document: gives up what it can, parses, answers, ends.

What it gives up here: network, new privileges, core dumps, memory, CPU time, file sizes and
descriptors beyond the limits; it inherits no secret because the zygote's environment has none. A
system call filter belongs into ``restrict`` beside these.
"""

from __future__ import annotations

import ctypes
import json
import os
import resource
import signal
import socket
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, NoReturn

from ingestion.elements import ParsedDocument
from ingestion.errors import FailureCode, IngestionError
from ingestion.parsing_json import to_json
from ingestion.sandbox_wire import FrameKind, Request, write_frame

Parser = Callable[..., ParsedDocument]

_PR_SET_PDEATHSIG: Final = 1
_PR_SET_DUMPABLE: Final = 4
_PR_SET_NO_NEW_PRIVS: Final = 38
_CLONE_NEWUSER: Final = 0x1000_0000
_CLONE_NEWNET: Final = 0x4000_0000
_PROGRESS_STEPS: Final = 200


def run_child(
    request: Request, parser: Parser, *, document: int, output: int, parent: int
) -> NoReturn:
    """Called right after the fork; never returns. ``parent`` is the zygote's process id."""
    status = 1
    try:
        restrict(request, parent=parent)
        _answer(request, parser, document, output)
        status = 0
    except BrokenPipeError:
        pass  # nobody is waiting any more
    except MemoryError:
        status = _fail(output, FailureCode.PARSE_MEMORY, "MemoryError")
    except BaseException as error:  # noqa: BLE001 - the last frame of this process
        status = _fail(output, FailureCode.PARSE_CRASHED, f"{type(error).__name__}: {error}"[:500])
    finally:
        os._exit(status)  # no atexit handlers, no flushing of what the zygote had buffered


def restrict(request: Request, *, parent: int) -> None:
    """Gives up every right that parsing does not need. Raises OSError when a limit is refused."""
    libc = ctypes.CDLL(None, use_errno=True)
    _prctl(libc, _PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # the zygote died before the line above took effect
        os._exit(1)
    limits = request.limits
    os.environ["TMPDIR"] = os.environ["HOME"] = request.directory
    tempfile.tempdir = None
    os.chdir(request.directory)
    _without_network(libc)
    _prctl(libc, _PR_SET_NO_NEW_PRIVS, 1)
    _prctl(libc, _PR_SET_DUMPABLE, 0)  # /proc/PID of this process is closed to its equals
    _lower(resource.RLIMIT_CORE, 0)
    _lower(resource.RLIMIT_FSIZE, limits.max_temporary_bytes)
    _lower(resource.RLIMIT_NOFILE, limits.max_open_files)
    # The soft limit sends SIGXCPU, which tells time from memory; the hard one kills.
    _lower(resource.RLIMIT_CPU, limits.cpu_seconds, spare=1)
    _lower(resource.RLIMIT_AS, _mapped_bytes() + limits.memory)


def has_network() -> bool:
    """Whether this process can still make an internet socket that reaches an interface."""
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            probe.connect(("192.0.2.1", 9))  # TEST-NET-1: sends nothing
    except OSError:
        return False
    return True


def _without_network(libc: Any) -> None:
    """An empty network namespace; where the kernel refuses one, Python makes no sockets."""
    for flags in (_CLONE_NEWUSER | _CLONE_NEWNET, _CLONE_NEWNET):
        if libc.unshare(flags) == 0:
            return
    refuse: Any = _refuse_socket
    socket.socket = refuse  # type: ignore[misc]
    socket.create_connection = refuse
    socket.getaddrinfo = refuse


def _refuse_socket(*_arguments: object, **_options: object) -> NoReturn:
    raise PermissionError("no network in the parser sandbox")


def _prctl(libc: Any, option: int, value: int) -> None:
    if libc.prctl(option, value, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), f"prctl({option})")


def _lower(limit: int, value: int, *, spare: int = 0) -> None:
    _, hard = resource.getrlimit(limit)
    most = value + spare if hard == resource.RLIM_INFINITY else min(value + spare, hard)
    resource.setrlimit(limit, (min(value, most), most))


def _mapped_bytes() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    return pages * resource.getpagesize()


def _answer(request: Request, parser: Parser, document: int, output: int) -> None:
    with os.fdopen(document, "rb") as stream:
        stream.seek(0)
        data = stream.read(request.limits.max_bytes + 1)
    try:
        parsed = parser(
            data,
            media_type=request.media_type,
            limits=request.limits,
            on_progress=_progress_writer(output),
        )
    except IngestionError as error:
        _fail(output, error.code, error.cause, error.parameters)
        return
    write_frame(output, FrameKind.DOCUMENT, to_json(parsed))


def _progress_writer(output: int) -> Callable[[int, int], None]:
    shown = 0

    def write(done: int, total: int) -> None:
        nonlocal shown
        step = done * _PROGRESS_STEPS // max(total, 1)
        if step > shown or done == total:
            shown = step
            payload = json.dumps({"done": done, "total": total}).encode()
            write_frame(output, FrameKind.PROGRESS, payload)

    return write


def _fail(
    output: int, code: FailureCode, cause: str, parameters: dict[str, str] | None = None
) -> int:
    payload = {"code": code, "cause": cause, "parameters": parameters or {}}
    data = json.dumps(payload).encode("utf-8", "replace")
    try:
        write_frame(output, FrameKind.FAILURE, data)
    except OSError:
        return 1
    return 0
