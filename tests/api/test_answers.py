"""One-shot answers, conversations, events, stop and feedback over REST."""

from __future__ import annotations

import json
from typing import Any

import pytest
from django.test import AsyncClient, Client

from assistant.chat.models import AnswerStatus, Conversation, Feedback, Message
from assistant.documents.locators import Locator
from assistant.permissions.models import Grant
from inference.fakes import say
from inference.types import EngineError
from tests.api.calls import JSON, problem
from tests.factories import make_citation, make_collection, make_document, make_turn, make_user

pytestmark = pytest.mark.django_db
ANSWERS = "/api/v1/answers/"
CONVERSATIONS = "/api/v1/conversations/"
QUESTION = {"question": "When does the canteen open?"}


@pytest.fixture
def ada(as_caller: Any, fake_llm: Any) -> Any:
    fake_llm.scripts = [say("The canteen opens at noon [1].")]
    return as_caller(make_user())


@pytest.fixture
def document(ada: Any) -> Any:
    return make_document(make_collection(readers=[ada.user]))


def stored_answer(ada: Any, document: Any) -> Message:
    """An answer as a finished generation leaves it."""
    conversation = Conversation.objects.create(user=ada.user)
    locator = Locator(0, 26, ("Hidden heading",)).to_json()
    answer = make_turn(
        conversation,
        status=AnswerStatus.DONE,
        text="At noon [1].",
        finish_reason="stop",
        sources=[
            {
                "number": 1,
                "document": str(document.pk),
                "version": str(document.current_version_id),
                "locator": locator,
                "score": 1.0,
            }
        ],
    )
    quote = "The canteen opens at noon."
    make_citation(answer, document, ordinal=1, quote=quote, locator=locator)
    return answer


def events(raw: bytes) -> list[tuple[str, dict[str, Any]]]:
    found = []
    for frame in raw.decode().split("\n\n"):
        lines = dict(line.split(": ", 1) for line in frame.splitlines() if not line.startswith(":"))
        if lines:
            found.append((lines["event"], json.loads(lines["data"])))
    return found


def test_a_one_shot_answer_is_cited_and_not_stored(ada: Any, document: Any) -> None:
    answer = ada.with_token("read").post(ANSWERS, QUESTION, **JSON)
    assert answer.status_code == 200, answer.content
    body = answer.json()
    assert body["answer"] == "The canteen opens at noon [1]."
    assert body["abstained"] is False
    assert body["usage"]["prompt_tokens"] == 10
    (citation,) = body["citations"]
    assert citation["number"] == 1
    assert citation["document"]["id"] == str(document.pk)
    assert citation["quote"].startswith("The canteen opens at noon")
    assert citation["verified"] is True
    assert citation["locator"]["char_start"] == 0
    assert not Message.objects.exists()


def test_without_sources_it_abstains(ada: Any, fake_llm: Any) -> None:
    body = ada.with_token("read").post(ANSWERS, QUESTION, **JSON).json()
    assert (body["abstained"], body["citations"]) == (True, [])
    assert fake_llm.requests == []


def test_nothing_of_others_reaches_the_model(ada: Any, fake_llm: Any, document: Any) -> None:
    make_document(make_collection(), text="The secret canteen opens at ten.", title="Secret")
    ada.with_token("read").post(ANSWERS, QUESTION, **JSON)
    (request,) = fake_llm.requests
    assert [source.title for source in request.sources] == ["Canteen"]
    assert "secret" not in str(request.messages).lower()


def test_foreign_collections_are_404_with_and_without_stream(ada: Any) -> None:
    hidden = str(make_collection().pk)
    for stream in (False, True):
        body = {**QUESTION, "collections": [hidden], "stream": stream}
        problem(ada.with_token("read").post(ANSWERS, body, **JSON), 404)


def test_a_model_that_is_down_is_503(ada: Any, document: Any, fake_llm: Any) -> None:
    fake_llm.scripts = [[EngineError("llm_unavailable", "No model answers.", retryable=True)]]
    answer = ada.with_token("read").post(ANSWERS, QUESTION, **JSON)
    assert problem(answer, 503)["code"] == "llm_unavailable"


@pytest.mark.parametrize(
    "body", [{}, {"question": ""}, {"question": " \n"}, {"question": "x", "effort": "maximal"}]
)
def test_a_bad_question_is_refused(ada: Any, body: dict[str, Any]) -> None:
    problem(ada.with_token("read").post(ANSWERS, body, **JSON), 400)


