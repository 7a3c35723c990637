"""PostgreSQL settings that fit this machine, from 2 GiB up."""

from __future__ import annotations

import os
from pathlib import Path

_MIB = 1024 * 1024
_LEAST_CONNECTIONS = 120
_CGROUP_LIMITS = (
    Path("/sys/fs/cgroup/memory.max"),
    Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"),
)


def memory_bytes() -> int:
    """Memory that this process may use: the machine's, or its container's if that is less."""
    machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    limits = [machine]
    for file in _CGROUP_LIMITS:
        try:
            limits.append(int(file.read_text(encoding="ascii")))
        except (OSError, ValueError):  # no such group, or "max"
            continue
    return min(limits)


def database_settings(memory: int | None = None, *, connections: int = 0) -> dict[str, str]:
    """Settings of the embedded server for a machine it shares with the models.

    ``memory`` is in bytes, None for this machine's; ``connections`` is how many will be wanted.
    An eighth of memory as cache (PostgreSQL's usual quarter would crowd the models out), index
    builds within a thirty-second, both bounded.
    """
    memory = memory or memory_bytes()
    maintenance = _between(64, memory // 32 // _MIB, 1024)
    return {
        "max_connections": str(max(_LEAST_CONNECTIONS, connections)),
        "shared_buffers": f"{_between(128, memory // 8 // _MIB, 8192)}MB",
        "effective_cache_size": f"{max(256, memory // 2 // _MIB)}MB",
        "maintenance_work_mem": f"{maintenance}MB",
        "work_mem": "16MB",
        "dynamic_shared_memory_type": _shared_memory_type(needed=2 * maintenance * _MIB),
        "max_wal_size": "2GB",
        "wal_compression": "pglz",
        "random_page_cost": "1.1",
        # Searches are short; compiling them costs more than it saves.
        "jit": "off",
        "timezone": "UTC",
        "log_timezone": "UTC",
        "log_line_prefix": "%m [%p] ",
        # Statements can hold what documents and questions say: the log gets none.
        "log_min_error_statement": "panic",
        "log_parameter_max_length_on_error": "0",
    }


def _shared_memory_type(*, needed: int) -> str:
    """Containers often have 64 MB of /dev/shm, too little for a parallel index build."""
    try:
        free = os.statvfs("/dev/shm")  # noqa: S108 - asked for its size, nothing is written
    except OSError:
        return "mmap"
    return "posix" if free.f_bavail * free.f_frsize >= needed else "mmap"


def _between(low: int, value: int, high: int) -> int:
    return max(low, min(value, high))
