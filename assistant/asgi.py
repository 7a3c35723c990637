"""The ASGI application: Django, static files, and the loop that answers run on."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "assistant.settings")

from django.conf import settings
from django.core.asgi import get_asgi_application
from starlette.staticfiles import StaticFiles

Scope = dict[str, Any]
Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[Mapping[str, Any]], Awaitable[None]]

DRAIN_SECONDS = 8.0
# Room for form fields beside the file.
FORM_MB = 8
# How much of a body that is too large is read before giving up on its sender.
DROPPED_MB = 1024

django_application = get_asgi_application()


class HashedStaticFiles(StaticFiles):
    """Names carry a hash of the content, so browsers may keep them for ever."""

    def file_response(self, *args: Any, **kwargs: Any) -> Any:
        response = super().file_response(*args, **kwargs)
        response.headers["Cache-Control"] = "public, max-age=31536000, immutable"
        response.headers["X-Content-Type-Options"] = "nosniff"
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
    elif scope["type"] == "http":
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


async def _lifespan(receive: Receive, send: Send) -> None:
    from assistant.chat import running

    while True:
        message = await receive()
        if message["type"] == "lifespan.startup":
            running.attach(asyncio.get_running_loop())
            await send({"type": "lifespan.startup.complete"})
        elif message["type"] == "lifespan.shutdown":
            await running.drain(DRAIN_SECONDS)
            await send({"type": "lifespan.shutdown.complete"})
            return
