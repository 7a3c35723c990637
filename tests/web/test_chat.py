from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any
from uuid import UUID, uuid4

import pytest
from django.test import Client
from django.utils import timezone

from assistant.chat import actions
from assistant.chat.models import AnswerStatus, Citation, Conversation, Feedback, Message
from assistant.documents.actions import delete_document
from assistant.permissions.models import Grant
from assistant.users.models import User
from inference.fakes import FakeLLM
from tests.factories import make_citation, make_collection, make_user
from tests.web.conftest import TEXT, House, SignIn
from tests.web.markup import Elements, dangers_in

HTMX = {"HX-Request": "true"}
QUOTE = "The canteen opens at noon."
HOSTILE = "<img src=x onerror=alert(1)>"


@pytest.fixture(autouse=True)
def nobody_answers(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[UUID]]:
    """Questions are stored and their answers stay pending: these tests write them."""
    started: list[UUID] = []
    monkeypatch.setattr("assistant.chat.actions.start", started.append)
    yield started


def thread(user: User, title: str = "") -> Conversation:
    return actions.create_conversation(user=user, title=title)


def answered(house: House, *, text: str = "It opens at noon [1].", **values: Any) -> Message:
    """A finished answer of the reader with one verified citation."""
    _, answer = actions.ask(thread(house.reader).pk, content="When?", user=house.reader)
    start = TEXT.index(QUOTE)
    locator = {"char_start": start, "char_end": start + len(QUOTE), "heading_path": ["Hours"]}
    version = house.document.current_version
    assert version is not None
    source = {"document": str(house.document.pk), "version": str(version.pk), "locator": locator}
    Message.objects.filter(pk=answer.pk).update(
        **{"status": AnswerStatus.DONE, "text": text, "sources": [source | {"number": 1}]} | values
    )
    make_citation(answer, house.document, quote=QUOTE, locator=locator)
    answer.refresh_from_db()
    return answer


def page(client: Client, path: str) -> str:
    response = client.get(path)
    assert response.status_code == 200
    return response.content.decode()


def test_a_new_chat_says_what_can_be_asked(house: House, signed_in: SignIn) -> None:
    text = page(signed_in(house.reader), "/")
    assert "1 document in 1 collection" in text
    assert "“Canteen”" in text
    assert "no documents you can read yet" in page(signed_in(house.stranger), "/")


def test_without_a_model_a_notice_says_how_to_connect_one(house: House, signed_in: SignIn) -> None:
    assert "No language model is connected" in page(signed_in(house.reader), "/")
    assert "LLM_BASE_URL" not in page(signed_in(house.reader), "/")
    assert "LLM_BASE_URL" in page(signed_in(make_user(is_superuser=True)), "/")


def test_the_first_question_makes_a_conversation(house: House, signed_in: SignIn) -> None:
    body = {"content": "When does it open?", "collections": [house.collection.pk]}
    response = signed_in(house.reader).post("/", body, headers=HTMX)
    made = Conversation.objects.get(user=house.reader)
    place = json.loads(response["HX-Location"])
    assert place["path"] == f"/c/{made.pk}/"
    assert list(made.collections.all()) == [house.collection]
    assert [m.role for m in made.messages.all()] == ["question", "answer"]
    assert signed_in(house.reader).post("/", body)["Location"].startswith("/c/")


@pytest.mark.parametrize(
    ("content", "words"),
    [("", "Write a question first."), ("x" * 4001, "at most 4,000"), ("a\0b", "ull characters")],
)
def test_a_refused_question_says_why_and_leaves_nothing(
    house: House, signed_in: SignIn, content: str, words: str
) -> None:
    response = signed_in(house.reader).post("/", {"content": content}, headers=HTMX)
    assert response.status_code == 422
    assert words in response.content.decode()
    assert response["HX-Retarget"] == "#composer-error"
    assert not Conversation.objects.exists()


