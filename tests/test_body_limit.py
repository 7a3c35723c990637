"""Request bodies are bounded before Django spools them, whatever length their sender declares."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from typing import Any

import pytest
from django.conf import settings

from assistant import asgi

PIECE = b"x" * (1 << 20)


async def send_body(pieces: int, path: str = "/api/v1/documents/") -> tuple[int, bytes, int]:
    """Status, body, and how many pieces were read of a chunked POST without a length."""
    read = 0
    sent: list[Mapping[str, Any]] = []

    async def receive() -> dict[str, Any]:
        nonlocal read
        if read == pieces:
            await asyncio.Event().wait()  # a browser that stays: nothing more comes
        read += 1
        return {"type": "http.request", "body": PIECE, "more_body": read < pieces}

    async def send(message: Mapping[str, Any]) -> None:
        sent.append(message)

    scope = {
        "type": "http",
        "method": "POST",
        "path": path,
        "query_string": b"",
        "headers": [(b"host", b"localhost"), (b"content-type", b"application/json")],
        "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 80),
    }
    await asgi.application(scope, receive, send)
    body = b"".join(message.get("body", b"") for message in sent)
    return int(sent[0]["status"]), body, read


@pytest.mark.django_db(transaction=True)
async def test_a_body_without_length_is_cut_in_words() -> None:
    limit = settings.MAX_UPLOAD_MB + asgi.FORM_MB
    status, body, read = await send_body(limit + 20)
    assert status == 413
    assert f"{settings.MAX_UPLOAD_MB} MB" in json.loads(body)["detail"]
    assert read == limit + 20  # the sender got rid of all of it, and nothing was kept


@pytest.mark.django_db(transaction=True)
async def test_a_sender_without_end_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asgi, "DROPPED_MB", 5)
    status, _, read = await send_body(10_000)
    assert status == 413
    assert read <= settings.MAX_UPLOAD_MB + asgi.FORM_MB + 7


@pytest.mark.django_db(transaction=True)
async def test_what_is_within_the_limit_reaches_the_view() -> None:
    status, _, _ = await send_body(2)
    assert status == 401
