"""The child that parses one document: goes behind its fence, parses, answers, ends."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from functools import partial
from typing import Final, NoReturn

from ingestion.elements import ParsedDocument
from ingestion.errors import FailureCode, IngestionError
from ingestion.parsing_json import to_json
from ingestion.sandbox_fence import Fence, go_behind
from ingestion.sandbox_wire import FrameKind, Request, write_attachment, write_frame

Parser = Callable[..., ParsedDocument]

_PROGRESS_STEPS: Final = 200


def run_child(
    request: Request, parser: Parser, fence: Fence, *, document: int, output: int, parent: int
) -> NoReturn:
    """Called right after the fork; never returns. ``parent`` is the zygote's process id."""
    status = 1
    is_behind = False
    try:
        go_behind(fence, request, parent=parent)
        is_behind = True
        _answer(request, parser, document, output)
        status = 0
    except BrokenPipeError:
        pass  # nobody is waiting any more
    except MemoryError:
        status = _fail(output, FailureCode.PARSE_MEMORY, "MemoryError")
    except BaseException as error:  # noqa: BLE001 - the last frame of this process
        # Without its fence no document was touched, so none is to blame.
        code = FailureCode.PARSE_CRASHED if is_behind else FailureCode.SANDBOX_LOST
        status = _fail(output, code, f"{type(error).__name__}: {error}"[:500])
    finally:
        os._exit(status)  # no atexit handlers, no flushing of what the zygote had buffered


def _answer(request: Request, parser: Parser, document: int, output: int) -> None:
    with os.fdopen(document, "rb") as stream:
        stream.seek(0)
        data = stream.read(request.limits.max_bytes + 1)
    try:
        parsed = parser(
            data,
            media_type=request.media_type,
            limits=request.limits,
            on_progress=_progress_writer(output),
            on_recognised=_recognised_writer(output),
            on_attachment=partial(write_attachment, output) if request.attachments else None,
        )
    except IngestionError as error:
        _fail(output, error.code, error.cause, error.parameters)
        return
    write_frame(output, FrameKind.DOCUMENT, to_json(parsed))


def _progress_writer(output: int) -> Callable[[int, int], None]:
    shown = 0

    def write(done: int, total: int) -> None:
        nonlocal shown
        step = done * _PROGRESS_STEPS // max(total, 1)
        if step > shown or done == total:
            shown = step
            payload = json.dumps({"done": done, "total": total}).encode()
            write_frame(output, FrameKind.PROGRESS, payload)

    return write


def _recognised_writer(output: int) -> Callable[[float], None]:
    def write(seconds: float) -> None:
        payload = json.dumps({"seconds": round(seconds, 3)}).encode()
        write_frame(output, FrameKind.RECOGNISED, payload)

    return write


def _fail(
    output: int, code: FailureCode, cause: str, parameters: dict[str, str] | None = None
) -> int:
    payload = {"code": code, "cause": cause, "parameters": parameters or {}}
    data = json.dumps(payload).encode("utf-8", "replace")
    try:
        write_frame(output, FrameKind.FAILURE, data)
    except OSError:
        return 1
    return 0
