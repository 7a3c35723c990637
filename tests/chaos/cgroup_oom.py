"""C-03: the kernel ends parsers for want of memory in their control group, a container's limit.

Needs root and a memory controller (version 1 or 2) that groups can be added to.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

from tests.chaos.harness import Run, main
from tests.chaos.kill_parsers import hit

_ROOT = Path("/sys/fs/cgroup")
_LIMIT = 64 << 10
"""Bytes that a parser can still take, once it is in the group: its next page or two."""


def fault(run: Run) -> None:
    with _starving() as group:

        def move(child: psutil.Process) -> None:
            (group / "cgroup.procs").write_text(str(child.pid))

        feeding = run.feed_beside()
        for _ in range(run.times):
            time.sleep(run.random.uniform(0, 0.6))
            run.wait_for_work()
            hit(run, move, kind="moved", zygote=False)
        feeding.join()
        run.figures["ended by the kernel"] = _kills(group)
        run.check(_kills(group) > 0, "C-03 the kernel ended nobody: nothing was tested")


def _kills(group: Path) -> int:
    counted = next(
        p for name in ("memory.events", "memory.oom_control") if (p := group / name).exists()
    )
    pairs = dict(line.split() for line in counted.read_text().splitlines())
    return int(pairs["oom_kill"])


@contextmanager
def _starving() -> Iterator[Path]:
    """A group with next to no memory."""
    controller = _ROOT / "memory" if (_ROOT / "memory").is_dir() else _ROOT
    if controller == _ROOT:
        (_ROOT / "cgroup.subtree_control").write_text("+memory")
    group = controller / f"knowledge-chaos-{os.getpid()}"
    group.mkdir()
    try:
        limit = "memory.limit_in_bytes" if controller != _ROOT else "memory.max"
        (group / limit).write_text(str(_LIMIT))
        yield group
    finally:
        while (group / "cgroup.procs").read_text():
            time.sleep(0.1)
        group.rmdir()


if __name__ == "__main__":
    if os.geteuid() != 0:
        sys.exit("C-03 makes a control group and must be run by root.")
    main("C-03 no memory left in the control group", fault, times=40)
