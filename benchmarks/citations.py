"""Quotes that are shown as verified, over answers that cite rightly, wrongly and not at all.

    SHARED_DATA=... python -m benchmarks.citations [--answers 300] [--seed 1]
    SHARED_DATA=... python -m benchmarks.citations --thresholds [--claims 150] [--seed 1]

A scripted model writes answers over passages of the shared handbooks, cut by the house's own
chunker. Each answer has one claim of a known kind, and a claim that cites a number that no source
has; it comes in deltas that are cut anywhere. Prints how many of each kind were shown as verified,
and ends with 1 when a verified quote is not in its version word for word, a forged marker is shown
or too much that is wrong counts as verified.

With ``--thresholds`` it prints instead, for rising SUPPORT and SIMILAR, the share of claims that
count as verified or as similar: of SciFact's claims, written by people, over the abstract that
supports or contradicts them or over the nearest other abstract; and of XQuAD's sentences in other
words over their own paragraph or the nearest other one of the same article. Six passages were
read: the one meant and its nearest neighbours. Takes minutes.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import re
import sys
import tempfile
from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest import mock
from uuid import UUID

from benchmarks._site import ROOT

if TYPE_CHECKING:
    from assistant.retrieval import Passage

FOLDERS = ("18f_handbook", "govuk_developer_docs", "sourcegraph_handbook")
FORGED = ("[99]", "[0]", "【57†L1-L3】", "[^88]", "[13, 44]", "[20-22]")
# Of all wrong claims and altered quotes together, and of the rightly cited sentences and quotes.
MOST_FALSE = 0.02
LEAST_TRUE = 0.95
# Thresholds that are tried.
STEPS = tuple(step / 20 for step in range(6, 20))
_SENTENCE = re.compile(r"[A-Z][^.!?\n|#*`\[\]<>\"“”]{40,220}[.]")
_NEGATABLE = re.compile(r"\b(is|are|can|must|should|will|may|do|does|was|were)\b")
_NUMBER = re.compile(r"(?<![\w.,:/-])\d{1,4}(?![\w,:/-]|\.\d)")
_WORD = re.compile(r"\b[a-z]{5,}\b")


@dataclass(frozen=True, slots=True)
class Written:
    """An answer as the model writes it; ``is_right`` says whether its claim is in the source."""

    kind: str
    text: str
    is_right: bool


@dataclass(slots=True)
class Counts:
    """What was shown, by kind; ``broken`` verified quotes are not in their version."""

    shown: Counter[str]
    verified: Counter[str]
    right: frozenset[str]
    forged_sent: int = 0
    forged_shown: int = 0
    broken: int = 0

    def rate(self, *, right: bool, among: Callable[[str], bool] = lambda kind: True) -> float:
        kinds = [k for k in self.shown if (k in self.right) is right and among(k)]
        return sum(self.verified[k] for k in kinds) / max(1, sum(self.shown[k] for k in kinds))


@cache
def handbook_texts(most: int = 240) -> tuple[tuple[str, str], ...]:
    """Titles and texts of pages, evenly from all handbooks; empty where they are absent."""
    shared = Path(os.environ.get("SHARED_DATA") or ROOT.parent / "shared" / "data")
    pages = []
    for folder in FOLDERS:
        found = sorted((shared / "corpora" / folder).rglob("*.md"))
        found = [page for page in found if page.stat().st_size > 1500]
        pages += found[:: max(1, len(found) * len(FOLDERS) // most)]
    return tuple((page.stem, page.read_text("utf-8", errors="replace")) for page in pages)


def passages_of(title: str, text: str, number: int) -> list[tuple[Passage, str]]:
    """Passages of one page, each with the text of its version."""
    from inference.embedding_models import resolve_model
    from inference.tokens import load_token_counter
    from ingestion.chunking import chunk_document
    from ingestion.parsers.blocks import lay_out
    from ingestion.parsers.markup import parse_markdown

    model = resolve_model()
    document = lay_out(
        parse_markdown(text.encode()), media_type="text/markdown", max_characters=10**7
    )
    drafts = chunk_document(
        document, title=title, tokens=load_token_counter(model), window=model.window
    )
    return [
        (
            made_passage(
                number, title, document.text[draft.char_start : draft.char_end], draft.char_start
            ),
            document.text,
        )
        for draft in drafts
    ]


def made_passage(number: int, title: str, text: str, start: int = 0) -> Passage:
    """A passage of document ``number`` that no index brought; ``text`` begins at ``start``."""
    from assistant.documents.locators import Locator
    from assistant.retrieval import Passage

    locator = Locator(char_start=start, char_end=start + len(text))
    return Passage(
        document_id=UUID(int=number),
        external_id=None,
        title=title,
        version_id=UUID(int=number),
        version_number=1,
        version_created_at=datetime(2026, 1, 1, tzinfo=UTC),
        media_type="text/markdown",
        source_url="",
        collection_id=UUID(int=1),
        collection_name="Handbook",
        text=text,
        score=0.5,
        locator=locator,
        parts=(locator,),
    )


def changed_word(sentence: str, words: list[str], choose: random.Random) -> str | None:
    spots = list(_WORD.finditer(sentence))
    held = sentence.lower()
    others = [word for word in words if word not in held]
    if not spots or not others:
        return None
    spot = choose.choice(spots)
    return sentence[: spot.start()] + choose.choice(others) + sentence[spot.end() :]


def changed_number(sentence: str, choose: random.Random) -> str | None:
    spots = list(_NUMBER.finditer(sentence))
    if not spots:
        return None
    spot = choose.choice(spots)
    other = str(int(spot[0]) + choose.choice((1, 2, 5, 10)))
    return sentence[: spot.start()] + other + sentence[spot.end() :]


def negated(sentence: str, choose: random.Random) -> str | None:
    spots = list(_NEGATABLE.finditer(sentence))
    if not spots or re.search(r"\b(not|no|never|without|cannot)\b|n['’]t", sentence):
        return None
    spot = choose.choice(spots[:1])
    return f"{sentence[: spot.end()]} not{sentence[spot.end() :]}"


def shortened(sentence: str) -> str:
    """The same with other function words and in another order, as models say it."""
    text = re.sub(r"\b(the|a|an|also|please|very|really|just)\s", "", sentence)
    head, comma, tail = text.rstrip(".").partition(", ")
    if comma and len(head) > 15 and len(tail) > 15:
        text = f"{tail}, {head[0].lower()}{head[1:]}."
    return f"In short, {text[0].lower()}{text[1:]}"


def answers(
    texts: list[str], number: int, words: list[str], choose: random.Random
) -> Iterator[Written]:
    """What can be written about passage ``number`` of ``texts``, one of each kind."""
    found = _SENTENCE.findall(texts[number - 1])
    if not found:
        return
    sentence = choose.choice(found)
    bare = sentence.rstrip(".")
    others = [at for at, text in enumerate(texts, 1) if sentence not in text]
    yield Written("right: sentence", f"{sentence} [{number}]", True)
    yield Written("right: quotation", f"The handbook says “{bare}” [{number}].", True)
    yield Written("right: shortened", f"{shortened(sentence)} [{number}]", True)
    if others:
        other = choose.choice(others)
        yield Written("wrong: other passage", f"{sentence} [{other}]", False)
        yield Written("wrong: quote of another", f"It says “{bare}” [{other}].", False)
    if changed := changed_word(bare, words, choose):
        yield Written("altered: word in a quotation", f"It says “{changed}” [{number}].", False)
        yield Written("altered: word", f"{changed} [{number}].", False)
    if changed := negated(sentence, choose):
        yield Written("altered: negation", f"{changed} [{number}]", False)
    numbered = [each for each in found if _NUMBER.search(each)]
    if numbered and (changed := changed_number(choose.choice(numbered), choose)):
        yield Written("altered: number", f"{changed} [{number}]", False)
        quoted = changed.rstrip(".")
        yield Written("altered: number in a quotation", f"It says “{quoted}” [{number}].", False)


def measure(count: int, *, seed: int) -> Counts:
    """``count`` answers, evenly of all kinds."""
    from django.contrib.auth.models import AnonymousUser

    from assistant.chat.events import CitationFound, Delta, Event
    from assistant.chat.turn import Turn
    from assistant.chat.writing import Writer

    choose = random.Random(seed)
    pages = list(handbook_texts())
    choose.shuffle(pages)
    words = sorted({w for _, text in pages[:20] for w in _WORD.findall(text)})
    pool: list[tuple[Passage, str]] = []
    for number, (title, text) in enumerate(pages[: max(30, count // 5)], start=2):
        pool += passages_of(title, text, number)
    counts = Counts(Counter(), Counter(), frozenset())
    while sum(counts.shown.values()) < count:
        offered = choose.sample(pool, 6)
        texts = [passage.text for passage, _ in offered]
        written = list(answers(texts, choose.randint(1, 6), words, choose))
        if not written:
            continue
        fewest = min(counts.shown[each.kind] for each in written)
        answer = choose.choice([each for each in written if counts.shown[each.kind] == fewest])
        forged = choose.choice(FORGED)
        whole = f"{answer.text} This is made up {forged}."
        turn = Turn(question="?", user=AnonymousUser(), passages=[p for p, _ in offered])
        writer, at = Writer(turn), 0
        shown: list[Event] = []
        while at < len(whole):
            step = choose.choice((1, 2, 3, 7, 20))
            shown += writer.feed(whole[at : at + step])
            at += step
        shown += writer.finish()
        said = "".join(event.text for event in shown if isinstance(event, Delta))
        cited = [event for event in shown if isinstance(event, CitationFound)]
        for event in cited:
            version = offered[event.number - 1][1]
            place = event.locator
            if event.verified and (
                event.quote not in version
                or version[place["char_start"] : place["char_end"]] != event.quote
            ):
                counts.broken += 1
        counts.shown[answer.kind] += 1
        counts.verified[answer.kind] += any(event.verified for event in cited)
        if answer.is_right:
            counts.right |= {answer.kind}
        counts.forged_sent += 1
        counts.forged_shown += len(cited) != 1 or forged in said or "†" in said
    return counts


@dataclass(frozen=True, slots=True)
class Claim:
    """A sentence that cites the first of the ``passages``, which were all read."""

    kind: str
    text: str
    passages: list[Passage]


@dataclass(slots=True)
class Neighbours:
    """Texts, and which of them share most rare words with another."""

    texts: list[tuple[str, str]]
    _holding: dict[str, set[int]] = field(default_factory=lambda: defaultdict(set))

    def __post_init__(self) -> None:
        from inference.extractive import terms

        for at, (_, text) in enumerate(self.texts):
            for word in terms(text):
                self._holding[word].add(at)

    def of(self, text: str, *, without: set[int], most: int = 5) -> list[int]:
        from inference.extractive import terms

        shared: dict[int, float] = defaultdict(float)
        for word in set(terms(text)):
            holding = self._holding.get(word, set()) - without
            for at in holding:
                shared[at] += 1 / len(holding)
        return sorted(shared, key=lambda at: (-shared[at], at))[:most]

    def passages(self, order: Sequence[int]) -> list[Passage]:
        return [made_passage(at + 1, *self.texts[at]) for at in order]


def claims(most: int, *, seed: int) -> Iterator[Claim]:
    """``most`` each of SciFact and XQuAD (en), over what supports them and over what does not."""
    from assistant.chat.quoting import sentences

    rows = _retrieval_rows("scifact", "corpus.jsonl")
    place = {str(row["_id"]): at for at, row in enumerate(rows)}
    near = Neighbours([(row["title"], row["text"]) for row in rows])
    written = {row["_id"]: row["text"] for row in _retrieval_rows("scifact", "queries.jsonl")}
    answers = [row for row in _retrieval_rows("scifact", "answers.jsonl") if row["evidence"]]
    for answer in random.Random(seed).sample(answers, min(most, len(answers))):
        text = written[answer["query_id"]]
        own = {place[each["doc"]]: each["label"] for each in answer["evidence"]}
        others = near.of(text, without=set(own))
        for at, label in own.items():
            kind = "people: supported" if label == "SUPPORT" else "people: contradicted"
            yield Claim(kind, text, near.passages([at, *others]))
        yield Claim("people: source left out", text, near.passages(others))
    articles: dict[str, list[str]] = defaultdict(list)
    for row in _retrieval_rows("xquad-en", "corpus.jsonl"):
        articles[row["title"]].append(row["text"])
    found = []
    for title, paragraphs in articles.items():
        near = Neighbours([(title, text) for text in paragraphs])
        for at, paragraph in enumerate(paragraphs):
            for span in sentences(paragraph):
                sentence = paragraph[span.start : span.end]
                if 40 <= len(sentence) <= 220:
                    text = shortened(sentence).removeprefix("In short, ")
                    others = near.of(text, without={at})
                    if not others:
                        continue
                    found += [
                        (
                            Claim("reworded: supported", text, near.passages([at, *others])),
                            Claim("reworded: source left out", text, near.passages(others)),
                        )
                    ]
    for pair in random.Random(seed).sample(found, min(most, len(found))):
        yield from pair


def _retrieval_rows(name: str, file: str) -> list[dict[str, Any]]:
    from benchmarks._passages import shared_retrieval

    with (shared_retrieval() / name / file).open(encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


def support_needed(claim: Claim) -> float:
    """The highest of STEPS at which the claim still counts as verified; -1 where at none."""
    from assistant.chat import citing

    def is_beyond(threshold: float) -> bool:
        with mock.patch.object(citing, "SUPPORT", threshold):
            source = claim.passages[0]
            quote = citing.bind(claim.text, source.text, about=source.title)
        return quote is None or not quote.verified

    beyond = bisect_left(STEPS, True, key=is_beyond)
    return STEPS[beyond - 1] if beyond else -1.0


def similarities(found: Sequence[Claim]) -> list[float]:
    """How similar the nearest sentence is to each claim; -1 where it contradicts the claim."""
    from assistant import engines
    from assistant.chat import support
    from benchmarks._passages import kept_vectors
    from benchmarks.abstention import Kept
    from inference.fakes import FakeEmbedder

    def score(claim: Claim) -> float:
        made = asyncio.run(support.support_of(claim.text, [], claim.passages))["sentences"]
        return max((s["score"] if s["basis"] == "similar" else -1.0 for s in made), default=-1.0)

    class Noting(FakeEmbedder):
        def embed(self, texts: Sequence[str], *, kind: Any) -> Any:
            wanted.update(dict.fromkeys(texts))
            return super().embed(texts, kind=kind)

    wanted: dict[str, None] = {}
    with (
        mock.patch.object(support, "SIMILAR", -1.0),
        tempfile.TemporaryDirectory() as place,
    ):
        noting = Noting()
        with mock.patch.object(engines, "embedder", lambda: noting):
            for claim in found:
                score(claim)
        vectors = kept_vectors(Path(place, "sentences.npy"), list(wanted))
        known = Kept(dict(zip(wanted, vectors, strict=True)))
        with mock.patch.object(engines, "embedder", lambda: known):
            return [score(claim) for claim in found]


def print_thresholds(most: int, *, seed: int) -> None:
    from assistant.chat import citing, support

    found = list(claims(most, seed=seed))
    kinds = list(dict.fromkeys(claim.kind for claim in found))
    print(", ".join(f"{sum(c.kind == kind for c in found)} {kind}" for kind in kinds))
    for name, in_use, scores in (
        ("SUPPORT", citing.SUPPORT, [support_needed(claim) for claim in found]),
        ("SIMILAR", support.SIMILAR, similarities(found)),
    ):
        print(f"\n{name:>9}  " + "  ".join(kinds))
        for threshold in STEPS:
            shares = []
            for kind in kinds:
                among = [
                    s >= threshold for s, c in zip(scores, found, strict=True) if c.kind == kind
                ]
                shares.append(f"{sum(among) / len(among):{len(kind)}.3f}")
            print(f"{threshold:9.2f}  " + "  ".join(shares) + " <- in use" * (threshold == in_use))


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--answers", type=int, default=300)
    options.add_argument("--seed", type=int, default=1)
    options.add_argument("--thresholds", action="store_true")
    options.add_argument("--claims", type=int, default=150)
    given = options.parse_args()
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "assistant.settings")
    os.environ.setdefault("SECRET_KEY", "only-for-benchmarks-" + "0123456789abcdef" * 2)
    import django

    django.setup()
    if not handbook_texts():
        raise SystemExit("No handbooks: set SHARED_DATA.")
    if given.thresholds:
        print_thresholds(given.claims, seed=given.seed)
        return
    counts = measure(given.answers, seed=given.seed)
    for kind in sorted(counts.shown):
        print(f"{kind:32} {counts.verified[kind]:4} of {counts.shown[kind]:4} shown as verified")
    false = counts.rate(right=False)
    true = counts.rate(right=True, among=lambda kind: "shortened" not in kind)
    print(f"verified quotes that are not in their version: {counts.broken}")
    print(f"forged markers shown: {counts.forged_shown} of {counts.forged_sent}")
    print(f"wrong or altered, but verified: {false:.3f}; right and verified: {true:.3f}")
    if counts.broken or counts.forged_shown or false > MOST_FALSE or true < LEAST_TRUE:
        sys.exit("Not good enough.")


if __name__ == "__main__":
    main()
