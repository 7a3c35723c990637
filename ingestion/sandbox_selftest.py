"""Tries to break out of the parser sandbox, with children like those that parse.

The parse worker runs this at its start and does not work when anything succeeds; `manage.py
doctor` shows the result. What counts as a success is judged from outside wherever it can be: by
canary files, a listening socket, the number of processes that came to be.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import secrets
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path
from typing import Any, Final

from ingestion import sandbox_landlock as landlock
from ingestion import sandbox_linux as linux
from ingestion import sandbox_view as view
from ingestion.admission import RTF
from ingestion.elements import Element, ElementKind, ParsedDocument
from ingestion.errors import FailureCode, IngestionError
from ingestion.parsing_limits import Limits
from ingestion.sandbox import Sandbox

FAILURE_CODE: Final = "sandbox_unsafe"
EXIT_STATUS: Final = 78
"""Of a worker that will not start: EX_CONFIG of sysexits.h."""

_MEBIBYTE: Final = 1 << 20
_LIMITS: Final = Limits(
    wall_seconds=60,
    cpu_seconds=30,
    memory=256 * _MEBIBYTE,
    max_temporary_bytes=4 * _MEBIBYTE,
    max_bytes=_MEBIBYTE,
    max_output_bytes=_MEBIBYTE,
)
# Only the attack on this limit meets it: a busy machine can make a second of the others long.
_CPU_LIMITS: Final = replace(_LIMITS, cpu_seconds=1)
_FORKS: Final = 1_000
_PTRACE_SEIZE: Final = 0x4206  # does not stop its victim
_NEW_USER_NAMESPACE: Final = linux.CLONE_NEWUSER
_TRACE_CALLS: Final = {"x86_64": (101, 310), "aarch64": (117, 270)}
_ENDINGS: Final = {  # an attack that must end the child, and how
    "memory": (FailureCode.PARSE_MEMORY,),
    "time": (FailureCode.PARSE_TIMEOUT,),
}
_WORDS: Final = {
    "network": "open a network socket",
    "read": "read {detail}",
    "write": "write to {detail}",
    "trace": "look into other processes",
    "signal": "send signals to other processes",
    "rights": "gain rights or namespaces",
    "descriptors": "use an open file of another process ({detail})",
    "environment": "see an environment variable of the worker ({detail})",
    "run": "run a program it had written",
    "file": "write more than the limit on files",
    "forks": "start {detail} processes",
    "memory": "take more memory than the limit",
    "time": "run longer than the limit on CPU time",
}


@dataclass(frozen=True, slots=True)
class Report:
    """``problems`` are sentences, none when the sandbox holds; ``means`` is what holds it."""

    problems: tuple[str, ...]
    means: str


# In the worker


def run(
    *,
    folders: Sequence[Path],
    secret_paths: Sequence[Path] = (),
    zygote_options: Sequence[str] = (),
) -> Report:
    """Attack from the inside; takes about two seconds.

    ``folders`` are the site's: a canary is put into each that this process can write to, which a
    parser must neither read nor have company for. ``secret_paths`` must be unreadable, too.
    """
    box = Sandbox(
        parser="ingestion.sandbox_selftest:attempt", zygote_options=("--light", *zygote_options)
    )
    try:
        with _canaries([Path(tempfile.gettempdir()), *folders]) as canaries:
            return _attack(box, canaries, secret_paths)
    except IngestionError as error:
        return Report((f"The sandbox does not start: {error.cause or error.detail}",), "nothing")
    finally:
        box.close()


def _attack(box: Sandbox, canaries: list[Path], secret_paths: Sequence[Path]) -> Report:
    mark = secrets.token_hex(8)
    places = _places_to_write(canaries)
    order = {
        "mark": mark,
        "worker": os.getpid(),
        "environment": sorted(os.environ),
        "read": [*map(str, canaries), *map(str, secret_paths), "/etc/shadow", "/proc/1/environ"],
        "write": places,
    }
    try:
        with ThreadPoolExecutor(4) as pool:
            looking = pool.submit(_send, box, {"attack": "look", **order})
            forking = pool.submit(_send, box, {"attack": "forks", **order})
            filling = pool.submit(_send, box, {"attack": "files"})
            ending = {name: pool.submit(_send, box, {"attack": name}) for name in _ENDINGS}
            text = looking.result()
            if isinstance(text, IngestionError):
                raise text
            found = text.splitlines()
            means = [line.partition(" ")[2] for line in found if line.startswith("means ")]
            problems = [line for line in found if not line.startswith("means ")]
            count = forking.result()
            # Being killed for it, too, is an answer to these two.
            if isinstance(count, str) and int(count) >= _FORKS:
                problems.append(f"forks {count}")
            if filling.result() == "full":
                problems.append("file")
            for name, codes in _ENDINGS.items():
                ended = ending[name].result()
                if not isinstance(ended, IngestionError) or ended.code not in codes:
                    problems.append(name)
        problems += [f"write {place}" for place in places if Path(place, mark).exists()]
    finally:
        for place in places:
            with contextlib.suppress(OSError):
                Path(place, mark).unlink(missing_ok=True)
    return Report(tuple(map(_sentence, problems)), ", ".join(means))


def _sentence(problem: str) -> str:
    name, _, detail = problem.partition(" ")
    if name == "needs":
        return f"A parser process cannot {detail}."
    return f"A parser process could {_WORDS[name].format(detail=detail)}."


def _places_to_write(canaries: list[Path]) -> list[str]:
    places = {"/", "/tmp", "/var/tmp", "/dev/shm", str(Path.cwd()), sys.prefix}  # noqa: S108
    return sorted(places | {str(canary.parent) for canary in canaries})


@contextmanager
def _canaries(folders: Sequence[Path]) -> Iterator[list[Path]]:
    """Files that anybody may read by their mode, so that only the sandbox keeps them away."""
    with ExitStack() as stack:
        canaries = []
        for folder in dict.fromkeys(folders):
            canary = folder / f".canary-{secrets.token_hex(8)}"
            try:
                canary.write_text("canary")
            except OSError:
                continue
            stack.callback(canary.unlink, missing_ok=True)
            canary.chmod(0o644)
            canaries.append(canary)
        yield canaries


def _send(box: Sandbox, order: dict[str, Any]) -> str | IngestionError:
    limits = _CPU_LIMITS if order["attack"] == "time" else _LIMITS
    with tempfile.TemporaryDirectory(prefix="selftest-") as folder:
        path = Path(folder, "order")
        path.write_text(json.dumps(order))
        try:
            # RTF is one of the formats that other programs read, which need the most rights.
            return box.parse(path, media_type=RTF, filename="order", limits=limits).text
        except IngestionError as error:
            return error


# In the child


def attempt(data: bytes, **_: Any) -> ParsedDocument:
    """In place of a parser: what it managed to do, a line each."""
    order = json.loads(data)
    text = _ATTACKS[order["attack"]](order)
    return ParsedDocument(text, (Element(ElementKind.PARAGRAPH, 0, len(text)),), parser="selftest")


def _look(order: dict[str, Any]) -> str:
    found = [f"means {means}" for means in _means()]
    for look in (
        _network,
        _read,
        _write,
        _strangers,
        _inherited,
        _programs,
        _missing_needs,
    ):
        found += look(order)
    # Last, because a process that gets into another root finds nothing there any more.
    return "\n".join([*found, *_rights()])


def _means() -> Iterator[str]:
    if Path.cwd() == Path(view.PRIVATE):
        yield "namespaces"
    if number := landlock.version():
        yield f"Landlock {number}"
    yield "system call filter"


def _network(_: dict[str, Any]) -> Iterator[str]:
    for family in (socket.AF_INET, socket.AF_INET6, socket.AF_UNIX, socket.AF_NETLINK):
        with contextlib.suppress(OSError), socket.socket(family, socket.SOCK_DGRAM):
            yield "network"


def _read(order: dict[str, Any]) -> Iterator[str]:
    worker, zygote = order["worker"], os.getppid()
    for path in (*order["read"], f"/proc/{worker}/environ", f"/proc/{zygote}/environ"):
        with contextlib.suppress(OSError):
            if Path(path).is_dir():
                list(Path(path).iterdir())
            elif not Path(path).read_bytes():
                continue
            yield f"read {path}"


def _write(order: dict[str, Any]) -> Iterator[str]:
    """Whether it came to be on the machine, and not in the private folder, the worker looks."""
    for place in order["write"]:
        with contextlib.suppress(OSError):
            Path(place, order["mark"]).write_bytes(b"x")
    with contextlib.suppress(OSError), Path(sys.executable).open("ab"):
        yield f"write {sys.executable}"


def _strangers(order: dict[str, Any]) -> Iterator[str]:
    ptrace, read_memory = _TRACE_CALLS[os.uname().machine]
    place = ctypes.create_string_buffer(8)
    vector = (ctypes.c_void_p * 2)(ctypes.addressof(place), 8)
    for process in (order["worker"], os.getppid()):
        with contextlib.suppress(OSError):
            linux.syscall(ptrace, _PTRACE_SEIZE, process, 0, 0)
            yield "trace"
        with contextlib.suppress(OSError):
            linux.syscall(read_memory, process, ctypes.byref(vector), 1, ctypes.byref(vector), 1, 0)
            yield "trace"
        with contextlib.suppress(OSError):
            os.kill(process, 0)
            yield "signal"


def _rights() -> Iterator[str]:
    tries: tuple[Callable[[], object], ...] = (
        lambda: linux.unshare(_NEW_USER_NAMESPACE),
        lambda: linux.mount("tmpfs", str(Path.cwd()), "tmpfs", 0),
        lambda: os.setuid(0),
        lambda: os.chroot(str(Path.cwd())),
        os.setsid,
    )
    for try_ in tries:
        with contextlib.suppress(OSError):
            try_()
            yield "rights"
    if os.geteuid() == 0:
        yield "rights"


def _inherited(order: dict[str, Any]) -> Iterator[str]:
    for descriptor in range(3, 256):
        with contextlib.suppress(OSError):
            target = os.fstat(descriptor)
            # The answer's pipe is the one that must be there.
            if not stat.S_ISFIFO(target.st_mode):
                yield f"descriptors {descriptor}"
    secret = {"SECRET_KEY", "DATABASE_URL", "REDIS_URL", "LLM_API_KEY"}
    for name in sorted(secret.intersection(order["environment"], os.environ)):
        yield f"environment {name}"


def _programs(_: dict[str, Any]) -> Iterator[str]:
    program = Path("program")
    program.write_text("#!/bin/sh\nexit 0\n")
    program.chmod(0o700)
    with contextlib.suppress(OSError):
        subprocess.run(["./program"], check=True)
        yield "run"


def _missing_needs(_: dict[str, Any]) -> Iterator[str]:
    """A fence that is too narrow would fail documents one by one, and blame them."""
    try:
        Path(os.environ["TMPDIR"], "own").write_bytes(b"x")
    except OSError:
        yield "needs write to its own folder"
    try:
        import_module("wave")  # nothing that parses imports it
        import_module("pypdfium2.version")
    except ImportError:
        yield (
            f"needs import modules: install Python ({sys.base_prefix}) and its packages where "
            "every user may read them, or run the worker as the user who may"
        )
    for program in filter(None, (shutil.which("true"), shutil.which("tesseract"))):
        try:
            subprocess.run([program, "--version"], check=True, capture_output=True)  # noqa: S603
        except (OSError, subprocess.SubprocessError):
            yield f"needs start {program}"


def _forks(_: dict[str, Any]) -> str:
    count = 0
    while count < _FORKS:
        try:
            if os.fork() == 0:
                time.sleep(60)  # the zygote ends it with the child's group
                os._exit(0)
        except OSError:
            break
        count += 1
    return str(count)


def _files(_: dict[str, Any]) -> str:
    """One file above the limit."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    with contextlib.suppress(OSError):
        Path("large").write_bytes(bytes(_LIMITS.max_temporary_bytes + 1))
        return "full"
    return "refused"


def _memory(_: dict[str, Any]) -> str:
    """One byte more than the limit, whatever the process has freed within it."""
    hoard = [bytearray(_MEBIBYTE) for _ in range(_LIMITS.memory // _MEBIBYTE)]
    hoard.append(bytearray(1))
    return str(len(hoard))


def _time(_: dict[str, Any]) -> str:
    """Measured in CPU time, which a busy machine does not give quickly."""
    while time.process_time() < 3 * _CPU_LIMITS.cpu_seconds:
        pass
    return "late"


_ATTACKS: Final[dict[str, Callable[[dict[str, Any]], str]]] = {
    "look": _look,
    "forks": _forks,
    "files": _files,
    "memory": _memory,
    "time": _time,
}