def test_hidden_collections_cannot_be_asked(house: House, signed_in: SignIn) -> None:
    hidden = make_collection()
    body = {"content": "When?", "collections": [hidden.pk]}
    response = signed_in(house.reader).post("/", body, headers=HTMX)
    assert response.status_code == 422
    assert hidden.name not in response.content.decode()
    assert not Conversation.objects.exists()


def test_a_follow_up_returns_both_turns(house: House, signed_in: SignIn) -> None:
    conversation = thread(house.reader)
    response = signed_in(house.reader).post(
        f"/c/{conversation.pk}/", {"content": "When?", "key": "k1"}, headers=HTMX
    )
    text = response.content.decode()
    answer = conversation.messages.get(role="answer")
    assert f'data-events-url="/api/v1/answers/{answer.pk}/events"' in text
    assert "When?" in text
    again = signed_in(house.reader).post(
        f"/c/{conversation.pk}/", {"content": "When?", "key": "k1"}, headers=HTMX
    )
    assert again.status_code == 200
    assert conversation.messages.count() == 2
    busy = signed_in(house.reader).post(
        f"/c/{conversation.pk}/", {"content": "And?", "key": "k2"}, headers=HTMX
    )
    assert busy.status_code == 422
    assert "still being answered" in busy.content.decode()


def test_choosing_collections_counts_from_this_question_on(house: House, signed_in: SignIn) -> None:
    conversation = thread(house.reader)
    signed_in(house.reader).post(
        f"/c/{conversation.pk}/", {"content": "When?", "collections": [house.collection.pk]}
    )
    assert list(conversation.collections.all()) == [house.collection]
    text = page(signed_in(house.reader), f"/c/{conversation.pk}/")
    assert "1 collection<" in text


def test_an_answer_shows_its_sources_and_quotes(house: House, signed_in: SignIn) -> None:
    answer = answered(house)
    text = page(signed_in(house.reader), f"/c/{answer.conversation_id}/")
    version = house.document.current_version
    assert version is not None
    start = TEXT.index(QUOTE)
    place = (
        f"/documents/{house.document.pk}/?v={version.pk}&start={start}"
        f"&end={start + len(QUOTE)}#passage"
    )
    links = {a["href"] for a in Elements(text).with_tag("a") if "#passage" in a["href"]}
    assert links == {place}
    assert "Quote verified" in text
    assert QUOTE in text
    opened = page(signed_in(house.reader), place)
    assert f'<mark id="passage" tabindex="-1">{QUOTE}</mark>' in opened


@pytest.mark.parametrize("loss", ["grant", "document"])
def test_a_source_that_is_lost_takes_the_answer_with_it(
    house: House, signed_in: SignIn, loss: str
) -> None:
    answer = answered(house)
    client = signed_in(house.reader)
    if loss == "grant":
        Grant.objects.filter(user=house.reader).delete()
    else:
        delete_document(house.document, actor=house.manager)
    for path in (f"/c/{answer.conversation_id}/", f"/answers/{answer.pk}/"):
        text = page(client, path)
        assert "no longer shown" in text
        assert "opens at noon" not in text
        assert "Canteen" not in text
    assert client.get(f"/documents/{house.document.pk}/").status_code == 404


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"status": "stopped"}, "Stopped."),
        ({"status": "interrupted", "error_detail": "The server was restarted."}, "not complete"),
        ({"status": "failed", "text": "", "error_detail": "No model."}, "No answer this time."),
        ({"abstained": True}, "Not found in your documents"),
        ({"finish_reason": "length"}, "length limit"),
    ],
)
def test_how_an_answer_ended_is_said(
    house: House, signed_in: SignIn, values: dict[str, Any], words: str
) -> None:
    answer = answered(house, **values)
    text = page(signed_in(house.reader), f"/answers/{answer.pk}/")
    assert words in text
    assert ("> Ask again<" in text) == ("status" in values)
    if values.get("text") != "":
        assert "opens at noon" in text


