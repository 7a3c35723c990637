"""How well the arms are put together: our fusion against each arm, ranks and min-max.

    SHARED_DATA=... python -m benchmarks.ranking [--sets ...] [--questions N] [--kept DIR] [--learn]

Fills an empty site with each set (the house's own chunks, MiniLM's vectors, which are kept in
``--kept``), asks up to ``--questions`` judged questions of each through ``search()`` and prints
nDCG@10 of the vector arm, the keyword arm, reciprocal rank fusion (k 60), a convex mix of min-max
scores (0.5) and ours, all from the same candidates. Ends with 1 where ours is more than 0.01 below
the better arm. A set named ``de>en`` asks XQuAD's German questions of its English paragraphs.
The milliseconds are processor time of what Python does beside the arms.

``--learn`` prints the curves and the reliability table that ``calibration.DEFAULTS`` come from.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from statistics import fmean
from time import process_time
from typing import Any

import numpy as np

from benchmarks._database import running_database
from benchmarks._passages import kept_vectors, shared_retrieval
from inference.embedding_models import resolve_model
from inference.fakes import FakeEmbedder
from inference.serving.encoder import SentenceEncoder, load_encoder
from inference.tokens import load_token_counter
from inference.types import EmbeddingSpec, EmbedKind, Vectors
from ingestion.chunking import chunk_document
from ingestion.elements import ChunkDraft
from ingestion.parsers.blocks import lay_out
from ingestion.parsers.plain import parse_text

SETS = (
    *("scifact", "xquad-en", "xquad-de", "xquad-ar", "xquad-zh", "tatqa_dev"),
    *("de>en", "en>de", "en>zh", "zh>en"),
)
ALLOWED_LOSS = 0.01
RRF_K = 60


@dataclass(frozen=True, slots=True)
class JudgedSet:
    """``drafts`` by document; ``questions`` and ``grades`` by question."""

    name: str
    drafts: dict[str, list[ChunkDraft]]
    questions: dict[str, str]
    grades: dict[str, dict[str, int]]
    passages: Vectors


@cache
def _encoder() -> SentenceEncoder:
    return load_encoder(resolve_model())


class KeptEmbedder(FakeEmbedder):
    """MiniLM's vectors of texts that were embedded before; others are embedded when met."""

    def __init__(self, spec: EmbeddingSpec) -> None:
        super().__init__(spec)
        self.known: dict[str, Any] = {}

    def embed(self, texts: Sequence[str], *, kind: EmbedKind) -> Vectors:
        if new := [text for text in texts if text not in self.known]:
            self.known.update(zip(new, _encoder().encode(new), strict=True))
        return np.stack([self.known[text] for text in texts])


def read_set(name: str, *, kept: Path, embedder: KeptEmbedder) -> JudgedSet:
    asked, _, held = name.partition(">")
    corpus = f"xquad-{held}" if held else name
    questions_of = f"xquad-{asked}" if held else name
    root = shared_retrieval()
    from assistant.retrieval.evaluation import read_jsonl, read_judgements

    drafts = {row["_id"]: _drafts(row) for row in read_jsonl(root / corpus / "corpus.jsonl")}
    texts = [draft.embed_text for each in drafts.values() for draft in each]
    rows = list(read_jsonl(root / questions_of / "queries.jsonl"))
    asked_texts = [row["text"] for row in rows]
    vectors = kept_vectors(kept / f"{questions_of}-queries.npy", asked_texts)
    embedder.known.update(zip(asked_texts, vectors, strict=True))
    grades = read_judgements(root / corpus / "qrels.tsv")
    return JudgedSet(
        name=name,
        drafts=drafts,
        questions={row["_id"]: row["text"] for row in rows if row["_id"] in grades},
        grades=grades,
        passages=kept_vectors(kept / f"{corpus}-passages.npy", texts),
    )


def _drafts(row: Mapping[str, Any]) -> list[ChunkDraft]:
    model = resolve_model()
    text = row["text"] or row.get("title", "")
    document = lay_out(parse_text(text.encode()), media_type="text/plain", max_characters=10**8)
    return chunk_document(
        document,
        title=row.get("title") or row["_id"],
        tokens=load_token_counter(model),
        window=model.window,
    )


def fill(judged: JudgedSet) -> tuple[Any, Any]:
    """A collection with the set, and the one person who reads it."""
    from django.db import connection, transaction

    from assistant.documents.models import Collection, Document, DocumentVersion
    from assistant.permissions.models import Grant
    from assistant.permissions.roles import Role
    from assistant.retrieval import index, spaces
    from assistant.users.models import User

    number = User.objects.count()
    reader = User.objects.create_user(f"reader{number}@example.com", name="Reader", password="none")
    collection = Collection.objects.create(name=f"Set {number}")
    Grant.objects.create(collection=collection, user=reader, role=Role.READER)
    space = spaces.ensure_active(resolve_model().spec)
    with transaction.atomic():
        versions = []
        for at, (name, drafts) in enumerate(judged.drafts.items()):
            document = Document.objects.create(collection=collection, title=name, external_id=name)
            version = DocumentVersion.objects.create(
                document=document, number=1, sha256="0" * 64, size=1,
                media_type="text/plain", filename="text.txt", storage_key=f"none/{number}/{at}",
            )  # fmt: skip
            Document.objects.filter(pk=document.pk).update(
                current_version=version, latest_version=version
            )
            index.replace_chunks(version, drafts)
            versions.append(version.pk)
        texts = [draft.embed_text for drafts in judged.drafts.values() for draft in drafts]
        made = dict(zip(texts, judged.passages, strict=True))
        pending = index.chunks_without_vector(versions, space=space, limit=len(texts))
        vectors = [made[chunk.embed_text] for chunk in pending]
        if pending:  # else another set had the same texts
            index.store_vectors(pending, np.stack(vectors), space=space)
    with connection.cursor() as cursor:
        cursor.execute("VACUUM ANALYZE retrieval_chunk")
        cursor.execute("VACUUM ANALYZE retrieval_embedding")
    return reader, collection


