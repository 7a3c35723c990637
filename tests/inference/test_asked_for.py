from __future__ import annotations

import pytest

from inference.asked_for import Kind, holds, kind_of, parts_of


@pytest.mark.parametrize(
    ("question", "kind"),
    [
        ("When was the policy last changed?", Kind.TIME),
        ("In what year did it open?", Kind.TIME),
        ("How many days of leave do I have?", Kind.NUMBER),
        ("What percentage is paid?", Kind.NUMBER),
        ("Who approves travel?", Kind.NAME),
        ("Who decides when I may go?", Kind.NAME),
        ("Wann endet die Probezeit?", Kind.TIME),
        ("Wie viele Tage habe ich?", Kind.NUMBER),
        ("Combien de jours ?", Kind.NUMBER),
        ("Where is the office?", None),
        ("年假有多少天", None),
        ("", None),
    ],
)
def test_the_question_word_says_what_is_asked_for(question: str, kind: Kind | None) -> None:
    assert kind_of(question) is kind


@pytest.mark.parametrize(
    ("text", "kind", "question", "expected"),
    [
        ("It opened in March 2019.", Kind.TIME, "When did it open?", True),
        ("It opened late.", Kind.TIME, "When did it open?", False),
        # What the question says itself does not answer it.
        ("The 2019 rules apply.", Kind.NUMBER, "How many rules did 2019 bring?", False),
        ("Everybody has twenty days.", Kind.NUMBER, "How many days?", True),
        ("The head of the team approves it.", Kind.NAME, "Who approves it?", False),
        ("Ann Lee approves it.", Kind.NAME, "Who approves it?", True),
        ("张三批准。", Kind.NAME, "Who approves it?", True),
    ],
)
def test_a_sentence_has_it_or_not(text: str, kind: Kind, question: str, expected: bool) -> None:
    assert holds(text, kind, question) is expected


@pytest.mark.parametrize(
    ("seam", "parts"),
    [
        (" and ", ["How many days of leave do I get", "whom do I tell when I am sick?"]),
        (", and also ", ["How many days of leave do I get", "do I carry over old days?"]),
        ("? ", ["How many days of leave do I get", "Whom do I tell when I am sick?"]),
        (" und ", ["Wie viele Urlaubstage habe ich", "wem melde ich mich krank?"]),
        (" et ", ["Combien de jours ai-je", "qui dois-je avertir ?"]),
    ],
)
def test_questions_in_one_are_put_apart(seam: str, parts: list[str]) -> None:
    assert parts_of(seam.join(parts)) == parts


@pytest.mark.parametrize(
    "question",
    [
        "When and where was Nikola Tesla born?",
        "Who founded the company and when did it open?",
        "Who lived in Paris and was crowned king of France?",
        "The merger was between UPT and what network in 1954?",
        "What is the rule on food and drink?",
        "Since when, and why?",
        "",
    ],
)
def test_one_question_stays_whole(question: str) -> None:
    assert parts_of(question) == [question]
