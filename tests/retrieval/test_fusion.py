from __future__ import annotations

import pytest

from assistant.retrieval.fusion import fuse, merge
from assistant.retrieval.keyword import Matches
from assistant.retrieval.languages import FULL, NONE, RELATED
from assistant.retrieval.vector import Ranked

NEAR = [Ranked(1, 0.6), Ranked(2, 0.55), Ranked(3, 0.1)]
WORDS = Matches(
    [Ranked(2, 8.0), Ranked(4, 3.0), Ranked(1, 2.0)], possible=10.0, covered={2: 9.0, 4: 3.0}
)


def ids(ranked: list[Ranked]) -> list[int]:
    return [item.chunk_id for item in ranked]


def test_both_arms_count_and_distance_matters() -> None:
    fused = fuse(NEAR, WORDS)
    assert ids(fused.ranking) == [2, 1, 4, 3]
    assert fused.ranking[0].score == pytest.approx(0.5 * 0.55 + 0.5 * 0.8)
    assert fused.evidence["covered"] == pytest.approx(0.9)


def test_a_blind_arm_does_not_lift_its_best() -> None:
    """The nearest is as near as any noise: with an unknown language words decide."""
    noise = [Ranked(1, 0.70), Ranked(3, 0.69), Ranked(2, 0.60)]
    assert ids(fuse(noise, WORDS, coverage=NONE).ranking)[0] == 2
    weights = [fuse(NEAR, WORDS, coverage=c).weights["vector"] for c in (NONE, RELATED, FULL)]
    assert weights == sorted(weights)
    assert weights[0] < weights[1] < weights[2]
    assert fuse(NEAR, WORDS, coverage=NONE).reasons != fuse(NEAR, WORDS).reasons


def test_words_that_hardly_fit_weigh_little() -> None:
    """One common word of many: the best of the keyword arm is not as good as a near vector."""
    weak = Matches([Ranked(9, 0.5)], possible=20.0, covered={9: 0.5})
    assert ids(fuse(NEAR, weak).ranking)[:2] == [1, 2]


def test_models_that_put_everything_close_are_read_by_what_is_above_their_floor() -> None:
    close = [Ranked(1, 0.90), Ranked(2, 0.80)]
    words = Matches([Ranked(2, 1.0)], possible=10.0, covered={2: 1.0})
    assert ids(fuse(close, words).ranking)[0] == 1
    gap = fuse(close, words, floor=0.7).ranking
    assert gap[0].score - gap[1].score > 0.1


def test_an_empty_arm_leaves_the_other_as_it_is() -> None:
    assert ids(fuse([], WORDS).ranking) == [2, 4, 1]
    assert fuse([], WORDS).weights == {"vector": 0.0, "keyword": 1.0}
    assert ids(fuse(NEAR, Matches()).ranking) == [1, 2, 3]
    assert ids(fuse(NEAR, Matches(), by=frozenset({"vector"})).ranking) == [1, 2, 3]
    assert fuse([], Matches()).ranking == []


def test_the_queries_of_one_question_take_turns() -> None:
    whole = [Ranked(1, 0.5), Ranked(2, 0.4)]
    part = [Ranked(3, 0.9), Ranked(1, 0.8)]
    merged = merge([whole, part])
    assert ids(merged) == [1, 3, 2]
    assert [item.score for item in merged] == [0.8, 0.8, 0.4]
    assert merge([whole]) == whole
