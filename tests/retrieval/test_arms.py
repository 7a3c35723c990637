"""Both arms side by side bring what they bring one after the other, of the same moment."""

from __future__ import annotations

from collections.abc import Callable
from threading import Event, current_thread
from typing import Any

import psycopg
import pytest
from django.db import DatabaseError, connection, transaction

from assistant import database
from assistant.database import beside, snapshot
from assistant.retrieval import SearchResult, arms, asearch, search, together, vector
from assistant.users.models import User
from inference.fakes import FakeEmbedder
from tests.factories import make_collection, make_document, make_user

pytestmark = pytest.mark.django_db(transaction=True)
QUESTION = "When does the canteen open, and how many days of leave are there?"


@pytest.fixture
def reader(fake_embedder: FakeEmbedder) -> User:
    user: User = make_user()
    collection = make_collection(readers=[user])
    for number in range(6):
        text = f"Canteen {number} opens at noon.\n\nThirty days of leave, rule {number}."
        make_document(collection, title=f"Rules {number}", text=text)
    make_document(make_collection(), title="Hidden", text="The canteen opens at noon.")
    return user


def ask(reader: User, **options: Any) -> SearchResult:
    return search(QUESTION, user=reader, explain=True, **options)


def found_by(result: SearchResult) -> list[tuple[str, str, tuple[Any, ...]]]:
    assert result.trace is not None
    return [(arm.name, arm.query, arm.ranked) for arm in result.trace.arms]


def was_side_by_side(result: SearchResult) -> bool:
    assert result.trace is not None
    return result.trace.side_by_side


def test_the_same_is_found(reader: User, room: Callable[[int], None]) -> None:
    both = ask(reader)
    assert was_side_by_side(both)
    room(0)
    after_each_other = ask(reader)
    assert not was_side_by_side(after_each_other)
    assert found_by(both) == found_by(after_each_other)
    assert len({query for _, query, _ in found_by(both)}) > 1
    assert [p.chunk_ids for p in both.passages] == [p.chunk_ids for p in after_each_other.passages]


def test_where_few_are_visible_or_one_arm_is_asked_they_are_not(
    reader: User, room: Callable[[int], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert not was_side_by_side(ask(reader, mode="keyword"))
    assert not was_side_by_side(ask(reader, mode="vector"))
    with transaction.atomic():  # whose own writes nobody else sees
        assert not was_side_by_side(ask(reader))
    monkeypatch.setattr(arms, "BESIDE_FROM", 1_000)
    assert not was_side_by_side(ask(reader))


async def test_a_search_that_is_not_alone_takes_one_connection(
    reader: User, room: Callable[[int], None]
) -> None:
    async with together.line().turn():
        assert not was_side_by_side(await asearch(QUESTION, user=reader, explain=True))
    assert was_side_by_side(await asearch(QUESTION, user=reader, explain=True))


def test_both_see_the_moment_the_search_began(
    reader: User, room: Callable[[int], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    begin = database._at_the_moment

    def late(*args: Any) -> Any:
        with psycopg.connect(**connection.get_connection_params()) as outside:
            outside.execute("UPDATE documents_document SET deleted_at = now()")
        return begin(*args)

    monkeypatch.setattr(database, "_at_the_moment", late)
    result = ask(reader, limit=20)
    assert was_side_by_side(result)
    assert {len(ranked) for arm, _, ranked in found_by(result) if arm == "vector"} == {12}
    assert len(result.passages) == 12
    assert ask(reader).passages == []


def test_only_so_many_are_beside_at_once(room: Callable[[int], None]) -> None:
    room(8)
    go = Event()
    with snapshot():
        running = [beside(go.wait) for _ in range(3)]
        assert [each is None for each in running] == [False, False, True]
        go.set()
        assert all(each.result() for each in running if each)
        again = beside(lambda: current_thread().name)
        assert again is not None and again.result().startswith("beside")


def test_what_fails_beside_fails_the_search(
    reader: User, room: Callable[[int], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any, **__: Any) -> vector.Nearest:
        raise DatabaseError("cancelled")

    nearest = vector.nearest
    monkeypatch.setattr(vector, "nearest", fail)
    with pytest.raises(DatabaseError, match="cancelled"):
        ask(reader)
    monkeypatch.setattr(vector, "nearest", nearest)
    assert was_side_by_side(ask(reader))
