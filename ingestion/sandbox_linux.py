"""The few system calls that the sandbox needs and Python does not offer, by ctypes."""

from __future__ import annotations

import ctypes
import os
import resource
from pathlib import Path
from typing import Any, Final

PR_SET_PDEATHSIG: Final = 1
PR_SET_DUMPABLE: Final = 4
PR_SET_NO_NEW_PRIVS: Final = 38

CLONE_NEWNS: Final = 0x0002_0000
CLONE_NEWUTS: Final = 0x0400_0000
CLONE_NEWIPC: Final = 0x0800_0000
CLONE_NEWUSER: Final = 0x1000_0000
CLONE_NEWNET: Final = 0x4000_0000

MS_RDONLY: Final = 1
MS_NOSUID: Final = 2
MS_NODEV: Final = 4
MS_NOEXEC: Final = 8
MS_REMOUNT: Final = 32
MS_BIND: Final = 4096
MS_REC: Final = 16384
MS_PRIVATE: Final = 1 << 18
MNT_DETACH: Final = 2

_CAPABILITIES_VERSION: Final = 0x2008_0522
_PIVOT_ROOT: Final = {"x86_64": 155, "aarch64": 41}

libc: Final[Any] = ctypes.CDLL(None, use_errno=True)


def check(result: int, what: str) -> int:
    """``result`` of a C function, or OSError with its errno when it is negative."""
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")
    return result


def syscall(number: int, *arguments: Any) -> int:
    """A raw system call; every argument travels as a machine word. Raises OSError."""
    words = [ctypes.c_long(a) if isinstance(a, int) else a for a in arguments]
    return check(int(libc.syscall(ctypes.c_long(number), *words)), f"system call {number}")


def prctl(option: int, value: int) -> None:
    words = [ctypes.c_ulong(word) for word in (value, 0, 0, 0)]
    check(libc.prctl(option, *words), f"prctl({option})")


def unshare(flags: int) -> None:
    check(libc.unshare(flags), "unshare")


def mount(source: str, target: str, kind: str, flags: int, options: str = "") -> None:
    arguments = [os.fsencode(text) for text in (source, target, kind)]
    flag_word, data = ctypes.c_ulong(flags), os.fsencode(options)
    check(libc.mount(*arguments, flag_word, data), f"mount {target}")


def swap_root(new_root: str, put_old: str) -> None:
    """``new_root``, a mount point, becomes "/", and what was "/" appears at ``put_old``."""
    number = _PIVOT_ROOT[os.uname().machine]
    paths = [ctypes.c_char_p(os.fsencode(path)) for path in (new_root, put_old)]
    syscall(number, *paths)
    os.chdir("/")


def change_root(new_root: str) -> None:
    """``new_root``, a mount point, becomes "/" for good; what was outside of it is gone."""
    os.chdir(new_root)
    number = _PIVOT_ROOT[os.uname().machine]
    syscall(number, ctypes.c_char_p(b"."), ctypes.c_char_p(b"."))
    check(libc.umount2(b".", MNT_DETACH), "umount")
    os.chdir("/")


def drop_capabilities() -> None:
    """Keeps no capability, neither of the machine nor of this process's user namespace."""
    header = (ctypes.c_uint32 * 2)(_CAPABILITIES_VERSION, 0)
    nothing = (ctypes.c_uint32 * 6)()
    check(libc.capset(header, nothing), "capset")


def become(user: int) -> None:
    """Gives root up for ``user``, who is in no other group."""
    os.setgroups([])
    os.setresgid(user, user, user)
    os.setresuid(user, user, user)


def limit_processes(count: int) -> None:
    """Processes and threads of this user, counted in its user namespace from Linux 5.14 on.

    Before, the count is of the whole machine, and a limit would hit whoever happens to come last.
    """
    if _kernel_version() >= (5, 14):
        resource.setrlimit(resource.RLIMIT_NPROC, (count, count))


def _kernel_version() -> tuple[int, int]:
    major, minor, *_ = os.uname().release.replace("-", ".").split(".")
    return int(major), int(minor)


def mapped_bytes(proc: int) -> int:
    """Address space of this process. ``proc`` is a descriptor of /proc, which may be hidden."""
    descriptor = os.open("self/statm", os.O_RDONLY | os.O_CLOEXEC, dir_fd=proc)
    with os.fdopen(descriptor) as stream:
        return int(stream.read().split()[0]) * os.sysconf("SC_PAGESIZE")


def open_proc() -> int:
    return os.open(Path("/proc"), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
