"""What the zygote counts because no limit of the kernel does: each child with all it has started.

The kernel bounds the memory of every process, not the sum of a child and its programs. And without
a user namespace it counts the processes of a user, worker included, and bounds each file, not the
sum of them. So the zygote looks, several times a second.
"""

from __future__ import annotations

import contextlib
import os
import signal
from dataclasses import dataclass
from pathlib import Path
from typing import Final

_MAX_FILES: Final = 10_000
_PAGE: Final = os.sysconf("SC_PAGESIZE")
# Fields of /proc/PID/stat, counted from the one after the name.
_GROUP: Final = 2
_SESSION: Final = 3
_RESIDENT_PAGES: Final = 21


@dataclass(slots=True)
class Group:
    """``memory`` is resident, in bytes; pages that processes share count once for each."""

    processes: int = 0
    memory: int = 0


def measure_groups(proc: int) -> dict[int, Group]:
    """Every process group of the machine. ``proc`` is a descriptor of /proc."""
    groups: dict[int, Group] = {}
    for name in os.listdir(proc):
        if not name.isdigit():
            continue
        try:
            descriptor = os.open(f"{name}/stat", os.O_RDONLY | os.O_CLOEXEC, dir_fd=proc)
            with os.fdopen(descriptor, "rb") as stream:
                fields = stream.read().rpartition(b")")[2].split()
        except OSError:  # has ended
            continue
        group = groups.setdefault(int(fields[_GROUP]), Group())
        group.processes += 1
        group.memory += int(fields[_RESIDENT_PAGES]) * _PAGE
    return groups


def kill_session(session: int) -> None:
    """End what is left of a session whose first process has ended. For the worker.

    A zygote that was killed took its children with it, but not the programs they had started.
    """
    members = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            fields = (entry / "stat").read_bytes().rpartition(b")")[2].split()
        except OSError:
            continue
        if int(fields[_SESSION]) == session:
            members.append(int(entry.name))
    if session in members:  # the number has been given to somebody else
        return
    for process in members:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(process, signal.SIGKILL)


def is_fuller_than(directory: str, limit: int) -> bool:
    """Whether the files below ``directory`` take more than ``limit`` bytes, or are too many."""
    taken = files = 0
    for folder, _, names in os.walk(directory):
        for name in names:
            try:
                taken += Path(folder, name).lstat().st_blocks * 512
            except OSError:
                continue
            files += 1
            if taken > limit or files > _MAX_FILES:
                return True
    return False
