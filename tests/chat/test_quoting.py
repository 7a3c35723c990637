from __future__ import annotations

import time

import pytest

from assistant.chat.quoting import find_quote, sentences

TEXT = "Leave is  granted\nby the “Director”—not by HR. It lasts 5 days."


@pytest.mark.parametrize(
    ("quote", "found"),
    [
        ("It lasts 5 days.", "It lasts 5 days."),
        ('leave is granted by the "director"-not by hr.', TEXT[: TEXT.index(" It lasts")]),
        ("**It lasts** `5` days", "It lasts 5 days"),
        ("ﬁve", None),
        ("It lasts 6 days.", None),
        ("", None),
        ("***", None),
    ],
)
def test_a_quote_is_found_whatever_happened_to_its_spaces_quotes_and_dashes(
    quote: str, found: str | None
) -> None:
    span = find_quote(TEXT, quote)
    assert (TEXT[span.start : span.end] if span else None) == found


def test_spans_point_into_the_original_text() -> None:
    text = "Der ﬂeißige Straßenbahn-Fahrer ruht."
    span = find_quote(text, "STRASSENBAHN–fahrer")
    assert span is not None
    assert text[span.start : span.end] == "Straßenbahn-Fahrer"


def test_sentences_cover_lines_and_abbreviating_points() -> None:
    text = "First one. Second, 3.5 km long! Third?\n- a bullet\n\n第一句。第二句。"
    assert [text[s.start : s.end] for s in sentences(text)] == [
        "First one.",
        "Second, 3.5 km long!",
        "Third?",
        "- a bullet",
        "第一句。",
        "第二句。",
    ]


@pytest.mark.parametrize("text", ["[1" * 4000, '"' * 8000, "a. " * 4000, "*" * 9000, "( " * 5000])
def test_time_grows_linearly(text: str) -> None:
    """Twice the text must not cost four times the time."""

    def cost(piece: str) -> float:
        best = 1.0
        for _ in range(3):
            started = time.process_time()
            sentences(piece)
            find_quote(piece + "x", piece + "y")
            best = min(best, time.process_time() - started)
        return best

    small, large = cost(text), cost(text * 4)
    assert large < 12 * max(small, 0.002)


@pytest.mark.parametrize(
    ("source", "quote"),
    [
        ("Leave is 12.5 days a year.", "5 days a year"),
        ("Leave is 112 days a year.", "12 days a year"),
        ("Pay 30.5 euros.", "Pay 30"),
        ("The mayor may decide.", "The may"),
    ],
)
def test_a_quote_is_whole_words_and_numbers(source: str, quote: str) -> None:
    assert find_quote(source, quote) is None


def test_emphasis_on_either_side_changes_nothing() -> None:
    source = "Leave is **thirty days** a year."
    span = find_quote(source, "leave is thirty *days*")
    assert span is not None
    assert source[span.start : span.end] == "Leave is **thirty days"
