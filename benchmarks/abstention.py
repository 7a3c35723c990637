"""How often the extractive engine answers what it can, and what it cannot.

    SHARED_DATA=... python -m benchmarks.abstention [--questions 400] [--kept DIR]

XQuAD (en): each question is asked of an index with its paragraph, of one without that paragraph,
whose neighbours are near misses, and of one without its whole article. The engine gets the five
passages that are nearest by vector. Prints, for rising thresholds of its score, the share of the
questions answered whose paragraph is there, and the false answers of both kinds; then how many of
the answered quote what was asked, and the same of two questions put together ("… and when did …"),
over the five passages nearest to each. Ends with 1 when at 90 % answered 10 % or more get a false
answer of either kind; near misses are the harder half.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import tempfile
from collections.abc import Container, Iterable, Sequence
from pathlib import Path

import numpy as np

from benchmarks._passages import kept_vectors, shared_retrieval
from inference.embedding_models import resolve_model
from inference.extractive import ABSTAIN_BELOW, ExtractiveLLM, candidates
from inference.fakes import FakeEmbedder
from inference.sentences import split
from inference.serving.encoder import load_encoder
from inference.types import EmbedKind, SourceText, Vectors

PASSAGES = 5
ANSWERED = 0.9
MOST_FALSE = 0.1


class Kept(FakeEmbedder):
    """MiniLM's vectors, most of them known beforehand."""

    def __init__(self, known: dict[str, Vectors]) -> None:
        super().__init__(resolve_model().spec)
        self._known = known
        self._encoder = load_encoder(resolve_model())

    def embed(self, texts: Sequence[str], *, kind: EmbedKind) -> Vectors:
        new = [text for text in texts if text not in self._known]
        if new:
            self._known.update(zip(new, self._encoder.encode(new), strict=True))
        return np.stack([self._known[text] for text in texts])


def _rows(name: str) -> list[dict[str, object]]:
    path = shared_retrieval() / "xquad-en" / name
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def measure(most: int, kept: Path) -> dict[str, np.ndarray]:
    """Best scores by question: ``kept`` and ``right`` (1 or 0), ``far`` and ``near``."""
    corpus = {str(row["_id"]): row for row in _rows("corpus.jsonl")}
    answers = {str(row["query_id"]): row for row in _rows("answers.jsonl")}
    rows = [row for row in _rows("queries.jsonl") if str(row["_id"]) in answers]
    rows = rows[:: max(1, len(rows) // most)][:most]
    documents = list(corpus.values())
    texts = [f"{d['title']}\n{d['text']}" for d in documents]
    bodies = [str(document["text"]) for document in documents]
    pieces = sorted({text[piece.start : piece.end] for text in bodies for piece in split(text)})
    asked = [str(row["text"]) for row in rows]
    passages = kept_vectors(kept / "xquad-en-whole.npy", texts)
    sentences = kept_vectors(kept / "xquad-en-sentences.npy", pieces)
    queries = kept_vectors(kept / f"xquad-en-asked-{len(asked)}.npy", asked)
    engine = ExtractiveLLM(Kept(dict(zip([*pieces, *asked], [*sentences, *queries], strict=True))))

    def nearest(query: int, left_out: Container[int] = ()) -> list[int]:
        order = np.argsort(-(passages @ queries[query]))
        return [int(at) for at in order if at not in left_out][:PASSAGES]

    def sources_of(order: Iterable[int]) -> list[SourceText]:
        return [
            SourceText(n, str(documents[at]["title"]), str(documents[at]["text"]))
            for n, at in enumerate(order, start=1)
        ]

    def accepted(query: int) -> list[str]:
        answer = answers[str(rows[query]["_id"])]
        return [str(each).lower() for each in answer["answers"]]  # type: ignore[attr-defined]

    def best(query: int, left_out: set[int]) -> tuple[float, str]:
        sources = sources_of(nearest(query, left_out))
        found = candidates(sources)
        scores = asyncio.run(engine.scores(asked[query], found))
        quotes = asyncio.run(engine.quotes(asked[query], sources))
        return float(scores.max()), " ".join(quote.text for quote in quotes).lower()

    result: dict[str, list[float]] = {"kept": [], "right": [], "far": [], "near": []}
    place = {name: at for at, name in enumerate(corpus)}
    for number, row in enumerate(rows):
        answer = answers[str(row["_id"])]
        gold = {place[str(each)] for each in answer["evidence"]}  # type: ignore[attr-defined]
        title = documents[next(iter(gold))]["title"]
        article = {at for at, each in enumerate(documents) if each["title"] == title}
        score, said = best(number, set())
        result["kept"].append(score)
        result["right"].append(any(each in said for each in accepted(number)))
        result["far"].append(best(number, article)[0])
        result["near"].append(best(number, gold)[0])
    result |= {"halves": [], "beside": []}
    for one in range(len(rows) // 2):
        other = one + len(rows) // 2
        sources = sources_of(dict.fromkeys([*nearest(one), *nearest(other)]))
        both = f"{asked[one].rstrip('? ')} and {asked[other][0].lower()}{asked[other][1:]}"
        quotes = [quote.text.lower() for quote in asyncio.run(engine.quotes(both, sources))]
        halves = [accepted(one), accepted(other)]
        result["halves"] += [
            any(each in said for said in quotes for each in half) for half in halves
        ]
        result["beside"] += [
            not any(each in said for half in halves for each in half) for said in quotes
        ]
    return {name: np.array(values) for name, values in result.items()}


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--questions", type=int, default=400)
    options.add_argument("--kept", type=Path, help="folder for vectors; default: made and removed")
    given = options.parse_args()
    with tempfile.TemporaryDirectory() as place:
        found = measure(given.questions, given.kept or Path(place))
    kept, far, near = found["kept"], found["far"], found["near"]
    at_ninety = float(np.quantile(kept, 1 - ANSWERED))
    print(" threshold  answered  false: article out  false: paragraph out")
    for threshold in sorted({*np.arange(0.3, 0.8, 0.05).round(2), ABSTAIN_BELOW, at_ninety}):
        named = " <- in use" if threshold == ABSTAIN_BELOW else ""
        named += " <- 90 % answered" if threshold == at_ninety else ""
        print(
            f"{threshold:10.3f} {np.mean(kept >= threshold):9.3f} {np.mean(far >= threshold):19.3f}"
            f" {np.mean(near >= threshold):21.3f}{named}"
        )
    print(f"the quotes hold the answer in {found['right'].mean():.3f} of all questions")
    print(
        f"of two questions in one they hold {found['halves'].mean():.3f} of the answers;"
        f" {found['beside'].mean():.3f} of the quotes hold none"
    )
    if max(np.mean(far >= at_ninety), np.mean(near >= at_ninety)) >= MOST_FALSE:
        sys.exit("Too many false answers.")


if __name__ == "__main__":
    main()
