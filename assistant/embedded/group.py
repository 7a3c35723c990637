"""A group of child processes: watched, restarted when they fall, stopped in order."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import time
from collections.abc import Callable, Sequence
from types import FrameType

from assistant.embedded.console import LogFollower, say
from assistant.embedded.errors import StartError, StopRequested
from assistant.embedded.leftovers import Ledger
from assistant.embedded.processes import Child, Program, keep_log_small, last_lines, spawn

_STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_LONGEST_PAUSE = 30.0
# After a kill from outside, such as the kernel's when memory ran out: nothing is wrong with it.
_PAUSE_AFTER_KILL = 2.0
# A child that ran this long before it fell is restarted as if it fell for the first time.
_STABLE_SECONDS = 60.0
_FALLS_WHILE_STARTING = 3
_HOUSEKEEPING_SECONDS = 60.0


class Group:
    """Runs in one thread; sleeps in ``select`` until a signal, a dead child or a timeout."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._children: dict[str, Child] = {}
        self._followers: dict[str, LogFollower] = {}
        self._falls: dict[str, int] = {}
        self._restarts: dict[str, tuple[float, Program]] = {}
        self._asked = 0
        self._stopping = False
        self._started = False
        self._next_housekeeping = 0.0
        self._wake_read, self._wake_write = os.pipe()
        os.set_blocking(self._wake_read, False)
        os.set_blocking(self._wake_write, False)

    def catch_signals(self) -> None:
        """From now on a stop signal ends the next :meth:`tick` with StopRequested."""
        signal.set_wakeup_fd(self._wake_write, warn_on_full_buffer=False)
        for number in _STOP_SIGNALS:
            if number == signal.SIGHUP and signal.getsignal(number) == signal.SIG_IGN:
                continue  # nohup: goes on without its terminal
            signal.signal(number, self._on_stop_signal)
        signal.signal(signal.SIGCHLD, lambda *_: None)  # wakes select

    def mark_started(self) -> None:
        """From now on a child that keeps falling is restarted for ever."""
        self._started = True

    def start(self, program: Program) -> Child:
        """Start a program and keep it running."""
        program.log.parent.mkdir(parents=True, exist_ok=True)
        self._followers.setdefault(program.name, LogFollower(program.name, program.log))
        child = spawn(program)
        self._children[program.name] = child
        self._ledger.add(child.pid)
        return child

    def run_to_end(self, program: Program, *, seconds: float) -> None:
        """Run a program that ends by itself. Raises StartError when it fails or takes longer."""
        child = self.start(program)
        del self._followers[program.name]  # what it says is shown when it fails
        deadline = time.monotonic() + seconds
        # Out of the group's care: this one is expected to end.
        while child.is_alive() and time.monotonic() < deadline:
            self.tick(0.1, leave=program.name)
        status = child.process.poll()
        if status != 0:
            child.kill()
        self._forget(child)
        if status != 0:
            what = "did not finish in time" if status is None else "failed"
            raise StartError(f"{program.name} {what}.\n{_end_of_log(program)}")

    def wait_until(self, is_so: Callable[[], bool], *, seconds: float) -> bool:
        """Tick until the condition holds; False when it does not in time."""
        deadline = time.monotonic() + seconds
        while not is_so():
            if time.monotonic() > deadline:
                return False
            self.tick(0.1)
        return True

    def tick(self, seconds: float, *, leave: str = "") -> None:
        """Sleep up to ``seconds``, then look after the children (all but ``leave``).

        Raises StopRequested once after a stop signal, StartError when a child cannot be started.
        """
        self._sleep(seconds)
        if self._asked and not self._stopping:
            self._stopping = True
            raise StopRequested
        for child in list(self._children.values()):
            if child.program.name == leave:
                continue
            if child.is_alive() and child.silence() > child.program.silent_seconds:
                say(f"{child.program.name} runs but gave no sign of work for too long: killed.")
                child.kill()
            if not child.is_alive():
                self._on_fall(child)
        now = time.monotonic()
        for name, (at, program) in list(self._restarts.items()):
            if now >= at:
                del self._restarts[name]
                self.start(program)
        for follower in self._followers.values():
            for line in follower.errors():
                say(line)
        if now >= self._next_housekeeping:
            self._next_housekeeping = now + _HOUSEKEEPING_SECONDS
            for child in self._children.values():
                keep_log_small(child.program.log)

    def stop(self, stages: Sequence[Sequence[str]]) -> None:
        """Stop the named programs stage by stage, then whatever is left.

        Each gets its stop signal and its time. Another stop signal from outside hurries: what has
        no data to lose is killed, PostgreSQL and Valkey are told to be quick.
        """
        self._stopping = True
        self._restarts.clear()
        hurried_at = self._asked
        named = {name for stage in stages for name in stage}
        for stage in [*stages, [name for name in self._children if name not in named]]:
            children = [self._children[name] for name in stage if name in self._children]
            for child in children:
                child.send(child.program.stop_signal)
            since = time.monotonic()
            hurry = False
            while any(child.is_alive() for child in children):
                waited = time.monotonic() - since
                if self._asked > hurried_at:
                    hurried_at = self._asked
                    hurry = True
                    say("Hurrying. Nothing that was stored is lost.")
                    for child in children:
                        child.send(child.program.hurry_signal)
                for child in children:
                    limit = 5.0 if hurry else child.program.stop_seconds
                    if child.is_alive() and waited > limit:
                        say(f"{child.program.name} did not stop within {limit:.0f} s: killed.")
                        child.kill()
                self._sleep(0.1)
            for child in children:
                child.kill()  # what it may have left in its process group
                self._forget(child)
        self._ledger.close()

    def release(self) -> None:
        """Give signals back to Python's defaults."""
        signal.set_wakeup_fd(-1)
        for number in (*_STOP_SIGNALS, signal.SIGCHLD):
            signal.signal(number, signal.SIG_DFL)
        os.close(self._wake_read)
        os.close(self._wake_write)

    def _on_stop_signal(self, _number: int, _frame: FrameType | None) -> None:
        self._asked += 1

    def _sleep(self, seconds: float) -> None:
        select.select([self._wake_read], [], [], seconds)
        with contextlib.suppress(BlockingIOError):
            os.read(self._wake_read, 4096)

    def _on_fall(self, child: Child) -> None:
        program = child.program
        child.kill()
        self._forget(child)
        ran = time.monotonic() - child.started_at
        falls = 1 if ran > _STABLE_SECONDS else self._falls.get(program.name, 0) + 1
        self._falls[program.name] = falls
        words = _end_of_log(program)
        if not self._started and falls >= _FALLS_WHILE_STARTING:
            raise StartError(f"{program.name} does not start.\n{words}")
        status = child.process.returncode
        longest = _PAUSE_AFTER_KILL if status == -signal.SIGKILL else _LONGEST_PAUSE
        pause = min(longest, 2.0 ** (falls - 1))
        self._restarts[program.name] = (time.monotonic() + pause, program)
        how = f"by signal {-status}" if status < 0 else f"with status {status}"
        say(f"{program.name} ended {how}; starting it again in {pause:.0f} s.\n{words}")

    def _forget(self, child: Child) -> None:
        self._children.pop(child.program.name, None)
        self._ledger.remove(child.pid)


def _end_of_log(program: Program) -> str:
    # uvicorn tells of the end of each of its processes after the reason for it.
    found = [line for line in last_lines(program.log, 24) if not line.startswith("INFO:")]
    lines = [f"  {program.name} | {line[:240]}" for line in found[-8:]]
    return "\n".join([*lines, f"  Log: {program.log}"])
