"""The page for managers shows one search step by step, and nothing that they may not read."""

from __future__ import annotations

from typing import Any

import pytest
from django.test import Client

from assistant.retrieval import SearchResult, search
from assistant.retrieval.tracing import Trace
from assistant.users.models import User
from assistant.web.explaining import explain
from inference.fakes import FakeEmbedder
from inference.types import EngineError
from tests.factories import make_collection, make_document, make_user

pytestmark = pytest.mark.django_db
URL = "/retrieval/"


@pytest.fixture
def manager(fake_embedder: FakeEmbedder) -> User:
    return make_user()


@pytest.fixture
def visitor(manager: User) -> Client:
    client = Client()
    client.force_login(manager)
    return client


def test_both_arms_ranks_and_times(visitor: Client, manager: User) -> None:
    mine = make_collection(managers=[manager], name="Services")
    document = make_document(mine, title="Canteen hours", text="The canteen opens at noon.")
    make_document(mine, title="Parking", text="Parking is behind the house.")
    answer = visitor.get(URL, {"q": "When does the canteen open?"})
    html = answer.content.decode()
    explained = answer.context["explained"]
    best = explained.rows[0]
    assert (best.place, best.chunk.title, best.chunk.collection) == (1, "Canteen hours", "Services")
    assert best.vector.rank == best.keyword.rank == best.fused.rank == 1
    assert best.url in html.replace("&amp;", "&")
    assert f"/documents/{document.pk}/?v=1&start=0&end=26#passage" == best.url
    assert {arm.name for arm in explained.trace.arms} == {"vector", "keyword"}
    assert sum(bar.milliseconds for bar in explained.bars) <= explained.total * 1.05 + 1
    assert sum(weight.share for weight in explained.weights) == pytest.approx(100)
    assert "exact" in html


def test_bars_of_arms_side_by_side_begin_together() -> None:
    timings = {"scope": 10.0, "keyword": 40.0, "vector": 20.0, "fuse": 30.0, "total": 80.0}
    trace = Trace("canteen", timings_ms=timings, side_by_side=True)
    bars = explain(SearchResult([], timings, trace=trace)).bars
    assert [bar.start for bar in bars] == [0, 12.5, 12.5, 62.5]
    trace.side_by_side = False
    bars = explain(SearchResult([], timings, trace=trace)).bars
    assert [bar.start for bar in bars] == [0, 12.5, 62.5, 87.5]


def test_only_what_may_be_read_even_where_the_best_is_hidden(
    visitor: Client, manager: User
) -> None:
    make_document(make_collection(managers=[manager]), title="Mine", text="Canteen: see intranet.")
    make_document(make_collection(name="Closed shop"), title="Hidden", text="canteen noon canteen")
    html = visitor.get(URL, {"q": "canteen noon"}).content.decode()
    assert "Mine" in html
    assert "Hidden" not in html
    assert "Closed shop" not in html


def test_what_the_words_narrow_is_shown_and_can_be_taken_away(
    visitor: Client, manager: User
) -> None:
    mine = make_collection(managers=[manager], name="HR")
    make_document(mine, title="Leave", text="Leave is thirty days.")
    other = make_collection(readers=[manager], name="IT")
    make_document(other, title="Sick leave", text="Sick leave rules.")
    answer = visitor.get(URL, {"q": "leave in the HR collection"})
    html = answer.content.decode()
    assert "In HR only" in html
    assert "Sick leave" not in html
    ((_, without),) = answer.context["without"]
    assert f'href="?{without}"' in html.replace("&amp;", "&")
    assert "Sick leave" in visitor.get(f"{URL}?{without}").content.decode()


@pytest.mark.parametrize(
    ("sent", "words"),
    [
        ({"q": "  "}, "Write a question first."),
        ({"q": "x", "since": "soon"}, "no date such as"),
        ({"q": "x", "since": "2026-02-01", "until": "2026-01-01"}, "before the first"),
    ],
)
def test_bad_input_is_said_at_its_field(
    visitor: Client, manager: User, sent: dict[str, str], words: str
) -> None:
    make_collection(managers=[manager])
    answer = visitor.get(URL, sent)
    assert (answer.status_code, words in answer.content.decode()) == (422, True)


def test_an_embedder_that_fails_is_said(
    visitor: Client, manager: User, fake_embedder: FakeEmbedder
) -> None:
    make_document(make_collection(managers=[manager]))
    fake_embedder.error = EngineError("down", "The embedding server is down.", retryable=True)
    assert "The embedding server is down." in visitor.get(URL, {"q": "canteen"}).content.decode()


def test_a_candidate_below_the_cut_is_no_passage(manager: User) -> None:
    mine = make_collection(managers=[manager])
    for i in range(4):
        make_document(mine, title=f"Menu {i}", text=f"The canteen opens at noon, rule {i}.")
    explained = explain(search("canteen", user=manager, limit=2, explain=True))
    assert [row.place for row in explained.rows] == [1, 2, None, None]
    assert {row.outcome for row in explained.rows[2:]} == {"Below the cut"}


def test_quality_tells_an_administrator_of_foreign_languages(fake_embedder: Any) -> None:
    admin = make_user(is_superuser=True)
    client = Client()
    client.force_login(admin)
    assert "Nothing is indexed yet" in client.get("/retrieval/quality/").content.decode()
    mine = make_collection()
    german = "Der jährliche Urlaub beträgt dreißig Tage und wird mit der Leitung abgestimmt."
    make_document(mine, text=german)
    html = client.get("/retrieval/quality/").content.decode()
    assert "German" in html