@pytest.mark.django_db(transaction=True)
async def test_a_streamed_answer(as_caller: Any, fake_llm: Any) -> None:
    from asgiref.sync import sync_to_async

    fake_llm.scripts = [say("The canteen opens at noon [1].")]
    caller = as_caller(await sync_to_async(make_user)())
    collection = await sync_to_async(make_collection)(readers=[caller.user])
    await sync_to_async(make_document)(collection)
    token = await sync_to_async(caller.token)("read")
    answer: Any = await AsyncClient().post(
        ANSWERS,
        {**QUESTION, "stream": True},
        headers={"Authorization": f"Bearer {token}"},
        **JSON,
    )
    assert answer.status_code == 200
    assert answer["Content-Type"].startswith("text/event-stream")
    assert answer["X-Accel-Buffering"] == "no"
    assert answer["Cache-Control"] == "no-store"
    raw = b"".join([frame async for frame in answer.streaming_content])
    found = events(raw)
    names = [name for name, _ in found]
    assert names[0] == "status"
    assert names[-1] == "done"
    assert names.index("sources") < names.index("delta") < names.index("citation")
    assert "".join(data["text"] for name, data in found if name == "delta") == (
        "The canteen opens at noon [1]."
    )
    numbers = [int(line[4:]) for line in raw.decode().splitlines() if line.startswith("id: ")]
    assert numbers == sorted(set(numbers))


@pytest.mark.django_db(transaction=True)
async def test_a_stream_that_breaks_ends_with_an_error_event(as_caller: Any, fake_llm: Any) -> None:
    from asgiref.sync import sync_to_async

    lost = EngineError("llm_lost", "The connection broke.", retryable=True)
    fake_llm.scripts = [[*say("The canteen", finish=False), lost]]
    caller = as_caller(await sync_to_async(make_user)())
    collection = await sync_to_async(make_collection)(readers=[caller.user])
    await sync_to_async(make_document)(collection)
    token = await sync_to_async(caller.token)("read")
    answer: Any = await AsyncClient().post(
        ANSWERS,
        {**QUESTION, "stream": True},
        headers={"Authorization": f"Bearer {token}"},
        **JSON,
    )
    found = events(b"".join([frame async for frame in answer.streaming_content]))
    assert found[-1] == (
        "error",
        {"code": "llm_lost", "detail": "The connection broke.", "retryable": True},
    )
    assert any(name == "delta" for name, _ in found)


def test_a_conversation(ada: Any, document: Any) -> None:
    client = ada.with_token()
    made = client.post(
        CONVERSATIONS, {"title": "Food", "collections": [str(document.collection_id)]}, **JSON
    )
    assert made.status_code == 201
    url = f"{CONVERSATIONS}{made.json()['id']}/"
    asked = client.post(f"{url}messages/", {"content": "When?"}, **JSON)
    assert asked.status_code == 202, asked.content
    body = asked.json()
    assert body["question"]["text"] == "When?"
    assert body["answer"]["status"] == "pending"
    detail = client.get(url).json()
    assert detail["collections"] == [str(document.collection_id)]
    assert [m["role"] for m in detail["messages"]] == ["question", "answer"]
    assert [row["id"] for row in client.get(CONVERSATIONS).json()["results"]] == [detail["id"]]
    renamed = client.patch(url, {"title": "Canteen"}, **JSON).json()
    assert (renamed["title"], renamed["collections"]) == ("Canteen", detail["collections"])
    assert client.delete(url).status_code == 204
    problem(client.get(url), 404)
    assert not Message.objects.exists()


def test_the_same_idempotency_key_asks_once(ada: Any) -> None:
    client = ada.with_token()
    url = f"{CONVERSATIONS}{client.post(CONVERSATIONS, {}, **JSON).json()['id']}/messages/"
    headers = {"Idempotency-Key": "k1"}
    first = client.post(url, {"content": "When?"}, headers=headers, **JSON)
    again = client.post(url, {"content": "When?"}, headers=headers, **JSON)
    assert first.json() == again.json()
    assert Message.objects.count() == 2
    busy = client.post(url, {"content": "And where?"}, headers={"Idempotency-Key": "k2"}, **JSON)
    assert problem(busy, 409)["code"] == "busy"
    too_long = client.post(url, {"content": "x"}, headers={"Idempotency-Key": "k" * 201}, **JSON)
    problem(too_long, 400)


def test_the_idempotency_key_of_somebody_else_brings_nothing(ada: Any) -> None:
    client = ada.with_token()
    url = f"{CONVERSATIONS}{client.post(CONVERSATIONS, {}, **JSON).json()['id']}/messages/"
    asked = {"data": {"content": "When?"}, "headers": {"Idempotency-Key": "k1"}, **JSON}
    assert client.post(url, **asked).status_code == 202
    for other in (make_user(), make_user(is_superuser=True)):
        stranger = Client()
        stranger.force_login(other)
        problem(stranger.post(url, **asked), 404)
    assert Message.objects.count() == 2


