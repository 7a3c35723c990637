from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from django.http import HttpResponse
from django.test import AsyncClient, Client
from prometheus_client import REGISTRY, Gauge
from pytest_django import Settings

from assistant.chat import queueing
from assistant.web.views import health
from inference import metrics
from inference.fakes import FakeEmbedder
from tests.factories import make_user
from tests.web.conftest import SignIn

pytestmark = pytest.mark.django_db(transaction=True)


async def ready() -> tuple[int, dict[str, Any]]:
    response = await AsyncClient().get("/health/ready")
    assert isinstance(response, HttpResponse)
    return response.status_code, json.loads(response.content)


def test_live_needs_nothing(client: Client) -> None:
    assert client.get("/health/live").json() == {"status": "live"}


async def test_ready_with_everything_there(fake_embedder: FakeEmbedder) -> None:
    assert await ready() == (
        200,
        {
            "status": "ready",
            "checks": {
                "database": "ok",
                "broker": "ok",
                "embedder": "ok",
                "llm": "not_configured",
            },
        },
    )


@pytest.mark.parametrize("part", ["database", "broker", "embedder", "llm"])
@pytest.mark.parametrize("fault", ["raises", "hangs"])
async def test_a_missing_part_is_named_without_a_reason(
    part: str,
    fault: str,
    settings: Settings,
    monkeypatch: pytest.MonkeyPatch,
    fake_embedder: FakeEmbedder,
) -> None:
    async def broken() -> bool:
        if fault == "hangs":
            await asyncio.sleep(300)
        raise RuntimeError("postgresql://secret@host/db version 18.1")

    settings.LLM_BASE_URL = "http://127.0.0.1:1/v1"
    monkeypatch.setattr(health, "TIMEOUT_SECONDS", 1.5)
    monkeypatch.setattr(health, f"_{part}", broken)
    async with asyncio.timeout(60):
        status, body = await ready()
    assert status == (200 if part == "llm" else 503)
    assert body["checks"][part] == "unavailable"
    assert set(body["checks"].values()) <= {"ok", "unavailable"}


def test_every_gauge_is_one_number_for_all_web_processes() -> None:
    """Each tells of what they share, so that the process which looked last is right."""
    gauges = {
        names[0]: collector._multiprocess_mode
        for collector, names in REGISTRY._collector_to_names.items()
        if isinstance(collector, Gauge)
    }
    assert {queueing.WAITING._name, metrics.UP._name} <= set(gauges)
    # Without PROMETHEUS_EXPORT_MIGRATIONS, which the settings leave off, these are never set.
    unset = {f"django_migrations_{state}_total" for state in ("applied", "unapplied")}
    assert {mode for name, mode in gauges.items() if name not in unset} == {"mostrecent"}


def test_metrics_are_for_superusers_and_the_token(
    client: Client, signed_in: SignIn, settings: Settings
) -> None:
    absent = client.get("/no-such-page").status_code
    assert client.get("/metrics").status_code == absent == 404
    assert signed_in(make_user()).get("/metrics").status_code == 404
    shown = signed_in(make_user(is_superuser=True)).get("/metrics")
    assert shown.status_code == 200
    assert b"django_http_requests" in shown.content

    def with_token(token: str) -> int:
        return client.get("/metrics", headers={"Authorization": f"Bearer {token}"}).status_code

    assert with_token("") == 404
    settings.METRICS_TOKEN = "x" * 32
    assert with_token("x" * 32) == 200
    assert with_token("y" * 32) == 404
    assert with_token("é") == 404
