"""Parsing hostile files in a child process: the worker's side.

    worker --control socket--> zygote (warm) --fork--> child (one document, limits, no network)
           <----- frames on a pipe: progress, document or failure -----
           <----- status on a pipe: started, ended how -----> closing it kills the child

The zygotes start on first use, one for each family of formats: text and PDF, which are light, and
the rest (unstructured, seconds). They are started again when they die.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final

from ingestion.attachments import OnAttachment, is_clean_name
from ingestion.elements import ParsedDocument
from ingestion.errors import FailureCode, IngestionError, readable_bytes
from ingestion.parsing import FAMILIES, family_of
from ingestion.parsing_json import InvalidDocumentError, from_json
from ingestion.parsing_limits import Limits
from ingestion.sandbox_watch import kill_session
from ingestion.sandbox_wire import (
    STATUS_SIZE,
    FrameKind,
    FrameReader,
    OversizedFrameError,
    Request,
    StatusKind,
    decode_status,
    send_request,
    split_attachment,
)

Progress = Callable[[int, int], None]
Cancelled = Callable[[], bool]

# Begins the names of folders with parts of documents, which a killed worker leaves behind.
WORKPLACE: Final = "knowledge-parse-"
_ROOT: Final = Path(__file__).resolve().parent.parent
_POLL_SECONDS: Final = 0.2
_START_SECONDS: Final = 120.0
_READ_BYTES: Final = 1 << 20
_MEMORY_SHARE: Final = 0.8
_ATTACHMENT_NAME_BYTES: Final = 2_000
# What a parser needs from the environment: nothing that names a database, a key or a user.
_ENVIRONMENT: Final = {
    "PATH": "/usr/local/bin:/usr/bin:/bin",
    "LANG": "C.UTF-8",
    "LC_ALL": "C.UTF-8",
    "PYTHONPATH": str(_ROOT),
    "PYTHONDONTWRITEBYTECODE": "1",
    "PYTHONSAFEPATH": "1",
    "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "DO_NOT_TRACK": "1",
    "SCARF_NO_ANALYTICS": "1",
    "UNSTRUCTURED_DISABLE_NOTICE": "1",
    "OMP_NUM_THREADS": "1",
    "OMP_THREAD_LIMIT": "1",  # what Tesseract listens to
    "OPENBLAS_NUM_THREADS": "1",
    "NUMBA_NUM_THREADS": "1",
    "HOME": "/nonexistent",
}


class Sandbox:
    """Parses documents, each in its own child. Threads may share one Sandbox.

    A process forked from the one that made it (Celery prefork) gets zygotes of its own on first
    use. ``parser`` names the function that runs in the child, as ``module:name``;
    ``zygote_options`` are further options of the zygote's command line.
    """

    def __init__(
        self,
        *,
        parser: str = "ingestion.parsing:parse_document",
        zygote_options: Sequence[str] = (),
    ) -> None:
        self._parser = parser
        self._zygote_options = tuple(zygote_options)
        self._lock = threading.Lock()
        self._owner = os.getpid()
        self._zygotes: dict[str, _ZygoteHandle] = {}

    def parse(
        self,
        path: Path,
        *,
        media_type: str,
        filename: str,
        limits: Limits,
        on_progress: Progress | None = None,
        should_cancel: Cancelled | None = None,
        on_attachment: OnAttachment | None = None,
    ) -> ParsedDocument:
        """The document at ``path``, read by a child within ``limits``.

        ``media_type`` is what admission found; ``filename`` is data for messages only.
        ``on_progress(pages done, pages in all)`` and ``should_cancel()`` run in this thread, the
        latter about five times a second, and so does ``on_attachment(name, bytes)``, once for each
        file inside the document (e-mail, archive, PDF), with a clean relative name that is unique
        in the document; the time it takes is not the document's, and what it raises goes to the
        caller. When parsing fails afterwards, the attachments taken until then are void. Raises
        IngestionError, with every code of the parser and parse_timeout, parse_memory,
        parse_crashed, sandbox_lost, cancelled.
        """
        del filename  # no parser needs it; kept so that a format which does can have it
        directory = tempfile.mkdtemp(prefix=WORKPLACE)
        try:
            request = Request(media_type, directory, limits, on_attachment is not None)
            with contextlib.ExitStack() as stack:
                document = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
                stack.callback(os.close, document)
                pipes = self._submit(request, document)
                stack.callback(pipes.close)
                return _Conversation(pipes, limits, on_progress, should_cancel, on_attachment).run()
        except IngestionError as error:
            if error.code is FailureCode.SANDBOX_LOST:
                self._bury(family_of(media_type))
            raise
        finally:
            shutil.rmtree(directory, ignore_errors=True)

    def warm(self, *families: str) -> None:
        """Start the zygotes of ``families``, by default all, without waiting for them."""
        for family in families or FAMILIES:
            self._zygote(family)

    def close(self) -> None:
        """End the zygotes and with them every child."""
        with self._lock:
            zygotes, self._zygotes = self._zygotes, {}
            is_owner = self._owner == os.getpid()
        for zygote in zygotes.values():
            zygote.close(wait=is_owner)

    def _submit(self, request: Request, document: int) -> _Pipes:
        family = family_of(request.media_type)
        for attempt in (1, 2):
            zygote = self._zygote(family)
            try:
                return zygote.submit(request, document)
            except OSError as error:  # it died since the last document
                self._discard(family, zygote)
                if attempt == 2:
                    raise IngestionError(FailureCode.SANDBOX_LOST, cause=repr(error)) from error
        raise AssertionError("unreachable")

    def _zygote(self, family: str) -> _ZygoteHandle:
        with self._lock:
            if self._owner != os.getpid():  # forked: those zygotes belong to the parent
                for inherited in self._zygotes.values():
                    inherited.close(wait=False)
                self._zygotes, self._owner = {}, os.getpid()
            zygote = self._zygotes.get(family)
            if zygote is not None and not zygote.is_alive():
                zygote.close(wait=True)
                zygote = None
            if zygote is None:
                zygote = self._zygotes[family] = _ZygoteHandle(
                    self._parser, family, self._zygote_options
                )
            return zygote

    def _bury(self, family: str) -> None:
        """What a dead zygote left behind; a living one stays."""
        with self._lock:
            zygote = self._zygotes.get(family)
        # Its pipes close a moment before it can be seen to have ended.
        if zygote is not None and zygote.has_ended(within=0.5):
            self._discard(family, zygote)

    def _discard(self, family: str, zygote: _ZygoteHandle) -> None:
        with self._lock:
            if self._zygotes.get(family) is zygote:
                del self._zygotes[family]
        zygote.close(wait=True)


class _Pipes:
    """The worker's ends for one document."""

    def __init__(self, frames: int, status: int) -> None:
        self.frames = frames
        self.status = status

    def close(self) -> None:
        os.close(self.frames)
        os.close(self.status)  # the zygote notices and kills the child's group


