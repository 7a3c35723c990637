"""Every error is a problem in words, and says no more than it should."""

from __future__ import annotations

from typing import Any

import psycopg
import pytest
from django.db import OperationalError
from redis.exceptions import ConnectionError as RedisConnectionError

from assistant.api import base
from tests.api.calls import JSON, problem
from tests.factories import make_collection, make_document, make_user

pytestmark = pytest.mark.django_db
URL = "/api/v1/collections/"
ABSENT = "00000000-0000-4000-8000-000000000000"


@pytest.fixture
def client(as_caller: Any) -> Any:
    return as_caller(make_user()).with_token()


@pytest.mark.parametrize(
    ("raw", "word"),
    [
        (b"{", "JSON"),
        (b"[]", "object"),
        (b'"text"', "object"),
        (b'{"name": NaN}', "NaN"),
        (b'{"name": Infinity}', "Infinity"),
        (b'{"name": "a", "name": "b"}', "twice"),
        (b'{"name": "\\u0000"}', "NUL"),
        (b'{"na\\u0000me": "x"}', "NUL"),
        (b'{"name": "\\ud800"}', "surrogate"),
        (b'{"x": [{"y": "\\udfff"}], "name": "a"}', "surrogate"),
        (b'{"name": "\xff"}', "UTF-8"),
        (b'{"name": "\xed\xa0\x80"}', "UTF-8"),
        (b'{"x":' * 100_000, "JSON"),
        (b"[" * 100_000, "JSON"),
        (b'{"x": ' + b"9" * 5000 + b"}", "JSON"),
    ],
    ids=lambda value: str(value)[:24],
)
def test_a_body_that_cannot_be_read_is_400(client: Any, raw: bytes, word: str) -> None:
    answer = client.post(URL, data=raw, **JSON)
    assert word in problem(answer, 400)["detail"]


def test_a_body_that_is_too_large_is_413(client: Any) -> None:
    answer = client.post(URL, data=b'{"name": "' + b"x" * (1 << 20) + b'"}', **JSON)
    assert problem(answer, 413)["code"] == "too_large"


@pytest.mark.parametrize("kind", ["text/plain", "application/xml", "multipart/form-data", ""])
def test_another_content_type_is_415(client: Any, kind: str) -> None:
    problem(client.post(URL, data=b"name=x", content_type=kind), 415)


def test_a_surrogate_pair_is_a_character(client: Any) -> None:
    answer = client.post(URL, data=b'{"name": "\\ud83d\\ude00"}', **JSON)
    assert answer.json()["name"] == "😀"


@pytest.mark.parametrize("method", ["put", "options", "trace", "delete"])
def test_an_undeclared_method_is_405(client: Any, method: str) -> None:
    problem(getattr(client, method)(URL), 405)


def test_hidden_absent_malformed_and_unknown_addresses_answer_alike(client: Any) -> None:
    hidden = make_collection()
    document = make_document(hidden)
    addresses = [
        f"{URL}{hidden.pk}/",
        f"{URL}{ABSENT}/",
        f"{URL}no-id/",
        f"{URL}{hidden.pk}/grants/",
        f"/api/v1/documents/{document.pk}/",
        f"/api/v1/documents/{document.pk}/file",
        f"/api/v1/documents/{ABSENT}/",
        f"/api/v1/answers/{ABSENT}/",
        f"/api/v1/conversations/{ABSENT}/",
        "/api/v1/nothing/",
        "/api/v1/collections",
        "/api/",
    ]
    bodies = {client.get(address).content for address in addresses}
    for address in addresses:
        problem(client.get(address), 404)
    assert len(bodies) == 1
    times = [client.delete(f"{URL}{key}/").content for key in (hidden.pk, ABSENT)]
    assert times[0] == times[1]


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (RuntimeError("the secret is 42"), 500),
        (OperationalError("connection to server at 10.0.0.1 failed"), 503),
        (psycopg.OperationalError("raw"), 500),
        (RedisConnectionError("redis://:secret@host"), 503),
        (OSError(28, "No space left on device: /srv/data"), 503),
    ],
)
def test_what_breaks_inside_gives_nothing_away(
    client: Any, monkeypatch: pytest.MonkeyPatch, error: Exception, status: int
) -> None:
    def broken(*args: object, **kwargs: object) -> None:
        raise error

    monkeypatch.setattr(base, "page_of", broken)
    monkeypatch.setattr("assistant.api.collections.page_of", broken)
    answer = client.get(URL)
    body = problem(answer, status)
    assert str(error) not in answer.content.decode()
    for secret in ("42", "10.0.0.1", "secret", "/srv"):
        assert secret not in answer.content.decode()
    assert ("Retry-After" in answer) is (status == 503)
    assert body["code"]


def test_accept_headers_do_not_matter(client: Any) -> None:
    answer = client.get(URL, headers={"Accept": "text/event-stream"})
    assert answer["Content-Type"] == "application/json"


def test_every_answer_is_private(client: Any) -> None:
    for answer in (client.get(URL), client.get(f"{URL}{ABSENT}/")):
        assert "no-store" in answer["Cache-Control"]
        assert answer["X-Content-Type-Options"] == "nosniff"
