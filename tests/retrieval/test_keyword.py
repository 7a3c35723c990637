from __future__ import annotations

import random

import pytest
from django.db import connection
from django.utils import timezone

from assistant.documents import actions as documents
from assistant.documents.models import Collection, Document
from assistant.retrieval import keyword, reanalysis, search, statistics
from assistant.retrieval.arms import Mode
from assistant.retrieval.models import Chunk
from assistant.retrieval.scope import scope_of
from assistant.retrieval.vector import Ranked
from assistant.users.models import User
from inference.fakes import FakeEmbedder
from tests.factories import make_collection, make_document, make_user

pytestmark = pytest.mark.django_db


@pytest.fixture
def reader(fake_embedder: FakeEmbedder) -> User:
    user: User = make_user()
    return user


@pytest.fixture
def mine(reader: User) -> Collection:
    collection: Collection = make_collection(readers=[reader])
    return collection


def ranked(query: str, reader: User) -> list[Ranked]:
    return keyword.best_matches(query, scope=scope_of(reader), limit=50).ranked


def titles(query: str, reader: User) -> list[str]:
    names = dict(Chunk.objects.values_list("pk", "document__title"))
    return [names[each.chunk_id] for each in ranked(query, reader)]


def test_a_phrase_in_quotes_must_be_there(mine: Collection, reader: User) -> None:
    make_document(mine, title="A", text="Annual leave is granted.")
    make_document(mine, title="B", text="Leave is annual, annual, annual. They leave.")
    assert set(titles("annual leave", reader)) == {"A", "B"}
    assert titles('who has "annual leave"', reader) == ["A"]
    assert titles("who has „annual leave“", reader) == ["A"]
    assert titles('"leave granted annual"', reader) == []


def test_codes_and_file_names_are_found(mine: Collection, reader: User) -> None:
    make_document(mine, title="A", text="Order part AB-1234/56 from the store, version 3.11.7.")
    make_document(mine, title="B", text="Order part AB-1299/56 from the store, version 3.12.1.")
    make_document(mine, title="C", text="The script foo_bar.py sends mail to Ann@Example.org.")
    assert titles("AB-1234/56", reader)[0] == "A"
    assert titles("part 1234", reader)[0] == "A"
    assert titles("3.11.7", reader)[0] == "A"
    assert titles("foo_bar.py", reader) == ["C"]
    assert titles("ann@example.org", reader)[0] == "C"
    assert titles("it's \\ test: 'quoted' & !", reader) == []


def test_texts_of_several_languages_are_found_together(mine: Collection, reader: User) -> None:
    german = "Die Beschäftigten haben Anspruch auf Urlaub, und die Regelung gilt für alle Häuser."
    make_document(mine, title="de", text=german)
    english = "Employees are entitled to their leave, and the policies cover all of the houses."
    make_document(mine, title="en", text=english)
    make_document(mine, title="zh", text="员工每年有二十天年假，可以结转到下一年。")
    make_document(mine, title="ja", text="社員の年次休暇は二十日です。")
    make_document(mine, title="th", text="พนักงานมีสิทธิลาพักร้อนปีละยี่สิบวัน")
    assert titles("Welche Regelungen gelten im Haus?", reader)[0] == "de"
    assert titles("Which policy covers the house?", reader)[0] == "en"
    assert titles("年假有多少天", reader)[0] == "zh"
    assert titles("休暇", reader) == ["ja"]
    assert titles("ลาพักร้อน", reader) == ["th"]
    assert titles("假", reader) == ["zh"]  # one sign is the beginning of a pair


@pytest.fixture
def many(mine: Collection, monkeypatch: pytest.MonkeyPatch) -> Collection:
    """Some 600 chunks, enough to be sampled: common words, and a rare one in each twentieth."""
    monkeypatch.setattr(statistics, "FEW", 100)
    monkeypatch.setattr(statistics, "SIZE", 80)
    fill(mine, 600, seed=1)
    return mine


def fill(collection: Collection, count: int, *, seed: int) -> None:
    rng = random.Random(seed)
    words = [f"word{chr(97 + i // 26)}{chr(97 + i % 26)}" for i in range(100)]
    paragraphs = [
        " ".join(rng.choices(words, weights=[1 / (i + 1) for i in range(100)], k=30))
        + f" rare{chr(97 + i % 20)}"
        for i in range(count)
    ]
    make_document(collection, title="Many", text="\n\n".join(paragraphs))


def exactly(query: str, reader: User, monkeypatch: pytest.MonkeyPatch) -> dict[int, float]:
    """Score of each chunk, best first, when all are read."""
    with monkeypatch.context() as patch:
        patch.setattr(statistics, "FEW", 10_000)
        patch.setattr(statistics, "SIZE", 10_000)
        return {each.chunk_id: each.score for each in ranked(query, reader)}


