"""Stored answers under the rights of this moment, and what reading them costs."""

from __future__ import annotations

from typing import Any

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from assistant.chat.models import AnswerStatus, Conversation, Message
from assistant.chat.presenting import UNAVAILABLE, present, presented
from assistant.documents.locators import Locator
from assistant.documents.models import Document
from assistant.permissions.models import Grant
from assistant.users.models import User
from assistant.web.thread import turns_of
from tests.factories import make_citation, make_collection, make_document, make_turn, make_user

pytestmark = pytest.mark.django_db
TEXT = "Überstunden werden bezahlt. The canteen opens at noon. Leave is thirty days."


@pytest.fixture
def reader() -> User:
    return make_user()


@pytest.fixture
def document(reader: User) -> Document:
    return make_document(make_collection(readers=[reader]), text=TEXT)


def source(number: int, document: Document, words: str) -> dict[str, Any]:
    start = TEXT.index(words)
    return {
        "number": number,
        "document": str(document.pk),
        "version": str(document.current_version_id),
        "locator": Locator(start, start + len(words), ()).to_json(),
        "score": 0.5,
    }


def answered(conversation: Conversation, document: Document, *, cites: bool = True) -> Message:
    sources = [
        source(1, document, "The canteen opens at noon."),
        source(2, document, "Überstunden werden bezahlt."),
    ]
    answer = make_turn(conversation, status=AnswerStatus.DONE, text="At noon [1].", sources=sources)
    if cites:
        quote, locator = "The canteen opens at noon.", sources[0]["locator"]
        make_citation(answer, document, quote=quote, locator=locator)
    return answer


def test_sources_have_the_words_between_their_offsets(reader: User, document: Document) -> None:
    answer = answered(Conversation.objects.create(user=reader), document)
    assert [each.text for each in present(answer, user=reader).read_sources] == [
        "The canteen opens at noon.",
        "Überstunden werden bezahlt.",
    ]


def test_no_more_of_a_version_is_read_than_its_passages(reader: User, document: Document) -> None:
    """Boxes and elements of a book are megabytes."""
    answer = answered(Conversation.objects.create(user=reader), document)
    with CaptureQueriesContext(connection) as queries:
        assert present(answer, user=reader).read_sources
    sent = " ".join(query["sql"] for query in queries)
    assert "boxes" not in sent
    assert "elements" not in sent
    assert "boxes" not in sent
    (text,) = [query["sql"] for query in queries if '"text"' in query["sql"]]
    assert "SUBSTRING" in text


def test_all_turns_of_a_page_are_read_together(reader: User, document: Document) -> None:
    conversation = Conversation.objects.create(user=reader)
    answered(conversation, document)
    with CaptureQueriesContext(connection) as one:
        assert len(turns_of(conversation, user=reader)) == 2
    for _ in range(5):
        answered(conversation, document)
    with CaptureQueriesContext(connection) as six:
        turns = turns_of(conversation, user=reader)
    assert [turn["answer"].cited[0].title for turn in turns[1::2]] == ["Canteen"] * 6
    assert len(six) == len(one)


def test_each_answer_is_judged_by_its_own_evidence(reader: User, document: Document) -> None:
    kept = make_document(make_collection(readers=[reader]), text=TEXT, title="Kept")
    conversation = Conversation.objects.create(user=reader)
    answers = [
        answered(conversation, kept),
        answered(conversation, document),
        answered(conversation, document, cites=False),
    ]
    Grant.objects.filter(collection=document.collection).delete()
    shown = presented(answers, user=reader)
    assert [each.text for each in shown] == ["At noon [1].", "", ""]
    assert {each.title for each in shown[1].sources} == {UNAVAILABLE}
    assert [each.text for each in shown[1].read_sources] == [None, None]
    assert [each.quote for each in shown[1].citations] == [None]