class _ZygoteHandle:
    """A running zygote and the socket to it."""

    def __init__(self, parser: str, family: str, options: Sequence[str]) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self._control = ours
            command = [sys.executable, "-m", "ingestion.sandbox_zygote"]
            command += ["--control", str(theirs.fileno()), "--worker", str(os.getpid())]
            command += ["--parser", parser, "--family", family, *options]
            self._process = subprocess.Popen(  # noqa: S603 - fixed command, no shell
                command,
                pass_fds=[theirs.fileno()],
                env=_ENVIRONMENT,
                cwd="/",
                stdin=subprocess.DEVNULL,
                start_new_session=True,  # signals of the terminal are for the worker
            )

    @property
    def pid(self) -> int:
        return self._process.pid

    def is_alive(self) -> bool:
        return self._process.poll() is None

    def has_ended(self, *, within: float) -> bool:
        try:
            self._process.wait(timeout=within)
        except subprocess.TimeoutExpired:
            return False
        return True

    def submit(self, request: Request, document: int) -> _Pipes:
        frames, frames_end = os.pipe2(os.O_CLOEXEC)
        status, status_end = os.pipe2(os.O_CLOEXEC)
        try:
            send_request(self._control, request, [document, frames_end, status_end])
        except OSError:
            os.close(frames)
            os.close(status)
            raise
        finally:
            os.close(frames_end)
            os.close(status_end)
        return _Pipes(frames, status)

    def close(self, *, wait: bool) -> None:
        self._control.close()
        if not wait:
            return
        try:
            self._process.wait(timeout=2)
        except subprocess.TimeoutExpired:  # still importing; its children do not exist yet
            self._process.kill()
            self._process.wait()
        kill_session(self._process.pid)