def test_asking_again_keeps_both_answers(house: House, signed_in: SignIn) -> None:
    answer = answered(house)
    client = signed_in(house.reader)
    path = f"/answers/{answer.pk}/again/"
    refused = client.post(path, {"effort": "endless"}, headers=HTMX)
    assert (refused.status_code, refused["HX-Retarget"]) == (422, "#composer-error")
    shown = client.post(path, {"effort": "high"}, headers=HTMX).content.decode()
    again = Message.objects.get(status=AnswerStatus.PENDING)
    assert (again.parent, again.effort) == (answer.parent, "high")
    assert f'id="answer-{again.pk}"' in shown
    assert f'id="answer-{answer.pk}"' not in shown
    Message.objects.filter(pk=again.pk).update(status=AnswerStatus.DONE)
    assert "2 / 2" in page(client, f"/answers/{again.pk}/")
    back = client.post(f"/messages/{answer.pk}/choose/", headers=HTMX).content.decode()
    assert "1 / 2" in back
    assert QUOTE in back


def test_an_edited_question_shows_its_branch_and_the_way_back(
    house: House, signed_in: SignIn
) -> None:
    answer = answered(house)
    client, first = signed_in(house.reader), answer.parent
    assert first is not None
    path = f"/messages/{first.pk}/edit/"
    assert client.post(path, {"content": " "}, headers=HTMX).status_code == 422
    shown = client.post(path, {"content": "And on Sunday?"}, headers=HTMX).content.decode()
    assert "2 / 2" in shown
    assert "And on Sunday?" in shown
    assert "opens at noon" not in shown
    edited = Message.objects.get(text="And on Sunday?")
    assert edited.parent is None
    Message.objects.filter(parent=edited).update(status=AnswerStatus.DONE)
    chosen = client.post(f"/messages/{first.pk}/choose/")
    place = f"/c/{answer.conversation_id}/"
    assert chosen["Location"] == f"{place}#question-{first.pk}"
    shown = page(client, place)
    assert "1 / 2" in shown
    assert "opens at noon" in shown
    # A page that still shows the other branch goes on there.
    other = Message.objects.get(parent=edited)
    client.post(place, {"content": "And Monday?", "after": other.pk}, headers=HTMX)
    assert Message.objects.get(text="And Monday?").parent == other
    assert client.post(place, {"content": "x", "after": uuid4()}, headers=HTMX).status_code == 422


