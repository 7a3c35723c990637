"""The warm process that forks a child per document: ``python -m ingestion.sandbox_zygote``.

It goes into its namespaces (sandbox_fence), imports the parser libraries once (seconds), then
waits. It has one thread, opens no file and parses nothing itself. It ends with its worker: when
the control socket closes, or, in case another process still holds a copy of that socket, when its
parent process is no longer the worker. It cannot use PR_SET_PDEATHSIG for that, which fires when
the *thread* that started it ends.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import os
import select
import signal
import socket
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import Final, NoReturn

from ingestion import sandbox_watch as watch
from ingestion.sandbox_child import Parser, run_child
from ingestion.sandbox_fence import MAX_PROCESSES, Fence, prepare
from ingestion.sandbox_wire import Request, StatusKind, encode_status, receive_request

_POLL_MILLISECONDS: Final = 1_000
_WATCH_MILLISECONDS: Final = 250
_CLOSE_WATCH_MILLISECONDS: Final = 50  # where this alone bounds the number of processes


@dataclass(frozen=True, slots=True)
class _Child:
    """``status`` is the pipe on which its end is reported."""

    status: int
    request: Request


class Zygote:
    """Children by process id."""

    def __init__(
        self, control: socket.socket, parser: Parser, fence: Fence, *, worker: int
    ) -> None:
        self._control = control
        self._parser = parser
        self._fence = fence
        self._worker = worker
        self._process = os.getpid()
        self._children: dict[int, _Child] = {}
        self._excessive: set[int] = set()
        self._poll = select.poll()
        self._wakeup, write_end = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(write_end, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)  # only so that the wakeup pipe is written
        self._poll.register(control, select.POLLIN)
        self._poll.register(self._wakeup, select.POLLIN)

    def serve(self) -> None:
        """Until the worker is gone. Then no child is left."""
        try:
            while os.getppid() == self._worker:
                events = self._poll.poll(self._patience())
                for descriptor, event in events:
                    if descriptor == self._control.fileno():
                        if not self._accept():
                            return
                    elif descriptor == self._wakeup:
                        os.read(self._wakeup, 4096)
                    elif event & (select.POLLERR | select.POLLHUP | select.POLLNVAL):
                        self._kill_abandoned(descriptor)
                if self._must_watch():
                    self._kill_excessive()
                self._reap()
        finally:
            for process in self._children:
                _kill_group(process)

    def _must_watch(self) -> bool:
        """One process in namespaces is bounded by the kernel alone."""
        return bool(self._children) and (
            self._fence.may_start_programs or not self._fence.is_enclosed
        )

    def _patience(self) -> int:
        if not self._must_watch():
            return _POLL_MILLISECONDS
        return _WATCH_MILLISECONDS if self._fence.is_enclosed else _CLOSE_WATCH_MILLISECONDS

    def _accept(self) -> bool:
        received = receive_request(self._control)
        if received is None:
            return False
        request, descriptors = received
        document, output, status = descriptors
        process = os.fork()
        if process == 0:
            self._become_child(request, document, output, status)
        _make_group(process)
        os.close(document)
        os.close(output)
        self._children[process] = _Child(status, request)
        self._poll.register(status, 0)  # only errors: the worker has closed its end
        _report(status, encode_status(StatusKind.STARTED))
        return True

    def _become_child(self, request: Request, document: int, output: int, status: int) -> NoReturn:
        try:
            _make_group(0)
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            _close_all_but(document, output, self._fence.proc)
            _silence()
            run_child(
                request,
                self._parser,
                self._fence,
                document=document,
                output=output,
                parent=self._process,
            )
        finally:
            os._exit(1)  # whatever happens, a child never runs the zygote's own code

    def _kill_abandoned(self, status: int) -> None:
        """The worker gave up on a child: time is over, it was cancelled, or it said too much."""
        for process, child in self._children.items():
            if child.status == status:
                self._poll.unregister(status)
                _kill_group(process)

    def _kill_excessive(self) -> None:
        groups = watch.measure_groups(self._fence.proc)
        ours = groups.get(os.getpgrp(), watch.Group()).memory
        for process, child in self._children.items():
            group, limits = groups.get(process, watch.Group()), child.request.limits
            if group.processes > MAX_PROCESSES or (
                not self._fence.is_enclosed
                and watch.is_fuller_than(child.request.directory, limits.max_temporary_bytes)
            ):
                # SIGTERM first: a child that SIGKILL ended is said to have lacked memory.
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.kill(process, signal.SIGTERM)
                _kill_group(process)
            elif group.memory > ours + limits.memory:
                self._excessive.add(process)
                _kill_group(process)

    def _reap(self) -> None:
        for process in list(self._children):
            peek = os.WEXITED | os.WNOHANG | os.WNOWAIT
            if os.waitid(os.P_PID, process, peek) is None:
                continue
            # Programs that the child had started (pandoc) are in its group and outlive it. They
            # are killed while the dead child still holds the number of the group.
            _kill_group(process)
            _, wait_status, usage = os.wait4(process, 0)
            child = self._children.pop(process)
            status, peak = child.status, usage.ru_maxrss * 1024
            if process in self._excessive:  # the sum with its programs, which the kernel knows not
                self._excessive.remove(process)
                peak = max(peak, child.request.limits.memory)
            _report(status, encode_status(StatusKind.ENDED, wait_status, peak))
            with contextlib.suppress(KeyError):  # abandoned before
                self._poll.unregister(status)
            os.close(status)


def _make_group(process: int) -> None:
    """Zygote and child both do this, so that it is done whoever comes first."""
    with contextlib.suppress(PermissionError, ProcessLookupError):
        os.setpgid(process, process)


def _kill_group(process: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process, signal.SIGKILL)


def _close_all_but(*kept: int) -> None:
    """Sockets and pipes of the zygote and of other children; 0, 1 and 2 stay."""
    low = 3
    for descriptor in sorted(kept):
        os.closerange(low, descriptor)
        low = descriptor + 1
    os.closerange(low, os.sysconf("SC_OPEN_MAX"))


def _silence() -> None:
    """The worker's log is not for what a document makes a parser print."""
    nowhere = os.open(os.devnull, os.O_RDWR)
    os.dup2(nowhere, 1)
    os.dup2(nowhere, 2)
    os.close(nowhere)


def _report(descriptor: int, message: bytes) -> None:
    with contextlib.suppress(OSError):  # the worker may no longer listen
        os.write(descriptor, message)


def _load(target: str) -> Parser:
    module, _, name = target.partition(":")
    parser: Parser = getattr(import_module(module), name)
    return parser


def main() -> None:
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--control", type=int, required=True)
    arguments.add_argument("--worker", type=int, required=True)
    arguments.add_argument("--parser", required=True)
    arguments.add_argument("--family", required=True)
    arguments.add_argument("--light", action="store_true", help="do not import the parsers ahead")
    arguments.add_argument("--absent", nargs="*", default=[], help="go without: for tests")
    options = arguments.parse_args()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the worker, which then closes
    control = socket.socket(fileno=options.control)
    fence = prepare(
        parser_module=options.parser.partition(":")[0],
        family=options.family,
        absent=options.absent,
    )
    parser = _load(options.parser)
    if not options.light:
        preload: Callable[[str], None] = import_module("ingestion.parsing").preload
        preload(options.family)
    gc.collect()
    gc.freeze()  # keeps the collector from touching, and so copying, pages shared with children
    Zygote(control, parser, fence, worker=options.worker).serve()


if __name__ == "__main__":
    main()
