"""Refused before the first byte: 503 when the line is full, 429 when a limit is used up."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import Any
from uuid import UUID, uuid4

import pytest
import redis
from asgiref.sync import async_to_sync
from django.conf import LazySettings
from django.contrib.auth.models import Group

from assistant import engines
from assistant.api.overload import refusal
from assistant.chat import queueing, recording
from assistant.chat.models import Message
from assistant.chat.queueing import Asker, reserve
from inference.fakes import FakeLLM
from tests.conftest import Caller
from tests.factories import make_collection, make_document, make_user

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture(autouse=True)
def line(settings: LazySettings, fake_llm: FakeLLM) -> Iterator[None]:
    client = redis.Redis.from_url(settings.REDIS_URL)
    client.flushdb()
    yield
    client.flushdb()


def post(caller: Caller, path: str, body: dict[str, Any]) -> Any:
    return caller.with_token().post(f"/api/v1{path}", body, content_type="application/json")


@pytest.mark.parametrize("stream", [True, False])
def test_a_full_line_is_a_503_with_a_time_to_come_again(
    settings: LazySettings, stream: bool
) -> None:
    settings.LLM_MAX_RUNNING, settings.LLM_MAX_WAITING = 1, 1
    for _ in range(2):
        reserve(uuid4(), Asker(str(uuid4())))
    caller = Caller(make_user())
    answer = post(caller, "/answers/", {"question": "Leave?", "stream": stream})
    assert (answer.status_code, answer.json()["code"]) == (503, "llm_overloaded")
    assert answer["Content-Type"] == "application/problem+json"
    assert 1 <= int(answer["Retry-After"]) <= 60


@pytest.mark.parametrize(
    ("path", "code"),
    [
        ("/api/v1/answers/", "code"),
        (f"/api/v1/conversations/{uuid4()}/messages/", "code"),
        ("/v1/chat/completions", "error"),
    ],
)
def test_in_a_storm_refusing_needs_no_application(
    monkeypatch: pytest.MonkeyPatch, path: str, code: str
) -> None:
    asked = {"method": "POST", "path": path}
    monkeypatch.setattr(queueing, "_full_until", 0.0)
    assert refusal(asked) is None
    monkeypatch.setattr(queueing, "_full_until", time.monotonic() + 60)
    refused = refusal(asked)
    assert refused is not None
    status, headers, body = refused
    assert status == 503
    assert int(dict(headers)[b"retry-after"]) > 0
    assert code in json.loads(body)
    assert refusal(asked | {"method": "GET"}) is None
    assert refusal(asked | {"path": "/api/v1/search/"}) is None


def test_another_model_is_for_who_may_choose_it(
    settings: LazySettings, fake_llm: FakeLLM, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings.LLM_MODELS = [{"name": "Thorough", "model": "120b", "groups": ["Legal"]}]
    thorough = FakeLLM(model="120b")
    monkeypatch.setattr(engines, "chosen_llm", lambda choice: thorough)
    user = make_user()
    make_document(make_collection(readers=[user]), text="Annual leave is thirty days a year.")
    caller = Caller(user)
    body = {"question": "How long is annual leave?", "model": "Thorough"}
    refused = post(caller, "/answers/", body)
    absent = post(caller, "/answers/", body | {"model": "Absent"})
    assert refused.status_code == absent.status_code == 400
    assert refused.json()["detail"].replace("Thorough", "Absent") == absent.json()["detail"]
    user.groups.add(Group.objects.create(name="Legal"))
    assert post(caller, "/answers/", body).status_code == 200
    assert (len(thorough.requests), len(fake_llm.requests)) == (1, 0)
    conversation = post(caller, "/conversations/", {}).json()["id"]
    asked = {"content": body["question"], "model": "Thorough"}
    answer = post(caller, f"/conversations/{conversation}/messages/", asked).json()["answer"]
    turn = async_to_sync(recording.claim)(UUID(answer["id"]))
    assert turn is not None
    assert turn.choice is not None
    assert turn.choice.model == "120b"


def test_a_used_up_limit_is_a_429(settings: LazySettings) -> None:
    settings.LLM_LIMITS = {"user": {"requests_per_minute": 1}}
    user = make_user()
    reserve(uuid4(), Asker.of(user))
    caller = Caller(user)
    conversation = post(caller, "/conversations/", {}).json()["id"]
    answer = post(caller, f"/conversations/{conversation}/messages/", {"content": "Leave?"})
    assert (answer.status_code, answer.json()["code"]) == (429, "limit_reached")
    assert 1 <= int(answer["Retry-After"]) <= 60
    assert Message.objects.count() == 0