class _Conversation:
    """Follows one child until it has answered and ended, or must be stopped."""

    def __init__(
        self,
        pipes: _Pipes,
        limits: Limits,
        on_progress: Progress | None,
        should_cancel: Cancelled | None,
        on_attachment: OnAttachment | None,
    ) -> None:
        self._pipes = pipes
        self._limits = limits
        self._on_progress = on_progress
        self._should_cancel = should_cancel
        self._on_attachment = on_attachment
        self._attachment_names: set[str] = set()
        self._reader = FrameReader(limits.max_output_bytes, _attachment_bytes(limits))
        self._answer: ParsedDocument | IngestionError | None = None
        self._started = False
        self._deadline = time.monotonic() + _START_SECONDS
        self._recognising_left = limits.ocr_seconds

    def run(self) -> ParsedDocument:
        poll = select.poll()
        poll.register(self._pipes.frames, select.POLLIN)
        poll.register(self._pipes.status, select.POLLIN)
        ended: tuple[int, int] | None = None
        frames_open = True
        while ended is None or frames_open:
            self._check_patience()
            for descriptor, _ in poll.poll(_POLL_SECONDS * 1000):
                if descriptor == self._pipes.status:
                    ended = self._read_status()
                    if ended is not None:
                        poll.unregister(descriptor)
                elif not self._read_frames():
                    frames_open = False
                    poll.unregister(descriptor)
            if isinstance(self._answer, ParsedDocument):
                return self._answer
        return self._judge(*ended)

    def _check_patience(self) -> None:
        if self._should_cancel is not None and self._should_cancel():
            raise IngestionError(FailureCode.CANCELLED)
        if time.monotonic() <= self._deadline:
            return
        if not self._started:
            raise IngestionError(FailureCode.SANDBOX_LOST, cause="the zygote did not answer")
        raise _timeout(self._limits.wall_seconds)

    def _read_status(self) -> tuple[int, int] | None:
        data = os.read(self._pipes.status, STATUS_SIZE)
        if len(data) < STATUS_SIZE:  # the zygote died
            raise IngestionError(FailureCode.SANDBOX_LOST, cause="the zygote ended")
        kind, wait_status, peak = decode_status(data)
        if kind is StatusKind.STARTED:
            self._started = True
            self._deadline = time.monotonic() + self._limits.wall_seconds
            return None
        return wait_status, peak

    def _read_frames(self) -> bool:
        data = os.read(self._pipes.frames, _READ_BYTES)
        calls: list[Callable[[], None]] = []
        try:
            for kind, payload in self._reader.feed(data):
                if call := self._take(kind, payload):
                    calls.append(call)
        except OversizedFrameError as error:
            limit = readable_bytes(self._limits.max_output_bytes)
            raise IngestionError(FailureCode.TOO_MUCH_TEXT, limit=limit) from error
        except (InvalidDocumentError, ValueError, KeyError, TypeError, RecursionError) as error:
            cause = f"invalid answer: {error}"
            raise IngestionError(FailureCode.PARSE_CRASHED, cause=cause) from error
        begun = time.monotonic()
        for call in calls:  # out here: what the caller's functions raise is not the child's fault
            call()
        self._deadline += time.monotonic() - begun
        return bool(data)

    def _take(self, kind: int, payload: bytes) -> Callable[[], None] | None:
        """Believe a frame as far as it can be checked; returns what to tell the caller."""
        match kind:
            case FrameKind.PROGRESS:
                raw = json.loads(payload)
                done, total = int(raw["done"]), int(raw["total"])
                if self._on_progress is not None and 0 <= done <= total <= self._limits.max_pages:
                    return partial(self._on_progress, done, total)
            case FrameKind.RECOGNISED:
                seconds = max(
                    0.0, min(float(json.loads(payload)["seconds"]), self._recognising_left)
                )
                self._recognising_left -= seconds
                self._deadline += seconds
            case FrameKind.ATTACHMENT:
                name, data = split_attachment(payload)
                self._check_attachment(name, data)
                if self._on_attachment is not None:
                    return partial(self._on_attachment, name, data)
            case FrameKind.DOCUMENT:
                self._answer = from_json(payload, max_characters=self._limits.max_characters)
            case FrameKind.FAILURE:
                self._answer = _failure(json.loads(payload))
            case _:
                raise ValueError("unknown frame")
        return None

    def _check_attachment(self, name: str, data: bytes) -> None:
        if not is_clean_name(name) or name in self._attachment_names:
            raise ValueError("attachment name")
        self._attachment_names.add(name)
        if len(self._attachment_names) > self._limits.max_attachments:
            raise ValueError("too many attachments")
        if len(data) > self._limits.max_bytes:
            raise ValueError("attachment size")

    def _judge(self, wait_status: int, peak: int) -> ParsedDocument:
        """The child has ended: its answer, or why there is none."""
        if isinstance(self._answer, IngestionError):
            raise self._answer
        number = os.WTERMSIG(wait_status) if os.WIFSIGNALED(wait_status) else 0
        cause = f"signal {number}" if number else f"exit {os.waitstatus_to_exitcode(wait_status)}"
        if number == signal.SIGXCPU:
            raise _timeout(self._limits.cpu_seconds)
        if number and peak > _MEMORY_SHARE * self._limits.memory:
            raise IngestionError(FailureCode.PARSE_MEMORY, cause=cause)
        # It was small, and nobody here kills such: the kernel did, because the machine ran out of
        # memory, or a person. The document is not at fault.
        if number == signal.SIGKILL:
            raise IngestionError(FailureCode.SANDBOX_LOST, cause=cause)
        raise IngestionError(FailureCode.PARSE_CRASHED, cause=cause)


def _attachment_bytes(limits: Limits) -> int:
    """The limit on attachments and what their names take beside them."""
    return limits.max_attachment_bytes + limits.max_attachments * _ATTACHMENT_NAME_BYTES


def _timeout(seconds: float) -> IngestionError:
    return IngestionError(FailureCode.PARSE_TIMEOUT, limit=f"{seconds:g} seconds")


def _failure(raw: dict[str, Any]) -> IngestionError:
    """An error frame, of which only the code and short printable parameters are believed."""
    code = FailureCode(raw["code"])
    parameters = {
        str(name): "".join(filter(str.isprintable, str(value)))
        for name, value in raw["parameters"].items()
    }
    return IngestionError(code, cause=str(raw["cause"])[:500], **parameters)
