"""What stands around every view, on an event loop: as in a thread, and with fewer of them."""

from __future__ import annotations

from typing import Any

import django.utils.deprecation
import pytest
from asgiref.sync import sync_to_async
from django.test import AsyncClient

from assistant.web import middleware
from tests.factories import PASSWORD, make_user

LOGIN = "/sign-in/"
pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def hops(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Methods of middleware that were given to a thread."""
    found: list[str] = []

    def noted(call: Any, **options: Any) -> Any:
        found.append(call.__name__)
        return sync_to_async(call, **options)

    monkeypatch.setattr(middleware, "sync_to_async", noted)
    monkeypatch.setattr(django.utils.deprecation, "sync_to_async", noted)
    return found


async def test_a_page_that_changes_nothing_takes_no_thread(hops: list[str]) -> None:
    response: Any = await AsyncClient().get(LOGIN)
    assert response.status_code == 200
    assert hops == []
    assert response["X-Frame-Options"] == "DENY"
    assert "script-src 'self'" in response["Content-Security-Policy"]
    assert response["Cache-Control"] == "no-store"
    assert "csrf" in response.cookies


async def test_a_form_without_its_token_is_refused(hops: list[str]) -> None:
    client = AsyncClient(enforce_csrf_checks=True)
    response: Any = await client.post(LOGIN, {"username": "a", "password": "b"})
    assert response.status_code == 403
    assert hops == ["process_view"]


async def test_what_changes_a_session_is_stored(hops: list[str]) -> None:
    user = await sync_to_async(make_user)()
    client = AsyncClient()
    response: Any = await client.post(LOGIN, {"username": user.email, "password": PASSWORD})
    assert response.status_code == 302
    assert "process_response" in hops
    new = "another long one 8!"
    body = {"old_password": PASSWORD, "new_password1": new, "new_password2": new}
    response = await client.post("/account/password/", body, follow=True)
    assert "Your password was changed" in response.content.decode()
    page: Any = await client.get("/account/")
    assert user.email in page.content.decode()
    assert "Your password was changed" not in page.content.decode()
