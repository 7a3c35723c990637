from __future__ import annotations

import random

import pytest

from assistant.retrieval import calibration, search
from assistant.retrieval.calibration import DEFAULTS, Curve, Evidence, falling
from assistant.retrieval.fusion import Arms
from assistant.retrieval.keyword import Matches
from assistant.retrieval.learning import Example, examples, learn
from assistant.retrieval.vector import Ranked
from inference.fakes import FakeEmbedder
from tests.factories import make_collection, make_document, make_user


def asked(number: int, *, noise: float = 0.05) -> tuple[Arms, dict[int, str]]:
    """One question whose first document stands out in both arms; the others are alike."""
    draw = random.Random(number)
    near = [Ranked(1, 0.7 + noise * draw.gauss(0, 1))]
    near += [Ranked(chunk, 0.3 + noise * draw.gauss(0, 1)) for chunk in range(2, 12)]
    words = [Ranked(1, 8.0 + draw.gauss(0, 1))]
    words += [Ranked(chunk, 2.0 + draw.gauss(0, 0.5)) for chunk in range(2, 12)]
    held = {item.chunk_id: item.score for item in words}
    arms = Arms(
        vector=sorted(near, key=lambda item: -item.score),
        keyword=Matches(sorted(words, key=lambda item: -item.score), 10.0, held),
    )
    return arms, {chunk: f"document {chunk}" for chunk in range(1, 12)}


def taught(count: int = 60) -> list[Example]:
    found: list[Example] = []
    for number in range(count):
        arms, documents = asked(number)
        found += examples("one", arms, documents=documents, relevant={"document 1"})
    return found


def test_each_question_is_also_asked_without_its_answer() -> None:
    arms, documents = asked(1)
    found = list(examples("one", arms, documents=documents, relevant={"document 1"}))
    best = {(e.curve, e.was_left_out): e.answers for e in found if e.place == 0}
    assert best == {
        (curve, left): not left
        for curve in ("hybrid", "vector", "keyword")
        for left in (False, True)
    }


def test_learnt_chances_tell_answers_from_none_and_keep_the_promise() -> None:
    learnt = learn(taught(), false_answers=0.1)
    arms, _ = asked(1000)
    curve = learnt.curve("hybrid")
    fused = arms.fused(frozenset({"vector", "keyword"}))
    chance = curve.chance(fused.ranking[0].score, fused.as_evidence())
    absent = arms.without({1}).fused(frozenset({"vector", "keyword"}))
    assert chance > 0.8 > 0.2 > curve.chance(absent.ranking[0].score, absent.as_evidence())
    assert learnt.false_answers <= 0.1
    assert learnt.answered > 0.9
    assert learnt.ece < 0.1
    assert sum(each.count for each in learnt.bins) == 120


def test_too_few_questions_teach_nothing() -> None:
    with pytest.raises(ValueError, match="At least 20"):
        learn(taught(5), false_answers=0.1)


@pytest.mark.parametrize("curve", DEFAULTS.curves.values())
def test_a_better_score_never_has_a_lower_chance(curve: Curve) -> None:
    evidence = Evidence(scores=[0.8, 0.5, 0.4], weight=0.5, covered=0.9)
    chances = [curve.chance(score / 10, evidence, score / 10) for score in range(11)]
    assert chances == sorted(chances)
    assert all(0 <= chance <= 1 for chance in chances)


def test_chances_fall() -> None:
    assert falling([0.5, 0.7, 0.2, 0.0]) == [0.5, 0.5, 0.2, 0.001]


@pytest.mark.django_db
def test_what_was_learnt_is_used_until_it_is_forgotten(fake_embedder: FakeEmbedder) -> None:
    from assistant.retrieval import spaces

    reader = make_user()
    make_document(make_collection(readers=[reader]), title="Canteen", text="It opens at noon.")
    calibration.forget()
    before = search("noon", user=reader)
    assert before.threshold == DEFAULTS.threshold
    learnt = learn(taught(), false_answers=0.2)
    calibration.store(learnt, space=spaces.active(), reranker="")
    after = search("noon", user=reader)
    assert after.threshold == learnt.threshold != before.threshold
    kept = calibration.current(spaces.active())
    assert (kept.curves, kept.bins, kept.ece) == (learnt.curves, learnt.bins, learnt.ece)
    calibration.forget()
