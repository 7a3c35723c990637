"""Everything a parser process gives up, in the order in which it must.

The zygote prepares a Fence once, each child goes behind it. docs/security.md says which part
holds what, and what is left where the kernel offers less. Nothing here can be switched off; a part
that the kernel refuses is an error unless another part holds the same line.
"""

from __future__ import annotations

import os
import resource
import signal
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from ingestion import sandbox_landlock as landlock
from ingestion import sandbox_linux as linux
from ingestion import sandbox_seccomp as seccomp
from ingestion import sandbox_view as view
from ingestion.sandbox_wire import Request

MAX_PROCESSES: Final = 64
"""Processes and threads of one child and all it starts."""
# Outside of a user namespace everything that runs as nobody on this machine counts together.
_MAX_PROCESSES_OF_NOBODY: Final = 512
_WITHOUT_PROGRAMS: Final = frozenset({"text"})


@dataclass(frozen=True, slots=True)
class Fence:
    """``proc`` is a descriptor of /proc. ``readable`` are the paths that parsing needs.

    ``is_enclosed``: the zygote has namespaces and a root of its own (sandbox_view). ``landlock`` is
    the version of the kernel's interface, 0 for none. ``filter`` is the assembled filter of system
    calls, None when it depends on the child.
    """

    proc: int
    readable: tuple[str, ...]
    is_enclosed: bool
    landlock: int
    may_start_programs: bool
    filter: bytes | None


def prepare(*, parser_module: str, family: str, absent: Sequence[str] = ()) -> Fence:
    """Encloses this process, the zygote, before it has imported a parser, as far as it can.

    ``absent`` ("namespaces", "landlock") takes the way of a kernel without them; tests use it.
    """
    proc = linux.open_proc()
    readable = view.readable_paths(parser_module)
    is_enclosed = "namespaces" not in absent and view.can_enclose(readable)
    if is_enclosed:
        view.enclose(readable)
        # Named, because /tmp is no way to it where the program itself lies below /tmp.
        os.environ["TMPDIR"] = view.PRIVATE
    version = 0 if "landlock" in absent else landlock.version()
    programs = family not in _WITHOUT_PROGRAMS
    code = None
    if version >= landlock.SIGNALS_SCOPED:
        code = seccomp.assemble(may_start_programs=programs, signals_to=None)
    return Fence(proc, readable, is_enclosed, version, programs, code)


def go_behind(fence: Fence, request: Request, *, parent: int) -> None:
    """For the child, right after the fork. ``parent`` is the zygote's process id.

    Raises OSError when a protection is refused and nothing else holds its line.
    """
    limits = request.limits
    mapped = linux.mapped_bytes(fence.proc)
    directory = _take_identity(fence, request)
    # After the identity: changing that forgets this.
    linux.prctl(linux.PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # the zygote died before the line above took effect
        os._exit(1)
    os.close(fence.proc)
    os.umask(0o077)
    os.environ["TMPDIR"] = os.environ["HOME"] = directory
    tempfile.tempdir = None
    os.chdir(directory)
    linux.prctl(linux.PR_SET_NO_NEW_PRIVS, 1)
    if fence.landlock:
        landlock.confine(readable=fence.readable, writable=directory)
    elif not fence.is_enclosed:
        raise OSError("the kernel grants neither Landlock nor namespaces")
    linux.prctl(linux.PR_SET_DUMPABLE, 0)  # /proc/PID of this process is closed to its equals
    _lower(resource.RLIMIT_CORE, 0)
    _lower(resource.RLIMIT_FSIZE, limits.max_temporary_bytes)
    _lower(resource.RLIMIT_NOFILE, limits.max_open_files)
    # The soft limit sends SIGXCPU, which tells time from memory; the hard one kills.
    _lower(resource.RLIMIT_CPU, limits.cpu_seconds, spare=1)
    _lower(resource.RLIMIT_AS, mapped + limits.memory)
    seccomp.install(
        fence.filter
        or seccomp.assemble(may_start_programs=fence.may_start_programs, signals_to=os.getpid())
    )


def _take_identity(fence: Fence, request: Request) -> str:
    """Who the child is from now on; returns its private folder."""
    if fence.is_enclosed:
        view.enclose_child(
            fence.proc,
            max_bytes=request.limits.max_temporary_bytes,
            max_processes=MAX_PROCESSES,
        )
        return view.PRIVATE
    if os.getuid() == 0:
        os.chown(request.directory, view.NOBODY, view.NOBODY)
        linux.become(view.NOBODY)
        linux.limit_processes(_MAX_PROCESSES_OF_NOBODY)
    linux.drop_capabilities()
    return request.directory


def _lower(limit: int, value: int, *, spare: int = 0) -> None:
    _, hard = resource.getrlimit(limit)
    most = value + spare if hard == resource.RLIM_INFINITY else min(value + spare, hard)
    resource.setrlimit(limit, (min(value, most), most))
