"""The ASGI application: Django, static files, and the loop that answers run on."""

from __future__ import annotations

import asyncio
import gc
import json
import logging
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Awaitable, Callable, Mapping
from contextlib import nullcontext
from pathlib import Path
from types import FrameType
from typing import Any

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "assistant.settings")
if counted := os.environ.get("PROMETHEUS_MULTIPROC_DIR"):
    # Its maker's logging out may have taken it from shared memory (systemd's RemoveIPC).
    Path(counted).mkdir(mode=0o700, parents=True, exist_ok=True)

from django.conf import settings
from django.core.asgi import get_asgi_application
from django.core.signals import request_started
from django.db import DatabaseError, close_old_connections, reset_queries
from starlette.staticfiles import StaticFiles

logger = logging.getLogger(__name__)

Scope = dict[str, Any]
Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[Mapping[str, Any]], Awaitable[None]]

DRAIN_SECONDS = 8.0
# The event loop takes the interpreter back this soon from a thread that computes (a search); with
# Python's own 5 ms, each event of each stream would wait that long.
SWITCH_SECONDS = 0.001
# Room for form fields beside the file.
FORM_MB = 8
# How much of a body that is too large is read before giving up on its sender.
DROPPED_MB = 1024
# For the worker that draws PDFs, whose policy is that of its own script; its decoders of scanned
# pages are WebAssembly. Pages have a stricter one.
STATIC_POLICY = "default-src 'none'; script-src 'self' 'wasm-unsafe-eval'; connect-src 'self'"

django_application = get_asgi_application()

# These need the applications to be loaded.
from assistant.chat.queueing import on_the_way  # noqa: E402
from assistant.database import shared_threads  # noqa: E402
from assistant.overload import asks, refusal  # noqa: E402


class HashedStaticFiles(StaticFiles):
    """Names carry a hash of the content, so browsers may keep them for ever."""

    def file_response(self, *args: Any, **kwargs: Any) -> Any:
        response = super().file_response(*args, **kwargs)
        response.headers["Cache-Control"] = "public, max-age=31536000, immutable"
        response.headers["X-Content-Type-Options"] = "nosniff"
        response.headers["Content-Security-Policy"] = STATIC_POLICY
        return response


static_files = HashedStaticFiles(directory=settings.STATIC_ROOT, check_dir=False)


async def application(scope: Scope, receive: Receive, send: Send) -> None:
    if scope["type"] == "lifespan":
        await _lifespan(receive, send)
    elif scope["type"] == "http" and scope["path"].startswith(
        f"/{settings.STATIC_URL.strip('/')}/"
    ):
        prefix = len(f"/{settings.STATIC_URL.strip('/')}")
        await static_files({**scope, "path": scope["path"][prefix:]}, receive, send)
    elif scope["type"] == "http" and (refused := await refusal(scope)):
        await _drop(receive)
        status, headers, body = refused
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})
    elif scope["type"] == "http":
        with on_the_way() if asks(scope) else nullcontext():
            async with shared_threads():
                await _limited(scope, receive, send)


class _TooLarge(Exception):
    """The request body is larger than any upload may be."""


async def _limited(scope: Scope, receive: Receive, send: Send) -> None:
    """Django spools the whole body to disk before a view sees it, so its size is bounded here.

    What is over the limit is read and dropped for a while: a client that is still sending would
    see a broken connection instead of the answer.
    """
    left = (settings.MAX_UPLOAD_MB + FORM_MB) << 20
    started = False

    async def counted() -> dict[str, Any]:
        nonlocal left
        message = await receive()
        left -= len(message.get("body", b""))
        if left < 0 and not started:
            raise _TooLarge
        return message

    async def noting(message: Mapping[str, Any]) -> None:
        nonlocal started
        started = True
        await send(message)

    try:
        await django_application(scope, counted, noting)
    except _TooLarge:
        await _drop(receive)
        await _refuse(send)


