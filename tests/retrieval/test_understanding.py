"""Words become filters only where they can mean nothing else, and never cost an answer."""

from __future__ import annotations

from datetime import date
from typing import Any
from uuid import uuid4

import pytest
from asgiref.sync import async_to_sync

from assistant.documents.models import Document
from assistant.retrieval import understanding
from assistant.retrieval.understanding import (
    Understood,
    asearch_understanding,
    search_understanding,
    understand,
)
from assistant.users.models import User
from inference.fakes import FakeEmbedder
from tests.factories import make_collection, make_document, make_user

TODAY = date(2026, 11, 22)
HR, TRAVEL = uuid4(), uuid4()
NAMES = {"HR": [HR], "HR policies": [TRAVEL], "Twins": [uuid4(), uuid4()]}
Y2025 = {"dated_after": "2025-01-01", "dated_before": "2026-01-01"}


@pytest.mark.parametrize(
    ("question", "words", "filters"),
    [
        ("What does last year's travel policy say about trains?", "2025 only", Y2025),
        ("Show me this year’s sales report", "2026 only", None),
        ("Is there a travel policy from 2025?", "2025 only", Y2025),
        ("minutes of March 2025", "March 2025 only", None),
        (
            "documents uploaded since March 2025 about parking",
            "Uploaded since March 2025",
            {"created_after": "2025-03-01"},
        ),
        ("reports since March 2025", "Since March 2025 only", {"dated_after": "2025-03-01"}),
        ("files added last week", "Uploaded 9 November 2026 to 15 November 2026", None),
        ("reports published before 2024", "Before 2024 only", {"dated_before": "2024-01-01"}),
        ("reports from the last three weeks", "Since 1 November 2026 only", None),
        ("contracts issued in Q2 2025", "1 April 2025 to 30 June 2025 only", None),
        ("Was sagt die letztjährige Reiserichtlinie zu Zügen?", "2025 only", Y2025),
        ("Die Reiserichtlinie aus dem Vorjahr", "2025 only", Y2025),
        ("Protokolle aus 2025", "2025 only", Y2025),
        (
            "Dokumente, die seit März 2025 hochgeladen wurden",
            "Uploaded since March 2025",
            {"created_after": "2025-03-01"},
        ),
        ("PDFs about parental leave", "PDF only", {"types": ["pdf"]}),
        ("Please find me all Excel files on budgets", "Tables only", {"types": ["table"]}),
        ("Zeige mir alle PDFs über Elternzeit", "PDF only", {"types": ["pdf"]}),
        ("files I uploaded about parking", "Uploaded by you", {"uploaded_by": ["me"]}),
    ],
)
def test_what_is_understood(question: str, words: str, filters: dict[str, Any] | None) -> None:
    (hint,) = understand(question, today=TODAY)
    assert hint.words == words
    assert hint.phrase in " ".join(question.lower().split())
    if filters is not None:
        assert hint.filters == filters


@pytest.mark.parametrize(
    "question",
    [
        "What was our revenue in 2025?",
        "Who was hired since March 2025?",
        "What changed last year?",
        "How many days of leave did we have last year?",
        "What is the policy for people under 2025 rules?",
        "How do I export a report to PDF?",
        "Who sends emails about outages?",
        "Do we accept PDFs only?",
        "Which policies are not from 2025?",
        "reports from 2024 and reports from 2025",
        'Where is "last year\'s travel policy" mentioned?',
        "reports from 2025-13-40",
        "Wie hoch war der Umsatz 2025?",
        "Was änderte sich im letzten Jahr?",
        "How large is our art collection?",
        "in the twins collection",
        "last year's travel policy " * 20,
    ],
)
def test_what_is_left_alone(question: str) -> None:
    assert understand(question, today=TODAY, names=NAMES) == ()


@pytest.mark.parametrize(
    ("question", "wanted"),
    [
        ("How much leave, in the HR collection?", HR),
        ("leave in the HR policies collection", TRAVEL),
        ("Urlaub in der Sammlung HR", HR),
        ("Urlaub in der HR-Sammlung", HR),
    ],
)
def test_a_named_collection(question: str, wanted: object) -> None:
    (hint,) = understand(question, today=TODAY, names=NAMES)
    assert hint.collections == (wanted,)


def test_two_fields_at_once() -> None:
    hints = understand(
        "PDFs uploaded since March 2025 in the HR collection", today=TODAY, names=NAMES
    )
    assert [hint.field for hint in hints] == ["collection", "time", "type"]


@pytest.fixture
def reader(fake_embedder: FakeEmbedder) -> User:
    return make_user()


def ask(user: User, question: str, **options: Any) -> tuple[set[str], Understood]:
    """Both doors, which must agree."""
    found, understood = search_understanding(question, user=user, question=question, **options)
    again, the_same = async_to_sync(asearch_understanding)(
        question, user=user, question=question, **options
    )
    assert [p.title for p in again.passages] == [p.title for p in found.passages]
    assert the_same == understood
    return {p.title for p in found.passages}, understood


@pytest.mark.django_db(transaction=True)
def test_a_search_is_narrowed_shown_and_can_be_widened(reader: User) -> None:
    mine = make_collection(readers=[reader])
    for year in (2024, 2025):
        document = make_document(mine, title=f"Travel {year}", text="Travel policy: trains.")
        Document.objects.filter(pk=document.pk).update(metadata={"year": year})
    question = "Is there a travel policy from 2025?"
    titles, understood = ask(reader, question)
    assert (titles, understood.is_used) == ({"Travel 2025"}, True)
    assert ask(reader, question, ignored=["time"]) == ({"Travel 2024", "Travel 2025"}, Understood())
    chosen = {"dated_before": "2025-01-01"}
    assert ask(reader, question, filters=chosen) == ({"Travel 2024"}, Understood())


@pytest.mark.django_db(transaction=True)
def test_where_nothing_fits_all_is_searched(reader: User, monkeypatch: pytest.MonkeyPatch) -> None:
    mine = make_collection(readers=[reader])
    make_document(mine, title="Travel 2024", text="Travel policy: trains.")
    question = "travel policy from 2025"
    titles, understood = ask(reader, question)
    assert (titles, understood.is_used) == ({"Travel 2024"}, False)
    # A document of that year which is nowhere near the question must not hide the one that is.
    make_document(mine, title="Menu 2025", text="Soup.")
    monkeypatch.setattr(understanding, "MANY", 1)
    titles, understood = ask(reader, question)
    assert ("Travel 2024" in titles, understood.is_used) == (True, False)


@pytest.mark.django_db
def test_names_that_may_not_be_read_are_not_understood(reader: User) -> None:
    make_document(make_collection(readers=[reader]), text="Pay day is Friday.")
    make_collection(name="Secret")
    _, understood = search_understanding(
        "pay in the secret collection", user=reader, question="pay in the secret collection"
    )
    assert understood == Understood()
