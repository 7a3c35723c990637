from __future__ import annotations

import random
from dataclasses import replace

import pytest

from assistant.retrieval import calibration, search
from assistant.retrieval.calibration import DEFAULTS, TRUST, Curve, Evidence, falling, log_odds
from assistant.retrieval.fusion import Arms
from assistant.retrieval.keyword import Matches
from assistant.retrieval.learning import (
    Example,
    errors_by_set,
    examples,
    learn,
    learn_with_reranker,
)
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


def taught(count: int = 60, *, dataset: str = "one", judged: str = "yes") -> list[Example]:
    """Where ``judged`` is "badly", the answers of every second pair of questions are not known."""
    found: list[Example] = []
    for number in range(count):
        arms, documents = asked(number)
        relevant = {"none" if judged == "badly" and number % 4 < 2 else "document 1"}
        found += examples(dataset, arms, documents=documents, relevant=relevant)
    return found


def reranked(count: int = 60, *, knows: bool) -> list[Example]:
    """Questions whose answer both arms have in the third place; the reranker knows it, or none."""
    found: list[Example] = []
    for number in range(count):
        draw = random.Random(2000 + number)
        arms, documents = asked(number)
        relevant = f"document {3 if number % 4 < 2 else 1}"
        odds = {
            chunk: (5.0 if knows and document == relevant else -5.0) + draw.gauss(0, 2)
            for chunk, document in documents.items()
        }
        found += examples("one", arms, documents=documents, relevant={relevant}, reranked=odds)
    return found


def test_a_reranker_that_knows_is_given_weight() -> None:
    found = reranked(knows=True)
    plain = learn(found)
    learnt, helped = learn_with_reranker(found, plain=plain)
    assert helped.reranked > 0.95 > 0.6 > helped.without
    assert learnt.curve("reranked").reranked > 0.3
    assert learnt.curve("hybrid") == plain.curve("hybrid")
    assert learnt.ece < plain.ece + 0.05
    assert learnt.false_answers < plain.false_answers


def test_a_reranker_that_guesses_is_given_none() -> None:
    found = reranked(knows=False)
    plain = learn(found)
    learnt, helped = learn_with_reranker(found, plain=plain)
    assert abs(helped.reranked - helped.without) < 0.1
    assert not learnt.has_use_for_reranker
    assert (learnt.threshold, learnt.bins) == (plain.threshold, plain.bins)


def test_one_of_which_nothing_was_learnt_adds_to_the_curve_in_use() -> None:
    plain = learn(taught())
    curve = plain.curve("reranked")
    assert curve.score == plain.curve("hybrid").score
    assert curve.reranked == TRUST
    assert plain.has_use_for_reranker


def test_a_rerankers_scores_keep_their_order_on_either_scale() -> None:
    for scores in ([0.0, 0.2, 0.9, 1.0], [-3.0, -0.2, 0.1, 0.9, 1.5, 40.0]):
        odds = log_odds(scores)
        assert odds == sorted(odds)
        assert -10 <= odds[0] < odds[-1] <= 10


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


def test_errors_are_told_by_set_for_other_questions_and_other_sets() -> None:
    alone = errors_by_set(taught(), before=DEFAULTS.curve("hybrid"))["one"]
    assert alone.other_questions < min(0.1, alone.before)
    assert alone.other_sets is None
    found = taught() + taught(dataset="two", judged="badly")
    both = errors_by_set(found, before=DEFAULTS.curve("hybrid"))
    assert both["one"].before == alone.before
    assert (both["two"].other_sets or 0) > max(0.15, both["two"].other_questions)
    # Of a set without a known answer nothing can be learnt.
    found = taught() + [replace(e, dataset="three", answers=False) for e in taught()]
    assert errors_by_set(found, before=DEFAULTS.curve("hybrid"))["one"].other_sets is None


def test_too_few_questions_teach_nothing() -> None:
    with pytest.raises(ValueError, match="At least 20"):
        learn(taught(5), false_answers=0.1)


@pytest.mark.parametrize("curve", [*DEFAULTS.curves.values(), DEFAULTS.curve("reranked")])
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
