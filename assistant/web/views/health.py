"""Whether this process lives, whether it can serve, and what it counts."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Awaitable, Callable

import redis.asyncio
from asgiref.sync import sync_to_async
from django.conf import settings
from django.db import DatabaseError, connection
from django.http import Http404, HttpRequest, HttpResponse, JsonResponse
from django.views.decorators.http import require_safe
from django_prometheus.exports import ExportToDjangoView

from assistant import engines
from assistant.database import in_database
from assistant.retrieval import spaces
from inference.types import Embedder

TIMEOUT_SECONDS = 3.0


@require_safe
async def live(request: HttpRequest) -> JsonResponse:
    """The process answers."""
    return JsonResponse({"status": "live"})


@require_safe
async def ready(request: HttpRequest) -> JsonResponse:
    """200 when database, broker and embedder answer; the language model is only reported.

    Public, so it says nothing but which part is missing: no versions, addresses or errors.
    """
    parts: dict[str, Callable[[], Awaitable[bool | str]]] = {
        "database": _database,
        "broker": _broker,
        "embedder": _embedder,
        "llm": _llm,
    }
    results = await asyncio.gather(*(_within(check) for check in parts.values()))
    checks = dict(zip(parts, map(_word, results), strict=True))
    if not settings.LLM_BASE_URL:
        checks["llm"] = "not_configured"
    is_ready = all(checks[name] == "ok" for name in ("database", "broker", "embedder"))
    return JsonResponse(
        {"status": "ready" if is_ready else "unavailable", "checks": checks},
        status=200 if is_ready else 503,
    )


def _word(result: bool | str) -> str:
    return result if isinstance(result, str) else "ok" if result else "unavailable"


async def _within(check: Callable[[], Awaitable[bool | str]]) -> bool | str:
    try:
        return await asyncio.wait_for(check(), TIMEOUT_SECONDS)
    except Exception:  # noqa: BLE001 - a check that fails in any way is a part that is not there
        return False


async def _database() -> bool:
    return await sync_to_async(_select, thread_sensitive=False)()


def _select() -> bool:
    try:
        with connection.cursor() as cursor:
            cursor.execute("SELECT 1")
            return bool(cursor.fetchone())
    finally:
        connection.close()


async def _broker() -> bool:
    client = redis.asyncio.Redis.from_url(
        settings.REDIS_URL, socket_connect_timeout=2, socket_timeout=2
    )
    try:
        return bool(await client.ping())
    finally:
        await client.aclose()


async def _embedder() -> bool:
    health = await asyncio.to_thread((await _query_embedder()).check)
    return health.ok


@in_database
def _query_embedder() -> Embedder:
    try:
        return spaces.embedder_of(spaces.active())
    except DatabaseError:  # reported by itself
        return engines.embedder()


async def _llm() -> bool | str:
    """``degraded``: some of several servers do not answer."""
    health = await engines.llm().check()
    return "degraded" if health.degraded else health.ok


@require_safe
def metrics(request: HttpRequest) -> HttpResponse:
    """For superusers and for whoever holds METRICS_TOKEN; for all others there is no such page."""
    scheme, _, given = request.headers.get("Authorization", "").partition(" ")
    wanted = settings.METRICS_TOKEN
    has_token = (
        bool(wanted)
        and scheme.lower() == "bearer"
        and secrets.compare_digest(given.strip().encode(), wanted.encode())
    )
    user = request.user
    if not (has_token or (user.is_active and user.is_superuser)):
        raise Http404
    response: HttpResponse = ExportToDjangoView(request)
    return response
