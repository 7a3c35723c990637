"""What a parser process sees of the machine: namespaces of its own and a root of its own.

    zygote   no network, other processes' IPC or host name; "/" is a small read-only tree of what
             programs need (READABLE below); root becomes nobody
      child  its own user namespace, so that its processes are counted apart from all others', and
             a private tmpfs on PRIVATE, the only place to write, of limited size

Where the kernel or the container refuses this (``can_enclose``), Landlock and the system call
filter remain, the private folder is a temporary folder on disk, and the zygote counts processes
and bytes (sandbox_watch). Either the tree or Landlock must be there: see ``sandbox_child``.
"""

from __future__ import annotations

import ctypes
import os
import stat
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Final

from ingestion import sandbox_linux as linux

PRIVATE: Final = "/private"
NOBODY: Final = 65534
"""Becomes of root: the user that owns nothing."""

_ROOT: Final = Path(__file__).resolve().parent.parent
_SYSTEM: Final = (
    *("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/nix/store", "/gnu/store"),
    *("/etc/ld.so.cache", "/etc/ld.so.conf", "/etc/ld.so.conf.d", "/etc/alternatives"),
    *("/etc/fonts", "/etc/localtime", "/etc/mime.types", "/etc/magic"),
)
_DEVICES: Final = ("/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom")
_MOUNT_SETATTR: Final = 442  # the same number on every architecture
_AT_RECURSIVE: Final = 0x8000
_AT_FDCWD: Final = -100
_MAX_FILES: Final = 100_000
_STAGE: Final = "/tmp"  # noqa: S108 - only where the tree is built; nothing is kept there


def readable_paths(parser_module: str) -> tuple[str, ...]:
    """What parsing needs to read: the interpreter, its packages, the parsers, system libraries.

    Not the folder of this project, in which the site's data may be.
    """
    paths = [sys.prefix, sys.exec_prefix, sys.base_prefix, sys.base_exec_prefix]
    paths += [entry for entry in sys.path if entry and not _ROOT.is_relative_to(entry)]
    for package in ("ingestion", parser_module.partition(".")[0]):
        spec = find_spec(package)
        if spec is not None:
            paths += spec.submodule_search_locations or ([spec.origin] if spec.origin else [])
    resolved = [os.path.realpath(path) for path in paths]
    return tuple(_without_nested([*_SYSTEM, *paths, *resolved, *_DEVICES]))


def _without_nested(paths: list[str]) -> list[str]:
    kept: list[str] = []
    for path in sorted({path for path in paths if Path(path).exists()}):
        if not any(path == other or path.startswith(f"{other}/") for other in kept):
            kept.append(path)
    return kept


def can_enclose(readable: tuple[str, ...]) -> bool:
    """Tries ``enclose`` and ``enclose_child`` in a process of its own, which nothing is left of.

    Raises OSError when that process was killed: this says nothing about the kernel, and must not
    make do with less.
    """
    process = os.fork()
    if process == 0:
        try:
            proc = linux.open_proc()
            enclose(readable)
            enclose_child(proc, max_bytes=1 << 20, max_processes=8)
            Path(PRIVATE, "probe").write_bytes(b"x")
            os._exit(0)
        finally:
            os._exit(1)
    status = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
    if status < 0:
        raise OSError(f"the trial of the parser's fence was killed by signal {-status}")
    return status == 0


def enclose(readable: tuple[str, ...]) -> None:
    """For the zygote: namespaces, a root of ``readable`` alone, and no rights. Raises OSError."""
    user, group = os.getuid(), os.getgid()
    spaces = linux.CLONE_NEWNS | linux.CLONE_NEWNET | linux.CLONE_NEWIPC | linux.CLONE_NEWUTS
    if user == 0:
        linux.unshare(spaces)
    else:
        proc = linux.open_proc()
        linux.unshare(spaces | linux.CLONE_NEWUSER)
        _keep_identity(proc, user, group)
        os.close(proc)
    linux.mount("none", "/", "", linux.MS_REC | linux.MS_PRIVATE)
    _build_root(readable)
    owner = NOBODY if user == 0 else user
    # Libraries look for a temporary folder when they are imported; children get one of their own.
    _mount_private(f"size=1m,mode=0700,uid={owner},gid={NOBODY if user == 0 else group}")
    if user == 0:
        linux.become(NOBODY)
    linux.drop_capabilities()


