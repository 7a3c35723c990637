from __future__ import annotations

from assistant.retrieval.fusion import fuse
from assistant.retrieval.vector import Ranked


def ids(ranked: list[Ranked]) -> list[int]:
    return [item.chunk_id for item in ranked]


def test_both_arms_count_and_distance_matters() -> None:
    vector = [Ranked(1, 0.9), Ranked(2, 0.89), Ranked(3, 0.2)]
    keyword = [Ranked(2, 12.0), Ranked(4, 3.0), Ranked(1, 2.0)]
    fused = fuse(vector, keyword)
    assert ids(fused)[0] == 2
    assert set(ids(fused)) == {1, 2, 3, 4}
    assert all(0 <= item.score <= 1 for item in fused)
    assert [item.score for item in fused] == sorted((i.score for i in fused), reverse=True)


def test_an_empty_arm_leaves_the_other_as_it_is() -> None:
    keyword = [Ranked(5, 3.0), Ranked(6, 1.0)]
    assert ids(fuse([], keyword)) == [5, 6]
    assert ids(fuse(keyword, [])) == [5, 6]
    assert fuse([], []) == []


def test_equal_scores_count_fully() -> None:
    assert [item.score for item in fuse([Ranked(1, 0.5)], [])] == [1.0]
