"""Which tokens of the long documents come back for a question: our chunks and search, and others'.

    SHARED_DATA=... python -m benchmarks.chunking [--questions N] [--kept DIR]

The method and data are Chroma's ("Evaluating Chunking Strategies for Retrieval", Smith and
Troynikov 2024): 5 documents, 472 questions with the exact spans that answer. Recall is the share of
those spans that came back, precision the share of what came back that lies in them, IoU the share
of the overlap in the union; here by characters instead of tokens, averaged over questions.

The recursive splitter is theirs, as in LangChain: cut at the first of blank line, line, sentence
end, space that leaves pieces small enough, at most 400 or 200 tokens, no overlap, best 5 pieces by
MiniLM's vectors. Ours gets the same number of tokens for a question as the recursive splitter of
400 tokens used on average: passages come in the order of ``search()``, joined, until they are used
up.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks._database import running_database
from benchmarks._passages import kept_vectors, shared_retrieval
from benchmarks.ranking import JudgedSet, KeptEmbedder, fill, read_set
from inference.embedding_models import resolve_model
from inference.tokens import TokenizerCounter, load_token_counter

if TYPE_CHECKING:
    from assistant.retrieval import Passage

SET = "chroma_chunking_eval"
BEST = 5
SEPARATORS = ("\n\n", "\n", ".", "?", "!", " ", "")

Span = tuple[int, int]
Piece = tuple[str, Span]
"""Document and place in it."""


@dataclass(frozen=True, slots=True)
class Question:
    key: str
    text: str
    document: str
    spans: list[Span]


def questions() -> list[Question]:
    folder = shared_retrieval() / SET
    texts = {row["_id"]: row["text"] for row in _rows(folder / "queries.jsonl")}
    return [
        Question(
            row["query_id"],
            texts[row["query_id"]],
            row["evidence"][0],
            [(start, end) for start, end in row["spans"]],
        )
        for row in _rows(folder / "answers.jsonl")
    ]


def _rows(path: Path) -> Iterator[dict[str, Any]]:
    with path.open(encoding="utf-8") as lines:
        yield from (json.loads(line) for line in lines if line.strip())


def recursive(text: str, count: Callable[[str], int], limit: int) -> list[Span]:
    """LangChain's RecursiveCharacterTextSplitter with kept separators and no overlap."""
    return list(_merged(list(_split(text, 0, count, limit, 0)), text, count, limit))


def _split(
    text: str, offset: int, count: Callable[[str], int], limit: int, level: int
) -> Iterator[Span]:
    if count(text) <= limit or level == len(SEPARATORS) - 1:
        yield offset, offset + len(text)
        return
    separator = SEPARATORS[level]
    start = 0
    while start < len(text):
        at = text.find(separator, start)
        end = len(text) if at < 0 else at + len(separator)
        yield from _split(text[start:end], offset + start, count, limit, level + 1)
        start = end


def _merged(
    spans: Sequence[Span], text: str, count: Callable[[str], int], limit: int
) -> Iterator[Span]:
    begin, end, size = 0, 0, 0
    for start, stop in spans:
        tokens = count(text[start:stop])
        if end > begin and size + tokens > limit:
            yield begin, end
            begin, size = start, 0
        end, size = stop, size + tokens
    if end > begin:
        yield begin, end


def figures(found: Sequence[Piece], question: Question) -> tuple[float, float, float]:
    """Recall, precision and IoU by characters; what came back twice counts once."""
    got = _covered(span for document, span in found if document == question.document)
    elsewhere = sum(
        end - start for document, (start, end) in found if document != question.document
    )
    wanted = _covered(question.spans)
    both = len(got & wanted)
    total = len(got) + elsewhere
    return both / len(wanted), both / max(1, total), both / max(1, total + len(wanted) - both)