async def _drop(receive: Receive) -> None:
    left = DROPPED_MB << 20
    while left > 0:
        message = await receive()
        left -= len(message.get("body", b""))
        if message["type"] == "http.disconnect" or not message.get("more_body"):
            return


async def _refuse(send: Send) -> None:
    detail = (
        f"The upload is larger than the {settings.MAX_UPLOAD_MB} MB allowed here. Split the file,"
        " or ask an administrator to raise the limit."
    )
    problem = {"type": "about:blank", "title": "Too large", "status": 413, "detail": detail}
    body = json.dumps({**problem, "code": "too_large"}).encode()
    headers = [
        (b"content-type", b"application/problem+json"),
        (b"content-length", str(len(body)).encode()),
        (b"cache-control", b"no-store"),
        (b"connection", b"close"),
    ]
    await send({"type": "http.response.start", "status": 413, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def _warm_up() -> None:
    """Reading what is known of languages takes seconds, which the first question would wait for."""
    from django.db import connection

    from assistant.retrieval import analysis, statistics

    try:
        analysis.warm_up(statistics.languages_of_site())
    except DatabaseError as error:  # whoever asks first waits, and is told when it goes on
        logger.warning("The languages of the site are not known yet: %s", error)
    finally:
        connection.close()


async def _lifespan(receive: Receive, send: Send) -> None:
    from assistant.chat import running
    from assistant.database import in_database

    while True:
        message = await receive()
        if message["type"] == "lifespan.startup":
            if refusal := await in_database(_refusal)():
                await send({"type": "lifespan.startup.failed", "message": refusal})
                return
            running.attach(asyncio.get_running_loop())
            _drain_at_once()
            _end_with_parent()
            settle()
            threading.Thread(target=_warm_up, daemon=True).start()
            await send({"type": "lifespan.startup.complete"})
        elif message["type"] == "lifespan.shutdown":
            await running.drain(DRAIN_SECONDS)
            await send({"type": "lifespan.shutdown.complete"})
            return


def settle() -> None:
    """For a process that has loaded what it serves with.

    What is loaded stays: nobody looks through it for garbage again and again. The rest is looked
    through in small pieces: streams wait for as long as each takes.
    """
    sys.setswitchinterval(SWITCH_SECONDS)
    # Threads here give connections back after every call (assistant.database): looking for old
    # ones would cost each request a thread of its own.
    request_started.disconnect(close_old_connections)
    request_started.disconnect(reset_queries)
    gc.collect()
    gc.freeze()
    gc.set_threshold(5_000, 5, 100)


def _drain_at_once() -> None:
    """Begin to drain at the signal: the server itself says so only when its streams have ended."""
    from assistant.chat import running

    loop = asyncio.get_running_loop()
    tasks: set[asyncio.Task[None]] = set()

    def begin() -> None:
        if not tasks:
            tasks.add(asyncio.create_task(running.drain(DRAIN_SECONDS)))

    def chained(previous: Any) -> Callable[[int, FrameType | None], None]:
        def handle(number: int, frame: FrameType | None) -> None:
            loop.call_soon_threadsafe(begin)
            if callable(previous):
                previous(number, frame)

        return handle

    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, chained(signal.getsignal(number)))


def _end_with_parent() -> None:
    """Of several web processes none outlives the one that started them: it would hold the port."""
    parent = multiprocessing.parent_process()
    if parent is None:
        return
    loop = asyncio.get_running_loop()

    def end() -> None:
        loop.remove_reader(parent.sentinel)
        os.kill(os.getpid(), signal.SIGTERM)

    loop.add_reader(parent.sentinel, end)


def _refusal() -> str:
    """Why this process must not serve; empty when nothing is known against it.

    A database that is away is no reason: it may come back, and each search asks for its role.
    """
    from assistant.retrieval import row_security

    try:
        gap = row_security.find_gap()
    except DatabaseError:
        return ""
    if gap is None:
        return ""
    logger.error("%s ROW_SECURITY is %s.", gap, settings.ROW_SECURITY)
    return str(gap) if settings.ROW_SECURITY == "require" else ""
