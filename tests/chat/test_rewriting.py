"""Without a language model: a question with a subject of its own is not searched with old ones."""

from __future__ import annotations

from typing import Any

import pytest

from assistant.chat import answering
from assistant.chat.events import Sources
from assistant.chat.rewriting import standalone_query
from inference.extractive import ExtractiveLLM
from inference.fakes import FakeEmbedder
from inference.types import ChatMessage, EngineError
from tests.factories import make_collection, make_document, make_user

pytestmark = pytest.mark.django_db(transaction=True)
TRAVEL = "Who approves the costs of travel abroad by train or by plane?"


@pytest.fixture
def llm(fake_embedder: FakeEmbedder) -> ExtractiveLLM:
    return ExtractiveLLM(fake_embedder)


@pytest.fixture
def reader() -> Any:
    user = make_user()
    collection = make_collection(readers=[user])
    make_document(collection, title="Travel", text="The costs of travel abroad approves Ada.")
    make_document(collection, title="Meetings", text="Notes belong in one-on-ones.")
    return user


def asked(*questions: str) -> list[ChatMessage]:
    return [
        message
        for question in questions
        for message in (ChatMessage("user", question), ChatMessage("assistant", "Ada [1]."))
    ]


async def query(question: str, *before: str, llm: ExtractiveLLM) -> str:
    return await standalone_query(question, asked(*before), llm=llm)


async def test_a_new_subject_is_searched_alone(reader: Any, llm: ExtractiveLLM) -> None:
    question = "What belongs in weekly one-on-ones?"
    assert await query(question, TRAVEL, llm=llm) == question


async def test_what_names_no_subject_is_searched_with_the_question_before(
    reader: Any, llm: ExtractiveLLM
) -> None:
    assert await query("When?", TRAVEL, llm=llm) == f"{TRAVEL} When?"


@pytest.mark.parametrize(
    "question",
    [
        "And for everybody who travels to customers in other countries by night train?",
        "Wie lange dauert es für Kolleginnen aus Frankreich, bis die Kosten kommen und reicht das?",
        "How many weeks does it take until the money is on the account of a colleague?",
    ],
)
async def test_what_points_back_is_searched_with_the_question_before(
    reader: Any, llm: ExtractiveLLM, question: str
) -> None:
    assert await query(question, TRAVEL, llm=llm) == f"{TRAVEL} {question}"


@pytest.mark.parametrize(
    "question", ["Who leads the IT department?", "Who writes the one-on-ones?"]
)
async def test_a_word_that_only_looks_like_a_pointer_is_none(
    reader: Any, llm: ExtractiveLLM, question: str
) -> None:
    assert await query(question, TRAVEL, llm=llm) == question


async def test_a_chain_of_follow_ups_leads_back_to_its_subject(
    reader: Any, llm: ExtractiveLLM
) -> None:
    chain = ["Is there a canteen for visitors?", TRAVEL, "When?"]
    assert await query("And why?", *chain, llm=llm) == f"{TRAVEL} When? And why?"


async def test_a_lost_model_server_costs_the_context_only(
    reader: Any, llm: ExtractiveLLM, fake_embedder: FakeEmbedder
) -> None:
    fake_embedder.error = EngineError("unavailable", "Gone.", retryable=True)
    assert await query("Since when?", TRAVEL, llm=llm) == "Since when?"


async def test_the_answer_to_a_new_subject_is_not_the_old_one(
    reader: Any, llm: ExtractiveLLM
) -> None:
    async def best(question: str, *before: str) -> str:
        produced = answering.answer_once(question=question, user=reader, history=asked(*before))
        sources = [event async for event in produced if isinstance(event, Sources)]
        return str(sources[0].passages[0]["document"]["title"])

    assert await best("What belongs in weekly one-on-ones?", TRAVEL) == "Meetings"
    assert await best("When?", TRAVEL) == "Travel"
