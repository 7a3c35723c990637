"""The ASGI application: Django, static files, and the loop that answers run on."""

from __future__ import annotations

import asyncio
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
        await django_application(scope, receive, send)


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
