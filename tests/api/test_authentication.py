"""Credentials: what is accepted, what is refused, and what a token may do."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.test import Client
from django.utils import timezone

from assistant.documents.models import Collection
from assistant.users.models import ApiToken
from tests.api.calls import JSON, problem
from tests.factories import make_user

pytestmark = pytest.mark.django_db
URL = "/api/v1/collections/"


def client_with(header: str) -> Client:
    return Client(headers={"Authorization": header}, raise_request_exception=False)


def test_no_credential_is_401_with_a_challenge() -> None:
    answer = Client().get(URL)
    problem(answer, 401)
    assert answer["WWW-Authenticate"] == 'Bearer realm="api"'


@pytest.mark.parametrize(
    "header",
    [
        "",
        "Bearer",
        "Bearer ",
        "Bearer ka_",
        "Bearer ka_unknown",
        "Bearer " + "ka_" + "x" * 300,
        "Bearer ka_ümlaut",
        "Basic YWRhOmFkYQ==",
        "Token {token}",
        "{token}",
        "Bearer {token},Bearer {token}",
        "Bearer {token} x",
        "Bearer\t{token}",
    ],
)
def test_a_bad_header_is_401_even_beside_a_good_session(as_caller: Any, header: str) -> None:
    caller = as_caller(make_user())
    session = caller.with_session()
    value = header.format(token=caller.token("read"))
    answer = session.get(URL, headers={"Authorization": value})
    problem(answer, 401)
    assert answer["WWW-Authenticate"]


@pytest.mark.parametrize("change", ["expired", "revoked", "deactivated", "deleted"])
def test_a_dead_token_is_401_at_once(as_caller: Any, change: str) -> None:
    user = make_user()
    row, token = ApiToken.generate(user, scopes=["read", "write"])
    client = client_with(f"Bearer {token}")
    assert client.get(URL).status_code == 200
    now = timezone.now()
    if change == "expired":
        ApiToken.objects.filter(pk=row.pk).update(expires_at=now - timedelta(seconds=1))
    elif change == "revoked":
        ApiToken.objects.filter(pk=row.pk).update(revoked_at=now)
    elif change == "deactivated":
        user.is_active = False
        user.save()
    else:
        row.delete()
    problem(client.get(URL), 401)


def test_tokens_travel_in_no_other_way(as_caller: Any) -> None:
    token = as_caller(make_user()).token("read", "write")
    client = Client()
    for query in ("token", "access_token", "api_key", "key", "Authorization"):
        problem(client.get(f"{URL}?{query}={token}"), 401)
    for header in ("X-API-Key", "X-Auth-Token", "X-Token", "Proxy-Authorization"):
        problem(client.get(URL, headers={header: f"Bearer {token}"}), 401)
    client.cookies["session"] = token
    client.cookies["token"] = token
    problem(client.get(URL), 401)


def test_a_read_token_reads_and_writes_nothing(as_caller: Any) -> None:
    client = as_caller(make_user()).with_token("read")
    assert client.get(URL).status_code == 200
    refused = problem(client.post(URL, {"name": "x"}, **JSON), 403)
    assert "write" in refused["detail"]
    assert not Collection.objects.exists()


def test_a_write_token_does_not_read(as_caller: Any) -> None:
    client = as_caller(make_user()).with_token("write")
    problem(client.get(URL), 403)
    assert client.post(URL, {"name": "x"}, **JSON).status_code == 201


def test_a_token_ignores_the_cookies_beside_it(as_caller: Any) -> None:
    ada, bob = as_caller(make_user()), as_caller(make_user())
    session = ada.with_session(enforce_csrf=True)
    header = {"Authorization": f"Bearer {bob.token('read', 'write')}"}
    made = session.post(URL, {"name": "Bob's"}, headers=header, **JSON)  # and needs no CSRF token
    assert made.status_code == 201
    assert Collection.objects.get().created_by == bob.user


def test_a_session_reads_and_writes_only_with_the_csrf_token(as_caller: Any) -> None:
    session = as_caller(make_user()).with_session(enforce_csrf=True)
    assert session.get(URL).status_code == 200
    refused = problem(session.post(URL, {"name": "x"}, **JSON), 403)
    assert "CSRF" in refused["detail"]
    problem(session.post("/api/v1/search/", {"query": "x"}, **JSON), 403)
    problem(session.post("/api/v1/answers/", {"question": "x", "stream": True}, **JSON), 403)
    assert not Collection.objects.exists()
    secret = "a" * 32
    session.cookies["csrf"] = secret
    accepted = session.post(URL, {"name": "x"}, headers={"X-CSRFToken": secret}, **JSON)
    assert accepted.status_code == 201


def test_a_deactivated_user_has_no_session(as_caller: Any) -> None:
    user = make_user()
    session = as_caller(user).with_session()
    assert session.get(URL).status_code == 200
    user.is_active = False
    user.save()
    problem(session.get(URL), 401)
