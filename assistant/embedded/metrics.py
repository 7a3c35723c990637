"""Where the web processes of one run add up what each counts, for ``/metrics``.

Each process maps files of its own into memory, and whichever is asked reads all of them; those of a
process that died still count.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

# Read by prometheus_client.
VARIABLE = "PROMETHEUS_MULTIPROC_DIR"
_PREFIX = "knowledge-metrics-"
_SHARED_MEMORY = Path("/dev/shm")  # noqa: S108 - used through mkdtemp
_FREE_BYTES = 16 * 1024 * 1024


def make_directory() -> Path:
    """A new directory that nobody else can enter.

    In memory where that is possible: the files have holes, and a process that writes into one on a
    full disk is killed (SIGBUS).
    """
    parent = _SHARED_MEMORY if _is_usable(_SHARED_MEMORY) else None
    return Path(tempfile.mkdtemp(prefix=_PREFIX, dir=parent))


def remove_directory(directory: Path) -> None:
    """Remove one that ``make_directory`` made, now or in an earlier run; no other is touched."""
    if directory.name.startswith(_PREFIX):
        shutil.rmtree(directory, ignore_errors=True)


def _is_usable(directory: Path) -> bool:
    try:
        free = os.statvfs(directory)
    except OSError:
        return False
    return os.access(directory, os.W_OK) and free.f_bavail * free.f_frsize >= _FREE_BYTES
