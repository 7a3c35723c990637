from __future__ import annotations

import pytest

from assistant.retrieval.splitting import parts_of


@pytest.mark.parametrize(
    ("question", "parts"),
    [
        (
            "What is the travel policy and who approves expenses?",
            ("What is the travel policy", "who approves expenses"),
        ),
        (
            "How many days of leave do I have? Where is the canteen located?",
            ("How many days of leave do I have", "Where is the canteen located"),
        ),
        (
            "Wie viele Urlaubstage habe ich, und wer genehmigt Dienstreisen?",
            ("Wie viele Urlaubstage habe ich", "wer genehmigt Dienstreisen"),
        ),
        ("年假有多少天？谁批准出差费用？", ("年假有多少天", "谁批准出差费用")),
        ("كم عدد أيام الإجازة؟ من يوافق على السفر؟", ("كم عدد أيام الإجازة", "من يوافق على السفر")),
        # The second part points back: only the first stands alone.
        ("What is a purchase order and how do I cancel it?", ("What is a purchase order",)),
    ],
)
def test_a_compound_question_falls_into_its_parts(question: str, parts: tuple[str, ...]) -> None:
    assert parts_of(question) == parts


@pytest.mark.parametrize(
    "question",
    [
        "",
        "How many days of leave do I have?",
        "What are the roles and responsibilities of a tech lead?",
        "Research and development budget of 2024",
        "Which device is made here and is sold abroad?",
        "Tom and Jerry or who?",
        "What? Who? Why?",
        "x" * 100_000 + " and what is it?",
        " and what" * 5_000,
    ],
)
def test_one_subject_stays_whole(question: str) -> None:
    assert parts_of(question) == ()
