"""What a killed supervisor left running, and its end.

Before it starts anything, a run writes a random id to the data directory; every child inherits the
id in its environment. The next run ends each process that carries the id of the last one, and each
recorded process whose pid *and* start time still match. Names are never looked at, and a recycled
pid matches neither.
"""

from __future__ import annotations

import json
import os
import signal
import uuid
from collections.abc import Iterable
from pathlib import Path

import psutil

from assistant.embedded.secretfiles import write_private

RUN_ID = "ASSISTANT_RUN_ID"


class Ledger:
    """The processes of the present run, in ``run_dir/processes.json``."""

    def __init__(self, run_dir: Path) -> None:
        self.file = run_dir / "processes.json"
        self.run_id = uuid.uuid4().hex
        self._started: dict[int, float] = {}

    def open(self) -> None:
        """Write down this run's id. Before the first child is started."""
        self._write()

    def add(self, pid: int) -> None:
        try:
            self._started[pid] = psutil.Process(pid).create_time()
        except psutil.NoSuchProcess:
            return
        self._write()

    def remove(self, pid: int) -> None:
        if self._started.pop(pid, None) is not None:
            self._write()

    def close(self) -> None:
        """Nothing is running any more."""
        self.file.unlink(missing_ok=True)

    def _write(self) -> None:
        processes = [{"pid": pid, "created": at} for pid, at in self._started.items()]
        write_private(self.file, json.dumps({"run_id": self.run_id, "processes": processes}))


def find_leftovers(run_dir: Path) -> list[psutil.Process]:
    """Processes that the last run started and that still run."""
    try:
        record = json.loads((run_dir / "processes.json").read_text(encoding="utf-8"))
        run_id = str(record["run_id"])
        created = {int(entry["pid"]): float(entry["created"]) for entry in record["processes"]}
    except (OSError, ValueError, KeyError, TypeError):
        return []
    mine = _own_line()
    return [
        process
        for process in psutil.process_iter()
        if process.pid not in mine
        and (_was_started_at(process, created.get(process.pid)) or _run_id(process) == run_id)
    ]


def find_servers(directory: Path, executable: str) -> list[psutil.Process]:
    """Processes of that executable whose working directory is ``directory``.

    PostgreSQL and Valkey work in their data directory, so this finds a server on the same files
    however it was started.
    """
    found = []
    for process in psutil.process_iter():
        try:
            if Path(process.exe()).name == executable and Path(process.cwd()) == directory:
                found.append(process)
        except (psutil.Error, OSError):
            continue
    return found


def end(
    processes: Iterable[psutil.Process],
    *,
    ask: signal.Signals = signal.SIGTERM,
    seconds: float = 10.0,
) -> list[psutil.Process]:
    """Ask, wait, kill. psutil checks the start time again before each signal.

    Returns those that are still there (not ours to signal, or stuck in the kernel).
    """
    remaining = list(processes)
    for process in remaining:
        _signal(process, ask)
    _, remaining = psutil.wait_procs(remaining, timeout=seconds)
    for process in remaining:
        _signal(process, signal.SIGKILL)
    _, stuck = psutil.wait_procs(remaining, timeout=5)
    return list(stuck)


def _signal(process: psutil.Process, number: signal.Signals) -> None:
    try:
        process.send_signal(number)
    except psutil.Error:
        return


def _was_started_at(process: psutil.Process, created: float | None) -> bool:
    try:
        return created is not None and abs(process.create_time() - created) < 0.05
    except psutil.Error:
        return False


def _run_id(process: psutil.Process) -> str | None:
    try:
        environ: dict[str, str] = process.environ()
    except (psutil.Error, OSError):
        return None
    return environ.get(RUN_ID)


def _own_line() -> set[int]:
    """This process and its ancestors, which may carry an inherited id."""
    me = psutil.Process()
    return {os.getpid(), *(parent.pid for parent in me.parents())}
