from __future__ import annotations

import pytest
from django.core.exceptions import ValidationError

from assistant.documents import actions as documents
from assistant.documents.models import Collection, Document
from assistant.permissions.models import Grant
from assistant.retrieval import calibration, search
from assistant.users.models import User
from inference.fakes import FakeEmbedder, FakeReranker
from tests.factories import make_collection, make_document, make_user

pytestmark = pytest.mark.django_db


@pytest.fixture
def reader() -> User:
    user: User = make_user()
    return user


@pytest.fixture
def mine(reader: User, fake_embedder: FakeEmbedder) -> Collection:
    collection: Collection = make_collection(readers=[reader])
    make_document(
        collection, title="Leave", text="Annual leave is thirty days.\n\nSick leave rules."
    )
    make_document(collection, title="Canteen", text="The canteen opens at noon.")
    return collection


def titles(query: str, user: User, **options: object) -> list[str]:
    return [p.title for p in search(query, user=user, **options).passages]  # type: ignore[arg-type]


@pytest.mark.parametrize("mode", ["hybrid", "vector", "keyword"])
def test_the_best_passage_comes_first(mine: Collection, reader: User, mode: str) -> None:
    assert titles("canteen noon", reader, mode=mode)[0] == "Canteen"


@pytest.mark.parametrize("mode", ["hybrid", "vector", "keyword"])
def test_closer_hidden_twins_take_no_places(mine: Collection, reader: User, mode: str) -> None:
    hidden = make_collection()
    for i in range(30):
        make_document(hidden, title=f"Hidden {i}", text="canteen noon canteen noon")
    found = titles("canteen noon", reader, mode=mode, limit=10)
    assert found[0] == "Canteen"
    assert not any(title.startswith("Hidden") for title in found)


def test_a_withdrawn_right_counts_on_the_next_query(mine: Collection, reader: User) -> None:
    assert titles("canteen", reader)
    Grant.objects.all().delete()
    assert titles("canteen", reader) == []


def test_a_deleted_document_answers_nothing(mine: Collection, reader: User) -> None:
    documents.delete_document(Document.objects.get(title="Canteen"), actor=reader)
    assert "Canteen" not in titles("canteen noon", reader)


def test_a_foreign_collection_is_like_an_absent_one(mine: Collection, reader: User) -> None:
    foreign = make_collection()
    with pytest.raises(Collection.DoesNotExist):
        search("canteen", user=reader, collections=[mine.pk, foreign.pk])


def test_filters_narrow(mine: Collection, reader: User) -> None:
    leave = Document.objects.get(title="Leave")
    assert set(titles("canteen leave", reader, filters={"document_ids": [str(leave.pk)]})) == {
        "Leave"
    }
    assert titles("canteen", reader, filters={"media_types": ["application/pdf"]}) == []
    assert titles("canteen", reader, filters={"created_after": "2999-01-01"}) == []
    Document.objects.filter(title="Canteen").update(metadata={"site": "north"})
    assert titles("canteen leave", reader, filters={"metadata": {"site": "north"}}) == ["Canteen"]


@pytest.mark.parametrize(
    "filters",
    [{"unknown": 1}, {"document_ids": "x"}, {"document_ids": ["x"]}, {"created_after": "soon"}],
)
def test_a_bad_filter_is_refused_in_words(
    mine: Collection, reader: User, filters: dict[str, object]
) -> None:
    with pytest.raises(ValidationError):
        search("canteen", user=reader, filters=filters)


@pytest.mark.parametrize(
    "query",
    ["", "' OR 1=1 --", "a'b\\c", "((((", "!& | :*", "\\", "the of and", "%s %(x)s {}", "日本語"],
)
def test_no_text_breaks_the_statement(mine: Collection, reader: User, query: str) -> None:
    search(query, user=reader, mode="keyword")
    search(query, user=reader)


def test_what_is_quoted_is_found_however_little_else_agrees(
    reader: User, fake_embedder: FakeEmbedder
) -> None:
    collection = make_collection(readers=[reader])
    text = "Each spring there is a performance review with the lead. " + "Filler words. " * 30
    make_document(collection, title="Handbook", text=text)
    loose = search("performance review zebra lion tiger bear wolf fox", user=reader)
    quoted = search('"performance review" zebra lion tiger bear wolf fox', user=reader)
    absent = search('"review performance" zebra lion tiger bear wolf fox', user=reader)
    assert loose.relevance < quoted.threshold == quoted.relevance
    assert absent.relevance < absent.threshold