def test_follow_ups_are_shown_and_withheld_with_their_answer(
    house: House, signed_in: SignIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer = answered(house, finished_at=timezone.now())
    client, path = signed_in(house.reader), f"/answers/{answer.pk}/follow-ups/"
    assert b"hx-get" not in client.get(path).content  # without a model none will come
    monkeypatch.setattr("assistant.engines.llm", FakeLLM)
    waiting = client.get(path)
    assert b"hx-get" in waiting.content
    assert "HX-Trigger" not in waiting
    Message.objects.filter(pk=answer.pk).update(follow_ups=[f"{HOSTILE} on Sunday?"])
    shown = client.get(path)
    assert b"on Sunday?" in shown.content
    assert HOSTILE.encode() not in shown.content
    assert shown["HX-Trigger"] == "history-changed"
    Grant.objects.filter(user=house.reader).delete()
    for place in (path, f"/answers/{answer.pk}/", f"/c/{answer.conversation_id}/"):
        assert "on Sunday?" not in page(client, place)


def test_feedback_asks_why_and_keeps_the_last(house: House, signed_in: SignIn) -> None:
    answer = answered(house)
    client = signed_in(house.reader)
    path = f"/answers/{answer.pk}/feedback/"
    asked = client.post(path, {"rating": "down"}, headers=HTMX).content.decode()
    assert "What was wrong?" in asked
    assert Feedback.objects.get().rating == "down"
    body = {"rating": "down", "detailed": "1", "reasons": ["Incomplete"], "comment": HOSTILE}
    assert "Thank you." in client.post(path, body, headers=HTMX).content.decode()
    given = Feedback.objects.get()
    assert (given.reasons, given.comment) == (["Incomplete"], HOSTILE)
    client.post(path, {"rating": "sideways"}, headers=HTMX)
    assert Feedback.objects.get().rating == "down"


def test_stop_is_asked_once_and_answers_nothing(
    house: House, signed_in: SignIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[UUID] = []
    monkeypatch.setattr("assistant.chat.stream.request_stop", asked.append)
    _, answer = actions.ask(thread(house.reader).pk, content="When?", user=house.reader)
    client = signed_in(house.reader)
    path = f"/answers/{answer.pk}/stop/"
    assert client.post(path, headers={"Accept": "application/json"}).status_code == 204
    assert client.post(path)["Location"] == f"/c/{answer.conversation_id}/"
    assert asked == [answer.pk, answer.pk]


def test_history_lists_renames_and_deletes(house: House, signed_in: SignIn) -> None:
    conversation = thread(house.reader, "Opening <hours>")
    thread(house.stranger, "Secret plans")
    client = signed_in(house.reader)
    text = page(client, f"/history/?current={conversation.pk}")
    assert "Opening &lt;hours&gt;" in text
    assert 'aria-current="page"' in text
    assert "Secret plans" not in text
    path = f"/c/{conversation.pk}/"
    assert "Opening" in client.get(f"{path}rename/", headers=HTMX).content.decode()
    client.post(f"{path}rename/", {"title": "Canteen"}, headers=HTMX)
    assert client.post(f"{path}rename/", {"title": " "}, headers=HTMX).status_code == 200
    conversation.refresh_from_db()
    assert conversation.title == "Canteen"
    open_page = HTMX | {"HX-Current-URL": f"http://testserver{path}"}
    assert client.post(f"{path}delete/", headers=open_page)["HX-Redirect"] == "/"
    assert not Conversation.objects.filter(pk=conversation.pk).exists()


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("get", "/c/{thread}/"),
        ("post", "/c/{thread}/"),
        ("get", "/c/{thread}/rename/"),
        ("post", "/c/{thread}/delete/"),
        ("get", "/answers/{answer}/"),
        ("post", "/answers/{answer}/stop/"),
        ("post", "/answers/{answer}/again/"),
        ("get", "/answers/{answer}/follow-ups/"),
        ("post", "/messages/{answer}/choose/"),
        ("post", "/messages/{question}/edit/"),
        ("post", "/answers/{answer}/feedback/"),
    ],
)
def test_conversations_belong_to_one_person(
    house: House, signed_in: SignIn, method: str, path: str
) -> None:
    answer = answered(house)
    body = {"content": "x", "rating": "up", "title": "x"}
    mine = path.format(thread=answer.conversation_id, answer=answer.pk, question=answer.parent_id)
    absent = path.format(thread=uuid4(), answer=uuid4(), question=uuid4())
    for user in (house.stranger, house.manager, make_user(is_superuser=True)):
        client = signed_in(user)
        hidden = getattr(client, method)(mine, body)
        assert hidden.status_code == 404
        assert hidden.content == getattr(client, method)(absent, body).content
    assert answer.conversation.messages.count() == 2
    assert not Feedback.objects.exists()


def test_hostile_text_is_shown_and_does_nothing(house: House, signed_in: SignIn) -> None:
    """In the answer, quote, question, titles and names: wherever people or models write."""
    house.document.title = house.collection.name = house.reader.name = HOSTILE
    for row in (house.document, house.collection, house.reader):
        row.save()
    answer = answered(house, text=f"{HOSTILE} [1]", error_detail=HOSTILE, status="interrupted")
    Citation.objects.update(quote=HOSTILE)
    Message.objects.filter(role="question").update(text=HOSTILE)
    Conversation.objects.update(title=HOSTILE)
    client = signed_in(house.reader)
    for path in (
        f"/c/{answer.conversation_id}/",
        "/",
        "/library/",
        f"/library/{house.collection.pk}/",
        f"/documents/{house.document.pk}/",
        "/account/",
    ):
        text = page(client, path)
        assert HOSTILE not in text
        assert "&lt;img src=x onerror" in text
        assert not Elements(text).with_tag("img")
        assert not [danger for danger in dangers_in(text) if "[on" in danger]
