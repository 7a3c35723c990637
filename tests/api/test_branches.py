"""Branches of a conversation over REST."""

from __future__ import annotations

from typing import Any
from uuid import uuid4

import pytest

from assistant.chat.models import Conversation, Message
from tests.api.calls import JSON, problem
from tests.factories import make_turn, make_user

pytestmark = pytest.mark.django_db
CONVERSATIONS = "/api/v1/conversations/"
ANSWERS = "/api/v1/answers/"


def test_a_conversation_is_read_along_its_branch(ada: Any) -> None:
    conversation = Conversation.objects.create(user=ada.user)
    answer = make_turn(conversation, question="One?", status="done", text="One.")
    make_turn(conversation, question="Two?", status="done", text="Two.")
    client, url = ada.with_token(), f"{CONVERSATIONS}{conversation.pk}/"
    first = answer.parent
    assert first is not None
    asked = client.post(f"{url}messages/", {"content": "Uno?", "parent": None}, **JSON)
    assert asked.status_code == 202, asked.content
    assert asked.json()["question"]["parent"] is None
    uno = asked.json()["question"]["id"]
    shown = client.get(url).json()["messages"]
    assert [message["text"] for message in shown] == ["Uno?", ""]
    assert shown[0]["siblings"] == [str(first.pk), uno]
    assert shown[1]["parent"] == uno
    assert client.patch(url, {"branch": str(answer.pk)}, **JSON).status_code == 200
    shown = client.get(url).json()["messages"]
    assert [message["text"] for message in shown] == ["One?", "One.", "Two?", "Two."]
    Message.objects.filter(status="pending").update(status="done")
    bad = client.post(f"{url}messages/", {"content": "x", "parent": str(uuid4())}, **JSON)
    assert "no such answer" in problem(bad, 400)["detail"]


def test_an_answer_can_be_asked_for_again(ada: Any) -> None:
    conversation = Conversation.objects.create(user=ada.user)
    answer = make_turn(conversation, status="done", text="One.", follow_ups=["And then?"])
    client = ada.with_token("read")
    url, headers = f"{ANSWERS}{answer.pk}/", {"Idempotency-Key": "again"}
    assert client.get(url).json()["follow_ups"] == ["And then?"]
    body = {"effort": "high", "understand": False}
    asked = client.post(f"{url}again", body, headers=headers, **JSON)
    assert asked.status_code == 202, asked.content
    assert asked.json()["question"]["id"] == str(answer.parent_id)
    made = client.get(f"{ANSWERS}{asked.json()['answer']['id']}/").json()
    assert (made["effort"], made["parent"]) == ("high", str(answer.parent_id))
    assert "time" in made["narrowing"]["ignored"]
    assert client.post(f"{url}again", body, headers=headers, **JSON).json() == asked.json()
    assert problem(client.post(f"{url}again", {}, **JSON), 409)["code"] == "busy"
    problem(client.post(f"{url}again", {"effort": "endless"}, **JSON), 400)
    problem(client.post(f"{url}again", {"model": "secret"}, **JSON), 400)


def test_branches_of_others_cannot_be_chosen(ada: Any, as_caller: Any) -> None:
    mine = Conversation.objects.create(user=ada.user)
    theirs = Conversation.objects.create(user=make_user())
    make_turn(mine)
    foreign = make_turn(theirs)
    url = f"{CONVERSATIONS}{mine.pk}/"
    for message in (foreign.pk, uuid4()):
        problem(ada.with_token().patch(url, {"branch": str(message)}, **JSON), 404)
        refused = ada.with_token().post(
            f"{url}messages/", {"content": "x", "parent": str(message)}, **JSON
        )
        assert "no such answer" in problem(refused, 400)["detail"]
    other = as_caller(make_user()).with_token()
    problem(other.patch(url, {"branch": str(mine.leaf_id)}, **JSON), 404)
    assert Message.objects.count() == 4