def ranked_documents(scores: Mapping[int, float], documents: Mapping[int, str]) -> list[str]:
    order = sorted(scores, key=lambda chunk: (-scores[chunk], chunk))
    return list(dict.fromkeys(documents[chunk] for chunk in order))


def baselines(arms: Any) -> Iterator[tuple[str, dict[int, float]]]:
    """Rankings of the same candidates without our fusion, as scores by chunk."""
    by_vector = {item.chunk_id: item.score for item in arms.vector}
    by_keyword = {item.chunk_id: item.score for item in arms.keyword.ranked}
    yield "vector", by_vector
    yield "keyword", by_keyword
    reciprocal: dict[int, float] = {}
    mixed: dict[int, float] = {}
    for arm in (by_vector, by_keyword):
        low, high = min(arm.values(), default=0.0), max(arm.values(), default=0.0)
        for place, (chunk, score) in enumerate(arm.items(), start=1):
            reciprocal[chunk] = reciprocal.get(chunk, 0.0) + 1 / (RRF_K + place)
            scaled = (score - low) / (high - low) if high > low else 1.0
            mixed[chunk] = mixed.get(chunk, 0.0) + scaled / 2
    yield "rrf", reciprocal
    yield "min-max", mixed


def measure(judged: JudgedSet, *, most: int, learnt: list[Any] | None) -> dict[str, float]:
    """Mean nDCG@10 by method, and milliseconds a question in Python beside the arms."""
    from assistant.retrieval import search, searching
    from assistant.retrieval.evaluation import ndcg
    from assistant.retrieval.learning import examples

    reader, collection = fill(judged)
    found: dict[str, list[float]] = {}
    names = list(judged.questions)
    for name in names[:: max(1, len(names) // most)][:most]:
        query, grades = judged.questions[name], judged.grades[name]
        arms, documents = searching.arms(query, user=reader, collections=[collection.pk])
        for method, scores in baselines(arms):
            ranking = ranked_documents(scores, documents)
            found.setdefault(method, []).append(ndcg(ranking, grades, 10))
        started = process_time()
        arms.fused(frozenset({"vector", "keyword"}))
        found.setdefault("fuse_ms", []).append((process_time() - started) * 1000)
        result = search(query, user=reader, collections=[collection.pk], limit=40, rerank=False)
        ranking = list(dict.fromkeys(p.external_id or "" for p in result.passages))
        found.setdefault("ours", []).append(ndcg(ranking, grades, 10))
        found.setdefault("diversity_ms", []).append(result.timings_ms["diversity"])
        if learnt is not None:
            learnt += examples(judged.name, arms, documents=documents, relevant=set(grades))
    return {method: fmean(values) for method, values in found.items()}


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--sets", default=",".join(SETS))
    options.add_argument("--questions", type=int, default=400)
    options.add_argument("--kept", type=Path, help="folder for vectors; default: made and removed")
    options.add_argument("--learn", action="store_true")
    given = options.parse_args()
    lacking = []
    learnt: list[Any] | None = [] if given.learn else None
    columns = ("vector", "keyword", "rrf", "min-max", "ours", "fuse_ms", "diversity_ms")
    with tempfile.TemporaryDirectory(prefix="knowledge-ranking-") as place:
        Path(place).chmod(0o711)
        with running_database(Path(place) / "site"):
            from assistant import engines

            embedder = KeptEmbedder(resolve_model().spec)
            engines.embedder = lambda: embedder  # type: ignore[assignment]
            print(f"{'set':12}", *(f"{column:>12}" for column in columns), flush=True)
            for name in given.sets.split(","):
                kept = given.kept or Path(place) / "kept"
                judged = read_set(name, kept=kept, embedder=embedder)
                figures = measure(judged, most=given.questions, learnt=learnt)
                print(f"{name:12}", *(f"{figures[c]:12.4f}" for c in columns), flush=True)
                if figures["ours"] < max(figures["vector"], figures["keyword"]) - ALLOWED_LOSS:
                    lacking.append(name)
            if learnt is not None:
                from assistant.retrieval.calibration import DEFAULTS
                from assistant.retrieval.learning import errors_by_set, learn

                calibrated = learn(learnt)
                print(json.dumps(asdict(calibrated), default=str, indent=1))
                for name, errors in errors_by_set(learnt, before=DEFAULTS.curve("hybrid")).items():
                    print(name, errors)
    if lacking:
        sys.exit(f"More than {ALLOWED_LOSS} below the better arm: {', '.join(lacking)}.")


if __name__ == "__main__":
    main()
