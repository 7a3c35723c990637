"""The vector arm brings min(k, visible) rows, the right ones, whatever is hidden around them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest
from django.contrib.auth.models import AnonymousUser
from django.db import connection, transaction
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from assistant.documents.models import Collection, Document
from assistant.retrieval import scope as scopes
from assistant.retrieval import spaces, statistics, vector
from assistant.retrieval.models import Chunk
from assistant.retrieval.statistics import Sample
from assistant.users.models import User
from inference.fakes import FakeEmbedder
from tests.factories import make_collection, make_document, make_user

pytestmark = pytest.mark.django_db
QUERY = "canteen noon"


@pytest.fixture
def reader() -> User:
    user: User = make_user()
    return user


@pytest.fixture
def mine(reader: User, fake_embedder: FakeEmbedder) -> Collection:
    """Thirty chunks that have a word or two of the question, behind eighty that have all."""
    collection: Collection = make_collection(readers=[reader])
    parts = [f"canteen rule {number} of kitchen {number % 7}" for number in range(30)]
    make_document(collection, title="Rules", text="\n\n".join(parts))
    hidden = "\n\n".join(f"canteen noon {number}" for number in range(80))
    make_document(make_collection(), title="Hidden", text=hidden)
    return collection


Nearest = Callable[..., vector.Nearest]


@pytest.fixture
def nearest(reader: User, fake_embedder: FakeEmbedder) -> Nearest:
    def find(
        limit: int = 10, user: Any = None, sample: Sample | None = None, **narrowing: Any
    ) -> vector.Nearest:
        space = spaces.active()
        assert space is not None
        asked = fake_embedder.embed([QUERY], kind="query")[0]
        scope = scopes.scope_of(user or reader, **narrowing)
        with transaction.atomic():
            return vector.nearest(asked, scope=scope, space=space, limit=limit, sample=sample)

    return find


@pytest.fixture
def never_exact(monkeypatch: pytest.MonkeyPatch) -> None:
    """A site on which the reader sees too much for an exact scan."""
    monkeypatch.setattr(vector, "EXACT_AT_LEAST", 0)
    monkeypatch.setattr(vector, "WALK_COST", 0.0)


@pytest.fixture
def short_walks(monkeypatch: pytest.MonkeyPatch, never_exact: None) -> None:
    """HNSW gives up early, as it does at a million chunks.

    How far a walk gets on a hundred vectors is the luck of their graph: the last one is dropped.
    """
    walked = vector._approximate
    monkeypatch.setitem(vector.WALK, "hnsw.ef_search", "1")
    monkeypatch.setitem(vector.WALK, "hnsw.max_scan_tuples", "1")
    monkeypatch.setattr(vector, "_approximate", lambda *asked: walked(*asked)[:-1])


def ids(found: vector.Nearest) -> list[int]:
    return [item.chunk_id for item in found.ranked]


def test_few_visible_chunks_are_compared_one_by_one(mine: Collection, nearest: Nearest) -> None:
    found = nearest()
    assert found.plan == "exact"
    assert len(found.ranked) == 10
    assert [item.score for item in found.ranked] == sorted(
        (item.score for item in found.ranked), reverse=True
    )
    assert set(ids(found)) <= set(
        Chunk.objects.filter(collection=mine).values_list("pk", flat=True)
    )


@pytest.mark.parametrize("limit", [30, 200])
def test_a_hidden_neighbourhood_starves_nobody(
    mine: Collection, nearest: Nearest, limit: int, request: pytest.FixtureRequest
) -> None:
    exact = nearest(limit)
    assert len(exact.ranked) == min(limit, 30)
    request.getfixturevalue("short_walks")
    fallen_back = nearest(limit)
    assert fallen_back.plan == "hnsw, then exact"
    assert [item.score for item in fallen_back.ranked] == pytest.approx(
        [item.score for item in exact.ranked], abs=1e-6
    )


def test_hnsw_agrees_where_much_is_visible(
    mine: Collection, nearest: Nearest, request: pytest.FixtureRequest
) -> None:
    everything = make_user(is_superuser=True)
    exact = nearest(user=everything)
    request.getfixturevalue("never_exact")
    found = nearest(user=everything)
    assert found.plan == "hnsw"
    assert [item.score for item in found.ranked] == pytest.approx(
        [item.score for item in exact.ranked], abs=1e-3
    )


@pytest.mark.parametrize(
    ("held", "total", "plan"),
    [
        (5_000, 5_000, "exact"),
        (14_000, 1_000_000, "exact"),  # cheaper than walking so far
        (15_000, 1_000_000, "hnsw"),
        (15_000, 1_200_000, "exact"),
        (0, 1_000_000, "nothing visible"),
    ],
)
def test_what_is_visible_by_the_sample_decides_and_is_not_counted_again(
    mine: Collection, nearest: Nearest, held: int, total: int, plan: str
) -> None:
    reads_all = make_user(is_superuser=True)
    drawn = Sample(600, 9.0, held=float(held), mean_length=9.0, languages=[], total=float(total))
    with CaptureQueriesContext(connection) as queries:
        found = nearest(10, user=reads_all, sample=drawn)
    assert found.plan == plan
    assert len(found.ranked) == (10 if held else 0)
    assert not any("pg_class" in query["sql"] for query in queries)


def test_much_that_does_not_answer_hides_nothing_that_does(
    mine: Collection, reader: User, nearest: Nearest, monkeypatch: pytest.MonkeyPatch
) -> None:
    off = "\n\n".join(f"canteen noon {n}" for n in range(250))
    make_document(mine, title="Off", text=off)
    Document.objects.filter(title="Off").update(disabled_at=timezone.now())
    monkeypatch.setattr(statistics, "FEW", 50)
    monkeypatch.setattr(statistics, "SIZE", 100)
    drawn = statistics.draw(scopes.scope_of(reader))
    assert drawn.count < 100 < drawn.held  # estimated: 30 of 280
    assert len(nearest(30, sample=drawn).ranked) == 30


def settings_now() -> dict[str, str]:
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT name, setting FROM pg_settings"
            " WHERE starts_with(name, 'hnsw.') OR name = 'enable_sort'"
        )
        return dict(cursor.fetchall())


def test_what_hnsw_is_told_does_not_reach_the_exact_statement(
    mine: Collection, nearest: Nearest, short_walks: None
) -> None:
    plans: list[str] = []
    during: list[dict[str, str]] = []

    def watch(execute: Any, sql: str, params: Any, many: bool, context: Any) -> Any:
        if "<=>" in sql and not sql.strip().startswith(("SET LOCAL", "EXPLAIN")):
            during.append(settings_now())
            with connection.cursor() as cursor:
                cursor.execute(f"EXPLAIN {sql}", params)
                plans.extend(row[0] for row in cursor.fetchall())
        return execute(sql, params, many, context)

    nearest()  # pgvector's settings are known once it is loaded
    with transaction.atomic():
        before = settings_now()
        with connection.execute_wrapper(watch):
            assert nearest(30).plan == "hnsw, then exact"
        assert during == [before]
        assert settings_now() == before
    assert before["enable_sort"] == "on"
    assert plans
    assert not any("hnsw" in line for line in plans)


def prepared() -> int:
    with connection.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM pg_prepared_statements")
        (count,) = cursor.fetchone()
        return int(count)


def test_walking_hnsw_keeps_what_the_connection_has_prepared(
    mine: Collection, nearest: Nearest, request: pytest.FixtureRequest
) -> None:
    raw: Any = connection.connection
    raw.prepare_threshold = 0  # as where connections are pooled, but at once
    try:
        nearest()
        before = prepared()
        assert before
        request.getfixturevalue("never_exact")
        assert nearest().plan == "hnsw"
        assert prepared() >= before
    finally:
        raw.prepare_threshold = None


@pytest.mark.parametrize("spare", [0, vector.SPARE])
def test_disabled_documents_leave_no_gap(
    mine: Collection, nearest: Nearest, monkeypatch: pytest.MonkeyPatch, spare: int
) -> None:
    make_document(mine, title="Off", text="\n\n".join(f"canteen noon {n}" for n in range(25)))
    Document.objects.filter(title="Off").update(disabled_at=timezone.now())
    monkeypatch.setattr(vector, "SPARE", spare)
    allowed = set(
        Chunk.objects.filter(collection=mine, document__disabled_at=None).values_list(
            "pk", flat=True
        )
    )
    for limit in (10, 40):
        found = nearest(limit)
        assert len(found.ranked) == min(limit, 30)
        assert set(ids(found)) <= allowed


def test_named_documents_are_compared_one_by_one(
    mine: Collection, nearest: Nearest, short_walks: None
) -> None:
    document = make_document(mine, title="One", text="canteen of the north")
    found = nearest(filters={"document_ids": [str(document.pk)]})
    assert found.plan == "exact"
    assert len(found.ranked) == 1


@pytest.mark.parametrize(
    "filters", [{"media_types": ["text/plain"]}, {"metadata": {"site": "north"}}]
)
def test_filters_narrow_every_plan(
    mine: Collection, nearest: Nearest, filters: Any, request: pytest.FixtureRequest
) -> None:
    make_document(mine, title="North", text="canteen of the north", media_type="text/plain")
    Document.objects.filter(title="North").update(metadata={"site": "north"})
    found = [nearest(filters=filters)]
    request.getfixturevalue("never_exact")
    found.append(nearest(filters=filters))
    request.getfixturevalue("short_walks")
    found.append(nearest(filters=filters))
    assert [each.plan for each in found] == ["exact", "hnsw, then exact", "hnsw, then exact"]
    assert len({tuple(ids(each)) for each in found}) == 1
    assert len(found[0].ranked) == 1


@pytest.mark.parametrize("who", ["stranger", "anonymous", "deactivated"])
def test_who_may_see_nothing_costs_no_vector_query(
    mine: Collection, nearest: Nearest, who: str
) -> None:
    users: dict[str, Callable[[], Any]] = {
        "stranger": make_user,
        "anonymous": AnonymousUser,
        "deactivated": lambda: make_user(is_superuser=True, is_active=False),
    }
    user = users[who]()
    asked: list[str] = []

    def watch(execute: Any, sql: str, *args: Any) -> Any:
        asked.append(sql)
        return execute(sql, *args)

    with connection.execute_wrapper(watch):
        found = nearest(user=user)
    assert (found.ranked, found.plan) == ([], "nothing visible")
    assert not any("<=>" in sql for sql in asked)


@pytest.mark.parametrize("named", [1, 2])
def test_named_collections_narrow(
    mine: Collection, nearest: Nearest, reader: User, named: int
) -> None:
    others = [make_collection(readers=[reader]) for _ in range(2)]
    for other in others:
        make_document(other, text="canteen at noon")
    wanted: Sequence[Collection] = others[:named]
    found = nearest(50, collections=[each.pk for each in wanted])
    assert len(found.ranked) == named
