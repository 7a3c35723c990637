"""Refused before the first byte: 503 when the line is full, 429 when a limit is used up."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from uuid import uuid4

import pytest
import redis
from asgiref.sync import sync_to_async
from django.conf import LazySettings
from django.contrib.auth.models import Group

from assistant import asgi, engines
from assistant.chat import queueing, recording
from assistant.chat.models import Message
from assistant.chat.queueing import Asker, reserve
from assistant.database import shared_threads
from assistant.overload import asks
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


USER = {"role": "user", "content": "Leave?"}


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
    ("path", "body"),
    [
        ("/api/v1/answers/", {"question": "Leave?"}),
        ("/api/v1/conversations/{conversation}/messages/", {"content": "Leave?"}),
        ("/v1/chat/completions", {"model": "knowledge", "messages": [USER]}),
        ("/", {"content": "Leave?"}),
        ("/c/{conversation}/", {"content": "Leave?"}),
    ],
)
def test_a_refusal_is_that_of_the_view_and_costs_no_thread_and_no_search(
    settings: LazySettings, monkeypatch: pytest.MonkeyPatch, path: str, body: dict[str, Any]
) -> None:
    settings.LLM_MAX_RUNNING, settings.LLM_MAX_WAITING = 1, 1
    caller = Caller(make_user())
    made = post(caller, "/conversations/", {}).json()["id"]
    path = path.format(conversation=made)
    for _ in range(2):
        reserve(uuid4(), Asker(str(uuid4())))
    if "v1" in path:
        viewed = caller.with_token().post(path, body, content_type="application/json")
    else:
        viewed = caller.with_session().post(path, body)
    monkeypatch.setattr(queueing, "_seen_at", 0.0)

    def never(*_: object, **__: object) -> None:
        raise AssertionError("a refused question reached Django, or was given a thread")

    monkeypatch.setattr(asgi, "django_application", never)
    monkeypatch.setattr(ThreadPoolExecutor, "submit", never)
    status, headers, content = asyncio.run(answered(path))
    assert (status, content) == (viewed.status_code, viewed.content)
    for name in ("Content-Type", "Retry-After", "HX-Retarget", "HX-Reswap", "Cache-Control"):
        if name in viewed:
            assert headers[name.lower()] == viewed[name]
    assert int(headers["retry-after"]) > 0


async def answered(path: str) -> tuple[int, dict[str, str], bytes]:
    """What the ASGI application says to a POST, with the names of its headers in small letters."""
    sent: list[Mapping[str, Any]] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b"{}", "more_body": False}

    async def send(message: Mapping[str, Any]) -> None:
        sent.append(message)

    await asgi.application({"type": "http", "method": "POST", "path": path}, receive, send)
    headers = {name.decode(): value.decode() for name, value in sent[0]["headers"]}
    return int(sent[0]["status"]), headers, b"".join(each.get("body", b"") for each in sent)


async def test_an_open_stream_holds_no_thread(settings: LazySettings) -> None:
    before, most = threading.active_count(), settings.DATABASE_POOL_SIZE or 20
    barrier = asyncio.Barrier(3 * most)

    async def stream() -> int:
        async with shared_threads():
            await sync_to_async(make_user)()
            await barrier.wait()  # all are open now
            return threading.active_count()

    async with asyncio.TaskGroup() as group:
        streams = [group.create_task(stream()) for _ in range(3 * most)]
    assert max(task.result() for task in streams) <= before + most


def test_only_questions_are_refused() -> None:
    for method, path in (("GET", "/"), ("POST", "/api/v1/search/"), ("POST", "/library/")):
        assert asks({"method": method, "path": path}) is None


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
    turn = recording.turn_for(Message.objects.get(pk=answer["id"]))
    assert turn.choice is not None
    assert turn.choice.model == "120b"


def test_a_used_up_limit_is_a_429(settings: LazySettings) -> None:
    settings.LLM_LIMITS = {"user": {"requests_per_minute": 1}}
    user = make_user()
    if (left := 60 - time.time() % 60) < 10:
        time.sleep(left)  # both questions belong to one minute of the clock
    reserve(uuid4(), Asker.of(user))
    caller = Caller(user)
    conversation = post(caller, "/conversations/", {}).json()["id"]
    answer = post(caller, f"/conversations/{conversation}/messages/", {"content": "Leave?"})
    assert (answer.status_code, answer.json()["code"]) == (429, "limit_reached")
    assert 1 <= int(answer["Retry-After"]) <= 60
    assert Message.objects.count() == 0
