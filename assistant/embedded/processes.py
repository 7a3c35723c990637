"""One child process: started in a session of its own, logged to a file, never outliving us."""

from __future__ import annotations

import contextlib
import ctypes
import glob
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from assistant.embedded.accounts import Account

_PR_SET_PDEATHSIG = 1
_LOG_BYTES = 32 * 1024 * 1024
# Loaded before any fork: dlopen between fork and exec could wait for a lock nobody will release.
_libc = ctypes.CDLL(None) if sys.platform == "linux" else None


@dataclass(frozen=True, slots=True)
class Program:
    """What to run and how to end it.

    ``orphan_signal`` is what the kernel sends it should the supervisor be killed (Linux). The
    default ends it at once: whatever a worker held is recovered from the database.
    ``sign_of_life`` is a file that the program touches while it works, or the beginning of its
    name; left alone for ``silent_seconds`` it means that the program only runs, and it is started
    again.
    """

    name: str
    argv: tuple[str, ...]
    env: Mapping[str, str]
    cwd: Path
    log: Path
    stop_signal: signal.Signals = signal.SIGTERM
    stop_seconds: float = 10.0
    hurry_signal: signal.Signals = signal.SIGKILL
    orphan_signal: signal.Signals = signal.SIGKILL
    account: Account | None = None
    niceness: int = 0
    sign_of_life: Path | None = None
    silent_seconds: float = 100.0


@dataclass(slots=True)
class Child:
    """A running program."""

    program: Program
    process: subprocess.Popen[bytes]
    started_at: float = field(default_factory=time.monotonic)
    _last_sign: int = 0
    _heard_at: float = 0.0

    @property
    def pid(self) -> int:
        return self.process.pid

    def is_alive(self) -> bool:
        return self.process.poll() is None

    def silence(self) -> float:
        """Seconds since a sign of life was first seen, or since its start; 0 when it gives none.

        By our own clock: neither a changed clock nor a laptop's sleep makes a program silent.
        """
        sign = self.program.sign_of_life
        if sign is None:
            return 0.0
        with contextlib.suppress(OSError, ValueError):  # none yet, or replaced this moment
            files = sign.parent.glob(f"{glob.escape(sign.name)}*")
            changed = max(file.stat().st_mtime_ns for file in files)
            if changed != self._last_sign:
                self._last_sign, self._heard_at = changed, time.monotonic()
        return time.monotonic() - max(self._heard_at, self.started_at)

    def send(self, number: signal.Signals) -> None:
        """Signal the process itself, if it still is there."""
        if self.is_alive():
            self.process.send_signal(number)

    def kill(self) -> None:
        """End it and everything it started. Safe to call on a child that is gone."""
        kill_group(self.pid)
        if self.is_alive():
            self.process.kill()
        self.process.wait()


def spawn(program: Program) -> Child:
    """Start a program. Only from the main thread: the kernel ties the orphan signal to a thread."""
    keep_log_small(program.log)
    account = program.account
    with program.log.open("ab") as log:
        process = subprocess.Popen(  # noqa: S603 - command lines from commands.py
            program.argv,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            env=dict(program.env),
            cwd=program.cwd,
            start_new_session=True,
            user=account.uid if account else None,
            group=account.gid if account else None,
            extra_groups=[] if account else None,
            # Runs between fork and exec. This process has one thread, so no lock can be held.
            preexec_fn=_child_setup(program),
        )
    return Child(program, process)


def _child_setup(program: Program) -> Callable[[], None]:
    parent = os.getpid()

    def setup() -> None:
        if program.niceness:
            os.nice(program.niceness)
        # After the change of user, which would clear it.
        if _libc is not None:
            _libc.prctl(_PR_SET_PDEATHSIG, int(program.orphan_signal), 0, 0, 0)
            if os.getppid() != parent:
                os._exit(1)

    return setup


def kill_group(pgid: int) -> None:
    """SIGKILL to every process of the group; nothing when it is empty."""
    try:
        os.killpg(pgid, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        return


def keep_log_small(log: Path, *, limit: int = _LOG_BYTES) -> None:
    """Move the content to ``NAME.1`` once the file is over ``limit`` bytes.

    By copy and cut, as the writer keeps the file open (for appending, so it goes on at the start).
    """
    try:
        if log.stat().st_size <= limit:
            return
    except FileNotFoundError:
        return
    shutil.copyfile(log, log.with_name(log.name + ".1"))
    os.truncate(log, 0)


def last_lines(log: Path, count: int) -> list[str]:
    """The last non-empty lines of a log."""
    try:
        with log.open("rb") as stream:
            stream.seek(max(0, log.stat().st_size - 16_384))
            text = stream.read().decode("utf-8", "replace")
    except OSError:
        return []
    return [line for line in text.splitlines() if line.strip()][-count:]