def enclose_child(proc: int, *, max_bytes: int, max_processes: int) -> None:
    """For the child of an enclosed zygote: its private folder and its own count of processes.

    ``proc`` is a descriptor of /proc, which the tree does not hold. Raises OSError.
    """
    user, group = os.getuid(), os.getgid()
    linux.prctl(linux.PR_SET_DUMPABLE, 1)  # else root would own the files of the mapping
    linux.unshare(linux.CLONE_NEWUSER | linux.CLONE_NEWNS)
    _keep_identity(proc, user, group)
    _mount_private(f"size={max_bytes},nr_inodes={_MAX_FILES},mode=0700")
    linux.drop_capabilities()
    linux.limit_processes(max_processes)


def _mount_private(options: str) -> None:
    flags = linux.MS_NOSUID | linux.MS_NODEV | linux.MS_NOEXEC
    linux.mount("tmpfs", PRIVATE, "tmpfs", flags, options)


def _keep_identity(proc: int, user: int, group: int) -> None:
    """In a new user namespace: the same user and group as outside, and no way to change groups."""
    for name, line in (
        ("setgroups", "deny"),
        ("uid_map", f"{user} {user} 1"),
        ("gid_map", f"{group} {group} 1"),
    ):
        descriptor = os.open(f"self/{name}", os.O_WRONLY | os.O_CLOEXEC, dir_fd=proc)
        try:
            os.write(descriptor, line.encode())
        finally:
            os.close(descriptor)


def _build_root(readable: tuple[str, ...]) -> None:
    """A tmpfs with the readable paths bound into it becomes "/".

    In two turns, as bubblewrap does it: the first root holds the old tree and the new one side by
    side, so that whatever lies below the staging folder can be bound, too.
    """
    sources = {path: os.path.realpath(path) for path in readable}
    linux.mount("tmpfs", _STAGE, "tmpfs", linux.MS_NOSUID | linux.MS_NODEV, "mode=0755")
    stage = Path(_STAGE)
    (stage / "old").mkdir()
    (stage / "new").mkdir()
    linux.swap_root(_STAGE, f"{_STAGE}/old")
    linux.mount("tmpfs", "/new", "tmpfs", linux.MS_NOSUID | linux.MS_NODEV, "mode=0755")
    for path, source in sources.items():
        _bind(f"/old{source}", f"/new{path}")
    Path(f"/new{PRIVATE}").mkdir()
    if not Path("/new/tmp").exists():
        Path("/new/tmp").symlink_to(PRIVATE)  # for programs that do not ask TMPDIR
    _make_read_only("/new", recursive=False)  # what is bound has its own flags already
    linux.change_root("/new")


def _bind(source: str, target: str) -> None:
    place = Path(target)
    place.parent.mkdir(parents=True, exist_ok=True)
    mode = Path(source).stat().st_mode
    if stat.S_ISDIR(mode):
        place.mkdir(exist_ok=True)
    else:
        place.touch()
    linux.mount(source, target, "", linux.MS_BIND | linux.MS_REC)
    _make_read_only(target, devices=stat.S_ISCHR(mode))


def _make_read_only(path: str, *, devices: bool = False, recursive: bool = True) -> None:
    """The mount at ``path`` and, from Linux 5.12, those below it."""
    flags = linux.MS_RDONLY | linux.MS_NOSUID | (0 if devices else linux.MS_NODEV)
    # struct mount_attr; its flags have the values of these three MS_ flags
    attributes = (ctypes.c_uint64 * 4)(flags, 0, 0, 0)
    try:
        linux.syscall(
            _MOUNT_SETATTR,
            _AT_FDCWD,
            ctypes.c_char_p(os.fsencode(path)),
            _AT_RECURSIVE if recursive else 0,
            ctypes.byref(attributes),
            ctypes.sizeof(attributes),
        )
    except OSError:
        # statvfs and mount agree on the flags that a less privileged namespace may not clear
        flags |= os.statvfs(path).f_flag & (linux.MS_NOEXEC | linux.MS_NODEV)
        linux.mount("none", path, "", flags | linux.MS_REMOUNT | linux.MS_BIND)
