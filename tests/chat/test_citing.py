from __future__ import annotations

import random
from itertools import pairwise

import pytest

from assistant.chat.citing import Marker, MarkerParser, bind
from benchmarks.citations import handbook_texts, measure

KNOWN = frozenset({1, 2, 3})


def shown(pieces: list[str | Marker]) -> str:
    return "".join(p if isinstance(p, str) else f"[{p.number}]" for p in pieces)


def parse(text: str, *, cuts: list[int] | None = None) -> tuple[str, list[int]]:
    parser = MarkerParser(KNOWN)
    edges = [0, *(cuts or []), len(text)]
    pieces: list[str | Marker] = []
    for start, end in pairwise(edges):
        pieces.extend(parser.feed(text[start:end]))
    pieces.extend(parser.finish())
    return shown(pieces), [p.number for p in pieces if isinstance(p, Marker)]


@pytest.mark.parametrize(
    ("raw", "text", "numbers"),
    [
        ("Five days [1].", "Five days [1].", [1]),
        ("Five [1, 2] days", "Five [1][2] days", [1, 2]),
        ("Five 【2†L1-L3】 days", "Five [2] days", [2]),
        ("Five【3】", "Five[3]", [3]),
        ("Five ［1］", "Five [1]", [1]),
        ("Five [9] days", "Five  days", []),
        ("Five [1][9][2]", "Five [1][2]", [1, 2]),
        ("`a[1]` is code", "`a[1]` is code", []),
        ("a [link](x) stays", "a [link](x) stays", []),
        ("an open [bracket", "an open [bracket", []),
        ("[1](https://evil.example)", "[1](https://evil.example)", []),
    ],
)
def test_markers_come_out_in_one_form(raw: str, text: str, numbers: list[int]) -> None:
    assert parse(raw) == (text, numbers)


def test_borders_between_deltas_change_nothing() -> None:
    raw = "One [1]. Two 【2†L10-L12】 and three [1, 3]; `x[2]` is code. Unknown [77] goes."
    expected = parse(raw)
    choose = random.Random(7)
    for _ in range(300):
        cuts = sorted(choose.sample(range(1, len(raw)), choose.randint(1, 20)))
        assert parse(raw, cuts=cuts) == expected
    assert parse(raw, cuts=list(range(1, len(raw)))) == expected


def test_a_marker_carries_the_sentence_it_stands_behind() -> None:
    parser = MarkerParser(KNOWN)
    pieces = list(parser.feed("Cats sleep. Dogs bark [2], and birds sing.[1]"))
    assert [p.claim for p in pieces if isinstance(p, Marker)] == [
        "Dogs bark",
        "Dogs bark , and birds sing.",
    ]


SOURCE = (
    "Employees accrue four hours of leave each pay period. After three years they accrue six"
    " hours. Requests go to the supervisor. The canteen opens at noon."
)


def test_a_verbatim_sentence_is_its_own_quote() -> None:
    quote = bind("the Canteen opens at noon.", SOURCE)
    assert quote is not None
    assert quote.verified
    assert quote.text == "The canteen opens at noon."
    assert SOURCE[quote.span.start : quote.span.end] == quote.text


def test_a_quotation_inside_a_claim_is_found() -> None:
    quote = bind('The handbook says "requests go to the supervisor".', SOURCE)
    assert quote is not None
    assert (quote.text, quote.verified) == ("Requests go to the supervisor.", True)


def test_a_paraphrase_is_bound_to_the_sentence_that_covers_it() -> None:
    quote = bind("After three years, six hours are accrued", SOURCE)
    assert quote is not None
    assert quote.verified
    assert quote.text == "After three years they accrue six hours."


@pytest.mark.parametrize(
    "claim", ["The moon is made of green cheese", "Salaries rise by ten percent in May"]
)
def test_a_claim_without_support_is_not_verified(claim: str) -> None:
    quote = bind(claim, SOURCE)
    assert quote is None or not quote.verified


def test_quotes_are_short() -> None:
    quote = bind("word " * 10, "word " * 1000)
    assert quote is not None
    assert len(quote.text) <= 400


@pytest.mark.parametrize(
    "claim",
    [
        "Employees accrue five hours of leave each pay period.",
        "Employees accrue four days of leave each pay period.",
        "Employees do not accrue four hours of leave each pay period.",
        "Contractors accrue four hours of leave each pay period.",
        "Before three years they accrue six hours.",
        "Requests go to Alice.",
        'The handbook says "requests go to the director".',
        'The handbook does not say "requests go to the supervisor".',
        'Since 2019, "requests go to the supervisor".',
    ],
)
def test_a_claim_that_differs_from_its_quote_is_not_verified(claim: str) -> None:
    quote = bind(claim, SOURCE)
    assert quote is not None
    assert not quote.verified
    assert SOURCE[quote.span.start : quote.span.end] == quote.text


def test_a_negation_that_is_cut_off_is_noticed() -> None:
    quote = bind("employees accrue leave", "It is not true that employees accrue leave.")
    assert quote is not None
    assert not quote.verified


def test_numbers_may_be_spelled_and_names_may_stand_in_the_title() -> None:
    quote = bind("Employees accrue 4 hours of leave each pay period.", SOURCE)
    assert quote is not None
    assert quote.verified
    said = "The canteen of Springfield opens at noon"
    assert [bind(said, SOURCE, about=title).verified for title in ("", "Springfield")] == [  # type: ignore[union-attr]
        False,
        True,
    ]


def test_verified_quotes_are_verbatim_and_forged_markers_are_dropped() -> None:
    """The short form of benchmarks/citations.py."""
    if not handbook_texts():
        pytest.skip("no handbooks: set SHARED_DATA")
    counts = measure(120, seed=5)
    assert (counts.broken, counts.forged_shown) == (0, 0)
    assert counts.rate(right=False) <= 0.03
    assert counts.rate(right=True, among=lambda kind: "shortened" not in kind) >= 0.9


def test_a_sentence_after_an_opening_is_quoted() -> None:
    source = "Annual leave is thirty days. It can be carried over."
    quote = bind("The handbook says: Annual leave is thirty days.", source)
    assert quote is not None
    assert (quote.text, quote.verified) == ("Annual leave is thirty days.", True)
    for turned in ("It is wrong to say: ", "This is not so: ", "For 12 people: "):
        quote = bind(f"{turned}Annual leave is thirty days.", source)
        assert quote is not None
        assert not quote.verified
