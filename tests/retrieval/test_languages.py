from __future__ import annotations

import pytest

from assistant.retrieval.languages import FULL, NONE, RELATED, advice, coverage
from inference.embedding_models import MANY
from inference.fakes import FakeEmbedder
from tests.factories import make_collection, make_document, make_user

ENGLISH = frozenset({"en"})


@pytest.mark.parametrize(
    ("known", "language", "text", "expected"),
    [
        (ENGLISH, "en", "How many days of leave?", FULL),
        (ENGLISH, "de", "Wie viele Urlaubstage habe ich?", RELATED),
        (ENGLISH, "ar", "كم عدد أيام الإجازة؟", NONE),
        (ENGLISH, "zh", "年假有多少天？", NONE),
        (ENGLISH, None, "Кофе", NONE),
        (ENGLISH, None, "VPN-2041", FULL),
        (MANY, "zh", "年假有多少天？", FULL),
        (None, "zh", "年假有多少天？", FULL),
        (frozenset({"zh"}), "en", "How many days?", NONE),
    ],
)
def test_the_model_and_the_script_decide(
    known: frozenset[str] | None, language: str | None, text: str, expected: float
) -> None:
    assert coverage(known, language, text) == expected


@pytest.mark.django_db
def test_the_administrator_is_told_what_the_index_holds(
    fake_embedder: FakeEmbedder, monkeypatch: pytest.MonkeyPatch
) -> None:
    from assistant.retrieval import languages

    assert advice() is None
    collection = make_collection(readers=[make_user()])
    make_document(
        collection, title="Leave", text="Every employee has thirty days of annual leave a year."
    )
    make_document(
        collection,
        title="Urlaub",
        text="Jeder Mitarbeiter hat dreißig Tage Urlaub im Jahr, auch im ersten Jahr.",
    )
    monkeypatch.setattr(languages, "known_to", lambda space: ENGLISH)
    told = advice()
    assert told is not None
    assert told.chunks == {"en": 1, "de": 1}
    assert (told.uncovered, told.languages, told.is_multilingual) == (0.5, ("de",), False)