def test_foreign_collections_make_no_conversation(ada: Any) -> None:
    hidden = str(make_collection().pk)
    client = ada.with_token()
    problem(client.post(CONVERSATIONS, {"collections": [hidden]}, **JSON), 404)
    assert not Conversation.objects.exists()
    mine = client.post(CONVERSATIONS, {"title": "Old"}, **JSON).json()["id"]
    body = {"title": "New", "collections": [hidden]}
    problem(client.patch(f"{CONVERSATIONS}{mine}/", body, **JSON), 404)
    assert Conversation.objects.get().title == "Old"


def test_a_stored_answer_shows_its_evidence_until_the_right_is_withdrawn(
    ada: Any, document: Any
) -> None:
    answer = stored_answer(ada, document)
    client = ada.with_token("read")
    url = f"{ANSWERS}{answer.pk}/"
    body = client.get(url).json()
    assert body["text"] == "At noon [1]."
    assert body["citations"][0]["quote"] == "The canteen opens at noon."
    assert body["citations"][0]["document"]["id"] == str(document.pk)
    assert body["sources"][0]["text"] == "The canteen opens at noon."
    Grant.objects.filter(user=ada.user).delete()
    after = client.get(url)
    (citation,), (source,) = after.json()["citations"], after.json()["sources"]
    assert (citation["available"], citation["document"], citation["quote"]) == (False, None, None)
    assert (source["available"], source["document"], source["text"]) == (False, None, None)
    for word in ("Canteen", "The canteen", "Hidden heading", str(document.pk)):
        assert word not in after.content.decode()


def test_feedback_counts_once_and_is_checked(ada: Any, document: Any) -> None:
    answer = stored_answer(ada, document)
    client = ada.with_token("read")
    url = f"{ANSWERS}{answer.pk}/feedback"
    client.post(url, {"rating": "up"}, **JSON)
    body = {"rating": "down", "reasons": ["outdated"], "comment": "It opens at one."}
    rated = client.post(url, body, **JSON)
    assert rated.status_code == 200
    assert {k: rated.json()[k] for k in body} == body
    assert Feedback.objects.get().rating == "down"
    for bad in ({}, {"rating": "meh"}, {"rating": "up", "comment": "x" * 5001}):
        problem(client.post(url, bad, **JSON), 400)
    assert client.get(f"{ANSWERS}{answer.pk}/").json()["feedback"]["comment"] == "It opens at one."


def test_answers_of_others_are_404_for_everything_even_for_an_administrator(
    ada: Any, document: Any, as_caller: Any
) -> None:
    answer = stored_answer(ada, document)
    question = answer.conversation.messages.get(ordinal=1)
    for other in (make_user(), make_user(is_superuser=True)):
        client = as_caller(other).with_token()
        for key in (answer.pk, question.pk, "00000000-0000-4000-8000-000000000000"):
            for call in (
                client.get(f"{ANSWERS}{key}/"),
                client.get(f"{ANSWERS}{key}/events"),
                client.post(f"{ANSWERS}{key}/stop"),
                client.post(f"{ANSWERS}{key}/again"),
                client.post(f"{ANSWERS}{key}/feedback", {"rating": "up"}, **JSON),
            ):
                problem(call, 404)
    assert not Feedback.objects.exists()


def test_a_question_is_no_answer(ada: Any, document: Any) -> None:
    question = stored_answer(ada, document).conversation.messages.get(ordinal=1)
    client = ada.with_token("read")
    for path in ("", "events"):
        problem(client.get(f"{ANSWERS}{question.pk}/{path}"), 404)
    problem(client.post(f"{ANSWERS}{question.pk}/again"), 404)


@pytest.mark.parametrize("position", ["x", "-1", "1.5", "9" * 20])
def test_a_bad_position_in_the_stream(ada: Any, document: Any, position: str) -> None:
    answer = stored_answer(ada, document)
    client = ada.with_token("read")
    problem(client.get(f"{ANSWERS}{answer.pk}/events?after={position}"), 400)
    headers = {"Last-Event-ID": position}
    problem(client.get(f"{ANSWERS}{answer.pk}/events", headers=headers), 400)


@pytest.mark.django_db(transaction=True)
async def test_events_of_a_finished_answer_are_replayed(as_caller: Any, fake_embedder: Any) -> None:
    from asgiref.sync import sync_to_async

    caller = as_caller(await sync_to_async(make_user)())
    collection = await sync_to_async(make_collection)(readers=[caller.user])
    document = await sync_to_async(make_document)(collection)
    answer = await sync_to_async(stored_answer)(caller, document)
    token = await sync_to_async(caller.token)("read")
    for headers in ({}, {"Last-Event-ID": "3"}):
        reply: Any = await AsyncClient().get(
            f"{ANSWERS}{answer.pk}/events",
            headers={"Authorization": f"Bearer {token}", **headers},
        )
        assert reply["Content-Type"].startswith("text/event-stream")
        found = events(b"".join([frame async for frame in reply.streaming_content]))
        assert found[-1][0] == "done"
        assert found[-1][1]["answer_id"] == str(answer.pk)
