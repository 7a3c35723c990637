from __future__ import annotations

import time

import pytest

from inference.sentences import MAX_SENTENCE_CHARACTERS, Kind, split


def pieces(text: str) -> list[str]:
    return [text[piece.start : piece.end] for piece in split(text)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("It opens at 9. It closes at 5.", ["It opens at 9.", "It closes at 5."]),
        (
            "Ask Dr. J. K. Smith, e.g. by phone. Then wait.",
            ["Ask Dr. J. K. Smith, e.g. by phone.", "Then wait."],
        ),
        ("See fig. 3 and No. 4 of Art. 5. Done.", ["See fig. 3 and No. 4 of Art. 5.", "Done."]),
        ("The answer is no. We checked.", ["The answer is no.", "We checked."]),
        (
            "Version 3.14 costs 1,000.50 EUR. It ships.",
            ["Version 3.14 costs 1,000.50 EUR.", "It ships."],
        ),
        (
            'He said "Stop!" She did. (It was late.) Then home.',
            ['He said "Stop!"', "She did.", "(It was late.)", "Then home."],
        ),
        ("Wait... what? Yes!", ["Wait... what?", "Yes!"]),
        ("A line that\nwraps here. And ends.", ["A line that\nwraps here.", "And ends."]),
        ("图书馆关门。请明天再来！好吗？", ["图书馆关门。", "请明天再来！", "好吗？"]),
        ("هل أنت بخير؟ نعم۔ شكرا.", ["هل أنت بخير؟", "نعم۔", "شكرا."]),
        (
            "Z.B. am Montag, bzw. am 3. Mai. Danach nicht.",
            ["Z.B. am Montag, bzw. am 3. Mai.", "Danach nicht."],
        ),
        ("# Title\n\nText.\n\nHeading\n---\n", ["Title", "Text.", "Heading"]),
        ("- one\n- two\n  goes on\n\n1. three", ["one", "two\n  goes on", "three"]),
        ("| a | b |\n|---|---|\n| 1 | 2 |", ["| a | b |", "| 1 | 2 |"]),
        ("", []),
        (" \n ", []),
    ],
)
def test_pieces(text: str, expected: list[str]) -> None:
    assert pieces(text) == expected


def test_layout_is_known() -> None:
    kinds = [piece.kind for piece in split("Text:\n- item\n| a | b |\n")]
    assert kinds == [Kind.SENTENCE, Kind.ITEM, Kind.ROW]


@pytest.mark.parametrize(
    ("text", "headings"),
    [
        ("# Title\n\nText.", ["Title"]),
        ("First week\n\nMeet your buddy.", ["First week"]),
        ("Joining\n\nFirst week\n\n- Meet your buddy", ["Joining", "First week"]),
        ("May I work abroad?\n\nYes.", ["May I work abroad?"]),
        ("Setext\n------\nText.", ["Setext"]),
        ("休暇\n\n年に三十日です。", ["休暇"]),
        # Nothing stands below it; it says something; it is long; it wraps; it goes on.
        ("Text.\n\nSee you on Monday", []),
        ("It is closed.\n\nText.", []),
        ("Support: 555-1234\n\nText.", []),
        ("You need:\n\n- a form", []),
        ("word " * 30 + "\n\nText.", []),
        ("A line that\nwraps here\n\nText.", []),
        ("A line\n- item", []),
    ],
)
def test_headings_are_known(text: str, headings: list[str]) -> None:
    found = [piece for piece in split(text) if piece.kind is Kind.HEADING]
    assert [text[piece.start : piece.end] for piece in found] == headings


def test_thai_and_endless_sentences_are_cut_at_spaces() -> None:
    thai = "ห้องสมุดเปิดวันจันทร์ถึงวันศุกร์ " * 10
    assert all(len(piece) < 140 for piece in pieces(thai))
    endless = "word " * 1000
    assert all(len(piece) <= MAX_SENTENCE_CHARACTERS for piece in pieces(endless))
    assert "".join(pieces(endless)).replace(" ", "") == endless.replace(" ", "")


@pytest.mark.parametrize(
    "unit", ["a. ", "A.", "(((", "...", "| ", "- \n", "ก", "no. 1 ", "\n#", "|-", "… "]
)
def test_time_grows_with_length_only(unit: str) -> None:
    def cost(count: int) -> float:
        started = time.process_time()
        split(unit * count)
        return time.process_time() - started

    cost(1000)
    small = min(cost(10_000) for _ in range(5))
    large = min(cost(40_000) for _ in range(3))
    assert large < 4 * 2 * small + 0.01
