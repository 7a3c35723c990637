from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from assistant.documents.models import Document
from assistant.permissions.models import Grant
from assistant.retrieval import diversity, search, searching
from assistant.retrieval.passages import Passage
from assistant.retrieval.searching import AT_FIRST
from assistant.users.models import User
from inference.fakes import FakeEmbedder
from tests.factories import make_collection, make_document, make_user

pytestmark = pytest.mark.django_db

RULE = (
    "Travel by train is booked in second class at least three days before the journey begins, and"
    " the receipt is handed in within thirty days together with the form of the finance team."
)

# So long that one other word leaves it the same text.
LONG_RULE = RULE + (
    " Whoever needs a seat by the window asks the office that books it, which answers on the same"
    " day. A hotel is paid by the company when the meeting ends after eight in the evening, or when"
    " the way home takes more than three hours, and breakfast is part of it. Taxis are for those"
    " who carry heavy things or travel at night."
)


@pytest.fixture
def reader(fake_embedder: FakeEmbedder) -> User:
    user: User = make_user()
    return user


def test_a_near_twin_comes_last_and_is_named(reader: User) -> None:
    collection = make_collection(readers=[reader])
    make_document(collection, title="Travel", text=RULE)
    make_document(collection, title="Copy", text=RULE + " Thank you.")
    make_document(collection, title="Trains", text="Which class may I book when I travel by train?")
    found = search("travel by train second class", user=reader, explain=True)
    assert len(found.passages) == 3  # what can be seen is never held back
    assert found.passages[-1].title in {"Travel", "Copy"}
    assert found.trace is not None
    (decision,) = [d for d in found.trace.decisions if d.happening == "collapsed"]
    assert decision.into == found.passages[0].chunk_ids[0]
    scores = [p.score for p in found.passages]
    assert scores == sorted(scores, reverse=True)
    prompt = search("travel by train second class", user=reader, budget=1000).passages
    assert len({p.title for p in prompt} & {"Travel", "Copy"}) == 1


def test_texts_that_differ_by_a_number_are_both_shown(reader: User) -> None:
    collection = make_collection(readers=[reader])
    make_document(collection, title="Old", text=LONG_RULE.replace("thirty", "30"))
    make_document(collection, title="New", text=LONG_RULE.replace("thirty", "14"))
    prompt = search("travel by train second class", user=reader, budget=1000).passages
    assert {p.title for p in prompt} == {"Old", "New"}


def test_one_long_document_leaves_places_for_others_but_fills_them_alone(reader: User) -> None:
    collection = make_collection(readers=[reader])
    long = "\n\n".join(f"Leave rule of team {'x' * i}." for i in range(1, 25))
    make_document(collection, title="Long", text=long)
    assert search("leave rule team", user=reader, budget=2000, limit=12).passages
    for i in range(3):
        make_document(collection, title=f"Short {i}", text=f"A leave rule of a team {i * 7}.")
    titles = {p.title for p in search("leave rule team", user=reader, budget=2000).passages}
    assert titles == {"Long", "Short 0", "Short 1", "Short 2"}


def test_room_that_is_left_completes_the_section(reader: User) -> None:
    collection = make_collection(readers=[reader])
    filler = " ".join(f"word{i}" for i in range(150))
    text = f"# Leave\n\nZebra leave is special. {filler}\n\nIt ends in May. {filler}"
    make_document(collection, title="Leave", text=text)
    assert Document.objects.count() == 1
    tight = search("zebra", user=reader, mode="keyword", budget=600, explain=True)
    wide = search("zebra", user=reader, mode="keyword", budget=2000, explain=True)
    assert "It ends in May" not in tight.passages[0].text
    assert "It ends in May" in wide.passages[0].text
    assert wide.trace is not None
    assert any(d.happening == "joined" for d in wide.trace.decisions)


def test_the_twin_among_texts_that_differ_by_a_number_is_found(reader: User) -> None:
    collection = make_collection(readers=[reader])
    for days in (10, 14, 21, 28, 45):
        text = LONG_RULE.replace("thirty", str(days))
        make_document(collection, title=f"{days} days", text=text)
    make_document(collection, title="A copy of it", text=LONG_RULE.replace("thirty", "45"))
    found = search("travel by train", user=reader, mode="keyword", budget=2000)
    titles = [passage.title for passage in found.passages]
    assert sorted(titles) == ["10 days", "14 days", "21 days", "28 days", "45 days"]


def test_behind_many_twins_stands_what_is_different(reader: User) -> None:
    collection = make_collection(readers=[reader])
    for number in range(AT_FIRST + 5):
        make_document(collection, title=f"Copy {number}", text=RULE)
    make_document(collection, title="Trains", text="Buses go where there is no train.")
    make_document(collection, title="Planes", text="To travel far there are planes.")
    found = search("travel by train", user=reader, mode="keyword", limit=3)
    titles = [passage.title for passage in found.passages]
    assert titles[0].startswith("Copy")
    assert set(titles[1:]) == {"Trains", "Planes"}


def test_copies_are_loaded_together_with_what_stands_behind_them(
    reader: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    collection = make_collection(readers=[reader])
    for number in range(AT_FIRST + 5):
        make_document(collection, title=f"Copy {number}", text=RULE)
    for number in range(AT_FIRST + 5):
        text = f"{'Far away ' * number}they travel by train."
        make_document(collection, title=f"Other {number}", text=text)
    collapse, seen = diversity.collapse, []

    def watched(found: Sequence[Passage], *, wanted: int) -> Any:
        seen.append(len(found))
        return collapse(found, wanted=wanted)

    monkeypatch.setattr(diversity, "collapse", watched)
    assert len(search("booked train", user=reader, mode="keyword", limit=3).passages) == 3
    assert seen == [AT_FIRST + 5 + AT_FIRST + 2]  # all copies, and so many others


def test_what_was_hidden_before_the_rest_was_loaded_is_left_out(
    reader: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    collection, other = make_collection(readers=[reader]), make_collection(readers=[reader])
    for number in range(AT_FIRST + 5):
        make_document(collection, title=f"Copy {number}", text=RULE)
    make_document(other, title="Trains", text="Buses go where there is no train.")
    collapse, seen = diversity.collapse, []

    def withdraw(found: Sequence[Passage], *, wanted: int) -> Any:
        seen.append(len(found))
        Grant.objects.filter(collection=other).delete()
        return collapse(found, wanted=wanted)

    monkeypatch.setattr(diversity, "collapse", withdraw)
    monkeypatch.setattr(searching, "ALIKE", -1.0)  # as where twins have different scores
    found = search("travel by train", user=reader, mode="keyword", limit=3)
    titles = {passage.title for passage in found.passages}
    assert seen == [3 + AT_FIRST, AT_FIRST + 5]  # "Trains" is the one that is not there any more
    assert "Trains" not in titles
    assert len(found.passages) == 3
