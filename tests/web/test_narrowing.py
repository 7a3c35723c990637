"""The chat's "Narrow" control: kept in the address and the conversation, shown, and taken away."""

from __future__ import annotations

import pytest
from django.test import Client

from assistant.chat.models import Conversation, Message
from assistant.web.narrowing import NarrowForm, shown
from tests.factories import make_collection, make_document
from tests.web.conftest import House, SignIn

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("fake_llm")]
MONTH = {"since": "2026-01-01", "until": "2026-01-31"}


def html(client: Client, path: str) -> str:
    return client.get(path).content.decode()


def ask(client: Client, path: str, **fields: object) -> Conversation:
    assert client.post(path, {"content": "When is lunch?", **fields}).status_code == 302
    return Conversation.objects.get()


def test_days_in_the_form_are_whole_and_come_back_the_same() -> None:
    form = NarrowForm({"types": ["pdf"], **MONTH})
    assert form.is_valid()
    filters = form.filters()
    assert filters == {
        "types": ["pdf"],
        "dated_after": "2026-01-01",
        "dated_before": "2026-02-01",
    }
    again = shown(filters)
    assert (again["types"], again["since"], again["until"]) == (["pdf"], *MONTH.values())
    words = [chip.words for chip in again["chips"]]
    assert words == ["PDF", "From 1 January 2026", "Up to 31 January 2026"]


def test_only_kinds_that_one_may_read_are_offered(house: House, signed_in: SignIn) -> None:
    make_document(make_collection(), media_type="application/pdf")
    client = signed_in(house.reader)
    assert 'value="text"' in html(client, "/")
    assert 'value="pdf"' not in html(client, "/")


def test_the_address_of_a_new_chat_narrows_it(house: House, signed_in: SignIn) -> None:
    client = signed_in(house.reader)
    page = html(client, "/?types=text&since=2026-01-01")
    assert "From 1 January 2026" in page
    assert 'value="text" checked' in page
    assert "From" in html(client, "/?types=nonsense&since=soon")


def test_a_conversation_keeps_its_filters_and_an_answer_says_them(
    house: House, signed_in: SignIn
) -> None:
    client = signed_in(house.reader)
    thread = ask(client, "/", types=["text"], **MONTH)
    assert thread.filters["types"] == ["text"]
    answer = Message.objects.get(role=Message.Role.ANSWER)
    assert answer.narrowing["filters"] == thread.filters
    Message.objects.filter(pk=answer.pk).update(status="done", text="At noon.")
    page = html(client, f"/c/{thread.pk}/")
    assert "Looked only in:" in page
    assert page.count(">From 1 January 2026<") == 2
    Conversation.objects.update(filters={**thread.filters, "folder": "HR"})
    thread = ask(client, f"/c/{thread.pk}/")
    assert thread.filters == {"folder": "HR"}
    Message.objects.filter(role=Message.Role.ANSWER).update(status="done")
    assert ask(client, f"/c/{thread.pk}/", drop_others="1").filters == {}


def test_what_was_understood_can_be_taken_away(house: House, signed_in: SignIn) -> None:
    client = signed_in(house.reader)
    thread = ask(client, "/", types=["text"])
    hint = {"field": "time", "words": "2025 only", "phrase": "policy from 2025"}
    answer = Message.objects.get(role=Message.Role.ANSWER)
    understood = {"hints": [hint], "is_used": True}
    Message.objects.filter(pk=answer.pk).update(
        status="done", narrowing={"filters": {"types": ["text"]}, "understood": understood}
    )
    assert "Ask again without: 2025 only" in html(client, f"/c/{thread.pk}/")
    client.post(f"/answers/{answer.pk}/again/", {"ignore": ["time", "nonsense"]})
    again = Message.objects.filter(role=Message.Role.ANSWER).latest("ordinal")
    assert again.narrowing == {"filters": {"types": ["text"]}, "ignored": ["time"]}
    Message.objects.filter(pk=again.pk).update(status="done")
    client.post(f"/answers/{again.pk}/again/", {"widen": "1"})
    widened = Message.objects.filter(role=Message.Role.ANSWER).latest("ordinal")
    assert widened.narrowing == {"filters": {}, "ignored": ["time"]}


def test_days_the_wrong_way_round_are_refused(house: House, signed_in: SignIn) -> None:
    client = signed_in(house.reader)
    sent = {"content": "When?", "since": "2026-02-01", "until": "2026-01-01"}
    refused = client.post("/", sent)
    assert (refused.status_code, b"before the first" in refused.content) == (422, True)
    assert not Conversation.objects.exists()