@pytest.mark.parametrize("query", ["raree wordaa wordab", "wordab wordac wordae", "rarec rarek"])
def test_a_plan_with_few_candidates_finds_what_a_full_one_finds(
    query: str, many: Collection, reader: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keyword, "CANDIDATES", 300)
    found = [each.chunk_id for each in ranked(query, reader)][:10]
    scores = exactly(query, reader, monkeypatch)
    # Which chunks are drawn depends on their ids, and those on the tests that ran before.
    assert sum(scores.get(each, 0.0) for each in found) >= 0.9 * sum(list(scores.values())[:10])


@pytest.mark.parametrize("deep", [statistics.DEEP, 2])
@pytest.mark.parametrize("mode", ["keyword", "vector", "hybrid"])
def test_the_little_that_answers_among_much_that_does_not_is_found(
    many: Collection, reader: User, mode: Mode, deep: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(statistics, "DEEP", deep)  # of 600
    Document.objects.update(disabled_at=timezone.now())
    make_document(many, title="Live", text="Only here the zeppelin is told of.")
    found = search("zeppelin", user=reader, mode=mode).passages
    assert [passage.title for passage in found] == ["Live"]


def test_of_a_large_site_more_are_few(
    many: Collection, reader: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    with connection.cursor() as cursor:
        cursor.execute("ANALYZE retrieval_chunk")
    assert statistics.draw(scope_of(reader)).frequencies is not None
    monkeypatch.setattr(statistics, "FEW_OF", 0.5)
    whole = statistics.draw(scope_of(reader))
    assert (whole.frequencies, whole.count, whole.total) == (None, *2 * [Chunk.objects.count()])
    monkeypatch.setattr(statistics, "MOST_FEW", 100)
    assert statistics.draw(scope_of(reader)).frequencies is not None


@pytest.mark.parametrize("few", [100, 10_000])
def test_only_what_answers_takes_places(
    many: Collection, reader: User, monkeypatch: pytest.MonkeyPatch, few: int
) -> None:
    monkeypatch.setattr(statistics, "FEW", few)
    fill(many, 300, seed=3)
    disabled = Document.objects.order_by("created_at").last()
    assert disabled is not None
    chunks = set(Chunk.objects.filter(document=disabled).values_list("pk", flat=True))
    assert chunks & {each.chunk_id for each in ranked("raree wordaa", reader)}
    Document.objects.filter(pk=disabled.pk).update(disabled_at=timezone.now())
    found = {each.chunk_id for each in ranked("raree wordaa", reader)}
    assert len(found) == 50
    assert not chunks & found


def test_hidden_texts_change_no_score(many: Collection, reader: User) -> None:
    before = ranked("rareb wordaa wordad", reader)
    assert before
    fill(make_collection(), 300, seed=2)
    assert ranked("rareb wordaa wordad", reader) == before


def test_a_deleted_document_leaves_the_statistics(many: Collection, reader: User) -> None:
    fill(many, 600, seed=3)
    both = statistics.draw(scope_of(reader)).count
    newest = Document.objects.order_by("created_at").last()
    assert newest is not None
    documents.delete_document(newest, actor=reader)
    left = statistics.draw(scope_of(reader)).count
    assert 900 < both < 1_600
    assert 400 < left < 800


def test_old_terms_answer_until_they_are_renewed(
    mine: Collection, reader: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_document(mine, title="A", text="\n\n".join(f"The canteen number {i}." for i in range(7)))
    with connection.cursor() as cursor:
        cursor.execute(
            "UPDATE retrieval_chunk SET analyser = 0, language = '', frequencies = NULL,"
            " terms = to_tsvector('english', context || ' ' || text || ' oldword')"
        )
    assert titles("canteens", reader) == ["A"] * 7
    monkeypatch.setattr(reanalysis, "_BATCH", 3)
    assert reanalysis.renew(seconds=0) == 3
    assert len(titles("oldword", reader)) == 4
    assert titles("canteens", reader) == ["A"] * 7
    assert reanalysis.renew(seconds=60) == 4
    assert titles("oldword", reader) == []
    assert reanalysis.renew(seconds=60) == 0
    assert set(Chunk.objects.values_list("language", flat=True)) == {"en"}


def test_a_search_with_nothing_to_look_for_finds_nothing(mine: Collection, reader: User) -> None:
    assert ranked("canteen", reader) == []
    make_document(mine, title="A", text="The canteen opens at noon.")
    assert ranked("?!", reader) == []
    assert ranked("", reader) == []
    assert len(ranked("canteen " + "noon tomorrow " * 3_000, reader)) == 1
