"""Filters of answers and conversations: the same as a search's, kept and told back."""

from __future__ import annotations

from typing import Any

import pytest

from assistant.chat.models import Message
from tests.api.calls import JSON, problem
from tests.factories import make_collection, make_document

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("fake_llm")]
ANSWERS = "/api/v1/answers/"
CONVERSATIONS = "/api/v1/conversations/"
PDF = {"types": ["pdf"]}


@pytest.fixture
def ada(as_caller: Any) -> Any:
    from tests.factories import make_user

    return as_caller(make_user())


def test_an_answer_reads_only_what_fits(ada: Any, fake_llm: Any) -> None:
    mine = make_collection(readers=[ada.user])
    make_document(mine, title="Paper", media_type="application/pdf")
    make_document(mine, title="Page", media_type="text/html")
    client = ada.with_token("read")
    body = {"question": "When does the canteen open?", "filters": PDF}
    answer = client.post(ANSWERS, body, **JSON)
    assert answer.status_code == 200
    assert {source.title for source in fake_llm.requests[-1].sources} == {"Paper"}
    body = {"question": "PDFs about the canteen"}
    answer = client.post(ANSWERS, body, **JSON)
    assert [hint["words"] for hint in answer.json()["understood"]["hints"]] == ["PDF only"]
    assert {source.title for source in fake_llm.requests[-1].sources} == {"Paper"}


def test_a_conversation_keeps_filters_and_a_question_can_have_its_own(ada: Any) -> None:
    client = ada.with_token("read", "write")
    made = client.post(CONVERSATIONS, {"filters": PDF}, **JSON).json()
    assert made["filters"] == PDF
    url = f"{CONVERSATIONS}{made['id']}/"

    def asked(**more: Any) -> Any:
        sent = client.post(f"{url}messages/", {"content": "When?", **more}, **JSON).json()
        narrowing = client.get(f"{ANSWERS}{sent['answer']['id']}/").json()["narrowing"]
        Message.objects.update(status="done")
        return narrowing

    assert asked() == {"filters": PDF, "ignored": []}
    own = asked(filters={"folder": "HR"}, understand=False)
    assert own["filters"] == {"folder": "HR"}
    assert own["ignored"] == ["time", "type", "collection", "owner"]
    assert client.patch(url, {"filters": None}, **JSON).json()["filters"] == {}
    assert asked()["filters"] == {}


@pytest.mark.parametrize("path", [ANSWERS, CONVERSATIONS])
def test_a_bad_filter_is_refused_before_anything_is_done(ada: Any, path: str) -> None:
    body = {"question": "When?", "filters": {"types": "pdf"}}
    errors = problem(ada.with_token("read").post(path, body, **JSON), 400)["errors"]
    assert list(errors["filters"]) == ["types"]