def test_bm25_prefers_rare_words_and_short_texts(reader: User, fake_embedder: FakeEmbedder) -> None:
    collection = make_collection(readers=[reader])
    make_document(collection, title="common", text="report report report")
    make_document(collection, title="rare", text="report zebra")
    make_document(collection, title="long", text="report zebra " + "filler " * 200)
    for i in range(5):
        make_document(collection, title=f"other {i}", text=f"report number {i}")
    assert titles("zebra report", reader, mode="keyword")[:2] == ["rare", "long"]


def test_the_keyword_arm_is_bm25(reader: User, fake_embedder: FakeEmbedder) -> None:
    """Against the formula, term frequencies 1 to 12 included."""
    import math

    from assistant.retrieval import keyword
    from assistant.retrieval.models import Chunk
    from assistant.retrieval.scope import scope_of

    collection = make_collection(readers=[reader])
    for tf in range(1, 13):
        make_document(collection, title="T", text="zebra " * tf + "filler " * (20 - tf))
    make_document(collection, title="T", text="filler " * 9)
    ranked = keyword.best_matches("zebra", scope=scope_of(reader), limit=50).ranked
    lengths = dict(Chunk.objects.values_list("pk", "term_count"))
    counts = {row.pk: row.text.count("zebra") for row in Chunk.objects.all()}
    mean = sum(lengths.values()) / len(lengths)
    idf = math.log(1 + (13 - 12 + 0.5) / (12 + 0.5))
    for item in ranked:
        tf, length = counts[item.chunk_id], lengths[item.chunk_id]
        expected = idf * tf * 2.2 / (tf + 1.2 * (0.25 + 0.75 * length / mean))
        assert item.score == pytest.approx(expected, rel=1e-6)
    assert len(ranked) == 12


def test_a_trusted_reranker_turns_the_order(
    mine: Collection, reader: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    from assistant import engines

    reranker = FakeReranker()
    monkeypatch.setattr(
        reranker, "rerank", lambda query, texts: [float("Sick" in t) for t in texts]
    )
    monkeypatch.setattr(engines, "reranker", lambda: reranker)
    assert "canteen" in search("canteen noon", user=reader).passages[0].text
    monkeypatch.setattr(calibration, "TRUST", 5.0)
    assert "Sick" in search("canteen noon", user=reader).passages[0].text
    assert "Sick" not in search("canteen noon", user=reader, rerank=False).passages[0].text


def test_a_budget_joins_neighbours_and_cuts(reader: User, fake_embedder: FakeEmbedder) -> None:
    collection = make_collection(readers=[reader])
    text = "\n\n".join(f"Paragraph {i} speaks of leave." for i in range(6))
    make_document(collection, title="Leave", text=text)
    whole = search("leave", user=reader, budget=1000).passages
    assert len(whole) == 1
    place = whole[0].locator
    assert whole[0].text == text[place.char_start : place.char_end]
    assert len(search("leave", user=reader, budget=12).passages) == 1
    assert search("leave", user=reader, budget=1).passages == []


def test_a_joined_passage_knows_the_headings_of_its_parts(
    reader: User, fake_embedder: FakeEmbedder
) -> None:
    from dataclasses import replace

    from assistant.retrieval.passages import join_neighbours

    collection = make_collection(readers=[reader])
    make_document(collection, title="Leave", text="First leave part.\n\nSecond leave part.")
    found = sorted(search("leave part", user=reader).passages, key=lambda p: p.locator.char_start)
    named = [
        replace(p, locator=(place := replace(p.locator, heading_path=(name,))), parts=(place,))
        for p, name in zip(found, ("One", "Two"), strict=True)
    ]
    (joined,) = join_neighbours(named)
    start = joined.text.index("Second")
    place = joined.locate(start, start + 6)
    assert place.heading_path == ("Two",)
    assert (place.char_start, place.char_end) == (start, start + 6)


def test_a_trace_tells_both_arms_and_names_only_what_the_reader_may_see(
    mine: Collection, reader: User
) -> None:
    make_document(make_collection(), title="Hidden", text="canteen noon")
    found = search("canteen noon", user=reader, explain=True)
    assert search("canteen noon", user=reader).trace is None
    trace = found.trace
    assert trace is not None
    assert {arm.name: arm.plan for arm in trace.arms}.keys() == {"vector", "keyword"}
    best = trace.chunks[trace.fused[0].chunk_id]
    assert best.title == found.passages[0].title == "Canteen"
    assert trace.rank_in("keyword", trace.fused[0].chunk_id).rank == 1  # type: ignore[union-attr]
    assert {card.title for card in trace.chunks.values()} <= {"Canteen", "Leave"}
    assert trace.relevance == found.relevance > 0
