from __future__ import annotations

import time

import pytest

from inference.harmony import HarmonyFilter

PROSE = " is how a message begins, says the passage on formats." * 2
CASES = [
    ("Plain text, a < b and a <| b.", "Plain text, a < b and a <| b.", 0),
    (
        "<|channel|>analysis<|message|>secret<|end|><|start|>assistant<|channel|>final<|message|>Yes",
        "Yes",
        6,
    ),
    ("<|start|>assistant<|channel|>final json<|message|>{}<|return|>", "{}", 4),
    ("<|channel|>final <|constrain|>json<|message|>{}", "{}", 3),
    ("analysisWe need secret.assistantfinalThe answer.", "The answer.", 2),
    ("Yes.assistantanalysissecretassistantfinal Indeed.", "Yes. Indeed.", 2),
    ("<|channel|>analysis<|message|>secret <|im_end|> more secret", "", 3),
    ("<|channel|>commentary<|message|>I will look.<|end|>", "I will look.", 3),
    (
        "<|channel|>analysis to=x " + "no message marker for a long while " * 4,
        "",
        1,
    ),
    (
        "<|start|>" + PROSE,
        PROSE,
        1,
    ),
    ("analysis of the data", "analysis of the data", 0),
    ("analysis", "analysis", 0),
    ("The assistant finally came.", "The assistant finally came.", 0),
    ("Ask the assistant", "Ask the assistant", 0),
    ("Yes<|ret", "Yes<|ret", 0),
]


@pytest.mark.parametrize(("raw", "shown", "stripped"), CASES)
@pytest.mark.parametrize("size", [1, 2, 3, 7, 1000])
def test_markup_is_taken_out_wherever_it_is_cut(
    raw: str, shown: str, stripped: int, size: int
) -> None:
    markup = HarmonyFilter()
    pieces = [markup.feed(raw[at : at + size]) for at in range(0, len(raw), size)]
    assert "".join(pieces) + markup.close() == shown
    assert markup.stripped == stripped


def test_text_is_not_held_back_longer_than_a_marker() -> None:
    markup = HarmonyFilter()
    assert markup.feed("See <| this is not a token") == "See <| this is not a token"


def cost(count: int, piece: str) -> float:
    markup = HarmonyFilter()
    started = time.process_time()
    for _ in range(count):
        markup.feed(piece)
    return time.process_time() - started


@pytest.mark.parametrize(
    "piece", ["<|", "assistant", "<|channel|>", "<|start|>assistantfin", "analysis"]
)
def test_time_grows_with_length_only(piece: str) -> None:
    cost(2000, piece)
    small = min(cost(5000, piece) for _ in range(5))
    large = min(cost(20000, piece) for _ in range(3))
    assert large / small < 4 * 2