def _covered(spans: Iterator[Span] | Sequence[Span]) -> set[int]:
    return {at for start, end in spans for at in range(start, end)}


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--questions", type=int, default=472)
    options.add_argument("--kept", type=Path, help="folder for vectors; default: made and removed")
    given = options.parse_args()
    counter = load_token_counter(resolve_model())
    assert isinstance(counter, TokenizerCounter)
    asked = questions()
    asked = asked[:: max(1, len(asked) // given.questions)][: given.questions]
    texts = {row["_id"]: row["text"] for row in _rows(shared_retrieval() / SET / "corpus.jsonl")}
    with tempfile.TemporaryDirectory(prefix="knowledge-chunking-") as place:
        Path(place).chmod(0o711)
        kept = given.kept or Path(place) / "kept"
        print(f"{'':34} {'recall':>8} {'precision':>10} {'IoU':>8} {'tokens':>8}")
        with running_database(Path(place) / "site"):
            embedder = KeptEmbedder(resolve_model().spec)
            judged = read_set(SET, kept=kept, embedder=embedder)
            budgets = {}
            for limit in (400, 200):
                budgets[limit] = _baseline(asked, texts, counter, limit, kept, embedder)
            ok = _ours(judged, asked, texts, counter, budgets, embedder)
    if not ok:
        sys.exit("Ours does not beat the recursive splitter at the same budget.")


def _baseline(
    asked: Sequence[Question],
    texts: dict[str, str],
    counter: TokenizerCounter,
    limit: int,
    kept: Path,
    embedder: KeptEmbedder,
) -> tuple[float, float, float]:
    """Recall, precision and mean tokens of the recursive splitter with vectors alone."""
    pieces: list[Piece] = [
        (name, span)
        for name, text in texts.items()
        for span in recursive(text, counter.count, limit)
    ]
    cut = [texts[name][start:end] for name, (start, end) in pieces]
    vectors = kept_vectors(kept / f"{SET}-recursive-{limit}.npy", cut)
    rows, tokens = [], []
    for question in asked:
        query = embedder.embed([question.text], kind="query")[0]
        best = np.argsort(-(vectors @ query), kind="stable")[:BEST]
        rows.append(figures([pieces[at] for at in best], question))
        tokens.append(sum(counter.count(cut[at]) for at in best))
    recall, precision, iou = (fmean(each) for each in zip(*rows, strict=True))
    used = fmean(tokens)
    _print(f"recursive splitter, {limit} tokens, best {BEST}", recall, precision, iou, used)
    return recall, precision, used


def _ours(
    judged: JudgedSet,
    asked: Sequence[Question],
    texts: dict[str, str],
    counter: TokenizerCounter,
    budgets: dict[int, tuple[float, float, float]],
    embedder: KeptEmbedder,
) -> bool:
    from assistant import engines
    from assistant.retrieval import search

    engines.embedder = lambda: embedder  # type: ignore[assignment]
    reader, collection = fill(judged)
    won = True
    for recall, precision, budget in budgets.values():
        rows, tokens = [], []
        for question in asked:
            found = search(
                question.text,
                user=reader,
                collections=[collection.pk],
                limit=40,
                budget=int(budget),
                rerank=False,
            ).passages
            places = [_place(passage, texts) for passage in found]
            rows.append(figures(places, question))
            tokens.append(sum(counter.count(passage.text) for passage in found))
        ours, share, overlap = (fmean(each) for each in zip(*rows, strict=True))
        _print(f"ours, within {budget:.0f} tokens", ours, share, overlap, fmean(tokens))
        won &= ours > recall and share > precision
    return won


def _place(passage: Passage, texts: dict[str, str]) -> Piece:
    """Where a passage stands in the original, of which parsing changes white space and bullets.

    Found by its first and its last letters; the search begins a little before where it should be.
    """
    name = passage.external_id or ""
    letters, places = _letters(texts[name])
    own = "".join(passage.text.split())
    about = passage.locator.char_start * len(letters) // len(texts[name])
    start = _find(letters, own, max(0, about - _SLACK), first=True)
    end = _find(letters, own, start + max(0, len(own) - 2 * _KEY), first=False)
    return name, (places[start], places[min(end, len(places)) - 1] + 1)


_SLACK = 6_000
_KEY = 40


def _find(letters: str, own: str, start: int, *, first: bool) -> int:
    for length in (_KEY, _KEY // 2, _KEY // 4):
        key = own[:length] if first else own[-length:]
        at = letters.find(key, start)
        if at >= 0:
            return at if first else at + len(key)
    return start if first else start + len(own)


@cache
def _letters(text: str) -> tuple[str, list[int]]:
    """The text without white space, and where each character of it stood."""
    places = [at for at, character in enumerate(text) if not character.isspace()]
    return "".join(text[at] for at in places), places


def _print(label: str, recall: float, precision: float, iou: float, tokens: float) -> None:
    print(f"{label:34} {recall:8.3f} {precision:10.3f} {iou:8.3f} {tokens:8.0f}", flush=True)


if __name__ == "__main__":
    main()
