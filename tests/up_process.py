"""Starts ``up`` as a subprocess for tests, and counts what it leaves behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import psutil

from assistant.embedded.ports import free_port

ROOT = Path(__file__).resolve().parent.parent
STANDINS = ("-m", "tests.embedded_standins")
REAL = ("manage.py", "up")
# Set by the test session for its own services; `up` under test must make its own.
_NOT_INHERITED = {
    "ADMIN_PASSWORD",
    "DATABASE_URL",
    "DATA_DIR",
    "EMBEDDING_BASE_URL",
    "HOST",
    "PORT",
    "REDIS_URL",
    "SECRET_KEY",
    "WEB_CONCURRENCY",
}


class Up:
    """One ``up`` process on ``data_dir``; ``output`` is all it printed until now."""

    def __init__(
        self,
        data_dir: Path,
        *,
        what: Sequence[str] = STANDINS,
        port: int | None = None,
        env: Mapping[str, str] | None = None,
    ) -> None:
        self.data_dir = data_dir
        self.port = port or free_port()
        self._log = data_dir.with_name(f"{data_dir.name}-{time.monotonic_ns()}.out")
        inherited = {k: v for k, v in os.environ.items() if k not in _NOT_INHERITED}
        with self._log.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, *what, "--data-dir", str(data_dir), "--port", str(self.port)],
                cwd=ROOT,
                env={**inherited, **(env or {})},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )

    @property
    def output(self) -> str:
        return self._log.read_text(encoding="utf-8", errors="replace")

    def services(self) -> dict[str, Any]:
        services: dict[str, Any] = json.loads(
            (self.data_dir / "run" / "services.json").read_text(encoding="utf-8")
        )
        return services

    def wait_ready(self, *, seconds: float = 60) -> None:
        self.wait_for(lambda: "Ready after" in self.output, seconds=seconds)

    def wait_for(self, is_so: Callable[[], bool], *, seconds: float = 60) -> None:
        deadline = time.monotonic() + seconds
        while not is_so():
            assert self.process.poll() is None, f"up ended:\n{self.output}"
            assert time.monotonic() < deadline, f"not within {seconds} s:\n{self.output}"
            time.sleep(0.1)

    def processes(self) -> dict[int, psutil.Process]:
        """Every descendant, by pid."""
        return {p.pid: p for p in psutil.Process(self.process.pid).children(recursive=True)}

    def named(self, word: str) -> psutil.Process:
        """The one child whose program the ledger started and whose command line has ``word``."""
        found = [p for p in psutil.Process(self.process.pid).children() if word in _line(p)]
        assert len(found) == 1, (word, [_line(p) for p in found])
        return found[0]

    def stop(self, number: signal.Signals = signal.SIGTERM, *, seconds: float = 60) -> int:
        if self.process.poll() is None:
            self.process.send_signal(number)
        return self.process.wait(timeout=seconds)


def spawned_webs(first: psutil.Process) -> dict[int, psutil.Process]:
    """The web processes that uvicorn, ``first``, has started and that serve, by pid."""
    return {p.pid: p for p in first.children() if "spawn_main" in _line(p)}


def still_running(processes: Mapping[int, psutil.Process]) -> list[str]:
    """Those of the processes that are not gone (psutil compares start times; zombies are gone)."""
    alive = []
    for process in processes.values():
        try:
            if process.is_running() and process.status() != psutil.STATUS_ZOMBIE:
                alive.append(_line(process))
        except psutil.NoSuchProcess:
            continue
    return alive


def wait_gone(processes: Mapping[int, psutil.Process], *, seconds: float) -> list[str]:
    """What is still running after at most ``seconds``."""
    deadline = time.monotonic() + seconds
    while (left := still_running(processes)) and time.monotonic() < deadline:
        time.sleep(0.1)
    return left


def _line(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""
