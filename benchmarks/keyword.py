"""The keyword arm alone against bm25s, on judged questions.

    SHARED_DATA=... python -m benchmarks.keyword [--sets scifact,xquad-en,...] [--folder DIR]

Fills an empty site with the texts of each set (title and text, cut into chunks of at most
``CHUNK`` characters at sentence ends; a document counts by its best chunk), asks every judged
question through ``keyword.best_matches`` and prints nDCG@10 beside that of bm25s on the whole
documents (Lucene's formula, k1 1.2, b 0.75): English with Snowball's stemmer and English stop
words, pairs of characters for Chinese, Japanese and Thai, plain words for the rest, which is how
the reference figures were made. Ends with 1 where a set is more than 0.01 below bm25s. Folders
of the same layout (``corpus.jsonl``, ``queries.jsonl``, ``qrels.tsv``) are other sets.
"""

from __future__ import annotations

import argparse
import json
import logging
import math
import re
import sys
import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any
from uuid import UUID

import bm25s
import Stemmer

from benchmarks._database import running_database
from benchmarks._passages import shared_retrieval

SETS = ("scifact", "xquad-en", "xquad-de", "xquad-ar", "xquad-zh", "tatqa_dev")
CHUNK = 4_000
DEPTH = 200
ALLOWED_LOSS = 0.01


@dataclass(frozen=True, slots=True)
class JudgedSet:
    """``documents`` and ``questions`` by id; ``grades[question][document]``."""

    documents: dict[str, tuple[str, str]]
    questions: dict[str, str]
    grades: dict[str, dict[str, int]]


def read_set(folder: Path) -> JudgedSet:
    grades: dict[str, dict[str, int]] = defaultdict(dict)
    for line in (folder / "qrels.tsv").read_text(encoding="utf-8").splitlines():
        question, document, grade = line.split("\t")
        if grade.isdigit() and int(grade) > 0:
            grades[question][document] = int(grade)
    documents = {
        row["_id"]: (row.get("title") or "", row["text"]) for row in _rows(folder / "corpus.jsonl")
    }
    questions = {row["_id"]: row["text"] for row in _rows(folder / "queries.jsonl")}
    return JudgedSet(documents, {k: v for k, v in questions.items() if k in grades}, grades)


def _rows(path: Path) -> Iterator[dict[str, Any]]:
    with path.open(encoding="utf-8") as lines:
        yield from (json.loads(line) for line in lines if line.strip())


def ndcg(ranking: Sequence[str], grades: dict[str, int], *, depth: int = 10) -> float:
    gained: float = sum(
        (2 ** grades.get(document, 0) - 1) / math.log2(place + 2)
        for place, document in enumerate(ranking[:depth])
    )
    best = sorted(grades.values(), reverse=True)[:depth]
    ideal: float = sum((2**g - 1) / math.log2(place + 2) for place, g in enumerate(best))
    return gained / ideal


def mean_ndcg(judged: JudgedSet, rank: Callable[[str], Sequence[str]]) -> float:
    total = sum(ndcg(rank(text), judged.grades[key]) for key, text in judged.questions.items())
    return total / len(judged.questions)


def reference(judged: JudgedSet, language: str) -> Callable[[str], Sequence[str]]:
    """bm25s over whole documents."""
    tokenizer = _reference_tokens(language)
    names = list(judged.documents)
    texts = [tokenizer(f"{title}\n{text}") for title, text in judged.documents.values()]
    index = bm25s.BM25(method="lucene", k1=1.2, b=0.75)
    index.index(texts, show_progress=False)

    def rank(question: str) -> Sequence[str]:
        found, _ = index.retrieve([tokenizer(question)], k=min(10, len(names)), show_progress=False)
        return [names[at] for at in found[0]]

    return rank


def _reference_tokens(language: str) -> Callable[[str], list[str]]:
    if language in ("zh", "ja", "th"):
        return lambda text: [
            pair for run in re.findall(r"\w+", text.lower()) for pair in _pairs(run)
        ]
    if language != "en":
        return lambda text: re.findall(r"\w\w+", text.lower())
    stemmer = Stemmer.Stemmer("english")
    stop = set(bm25s.stopwords.STOPWORDS_EN)
    return lambda text: stemmer.stemWords(
        [word for word in re.findall(r"\w\w+", text.lower()) if word not in stop]
    )


def _pairs(run: str) -> list[str]:
    return [run] if run.isascii() else [run[at : at + 2] for at in range(max(len(run) - 1, 1))]


def _ours(judged: JudgedSet) -> Callable[[str], Sequence[str]]:
    """Fills a collection that only its own reader sees, by the steps that ingestion takes."""
    from assistant.retrieval import keyword
    from assistant.retrieval.models import Chunk
    from assistant.retrieval.scope import scope_of

    reader, versions = _fill(judged)
    scope = scope_of(reader)
    place = dict(Chunk.objects.filter(version__in=list(versions)).values_list("pk", "version_id"))

    def rank(question: str) -> Sequence[str]:
        found = keyword.best_matches(question, scope=scope, limit=DEPTH).ranked
        return list(dict.fromkeys(versions[place[each.chunk_id]] for each in found))

    return rank


def _fill(judged: JudgedSet) -> tuple[Any, dict[UUID, str]]:
    from django.db import connection, transaction

    from assistant.documents.models import Collection, Document, DocumentVersion
    from assistant.permissions.models import Grant
    from assistant.permissions.roles import Role
    from assistant.retrieval import index
    from assistant.users.models import User
    from ingestion.elements import ChunkDraft

    number = User.objects.count()
    reader = User.objects.create_user(f"reader{number}@example.com", name="Reader", password="none")
    collection = Collection.objects.create(name=f"Set {number}")
    Grant.objects.create(collection=collection, user=reader, role=Role.READER)
    versions: dict[UUID, str] = {}
    with transaction.atomic():
        for at, (name, (title, text)) in enumerate(judged.documents.items()):
            document = Document.objects.create(collection=collection, title=title[:500] or name)
            version = DocumentVersion.objects.create(
                document=document, number=1, sha256="0" * 64, size=len(text),
                media_type="text/plain", filename="text.txt", storage_key=f"none/{number}/{at}",
            )  # fmt: skip
            Document.objects.filter(pk=document.pk).update(
                current_version=version, latest_version=version
            )
            versions[version.pk] = name
            drafts: list[ChunkDraft] = []
            start = 0
            for piece in _pieces(text):
                drafts.append(
                    ChunkDraft(
                        ordinal=len(drafts),
                        text=piece,
                        embed_text=f"{title}\n{piece}" if title else piece,
                        char_start=start,
                        char_end=start + len(piece),
                    )
                )
                start += len(piece)
            index.replace_chunks(version, drafts)
    with connection.cursor() as cursor:
        cursor.execute("VACUUM ANALYZE retrieval_chunk")
    return reader, versions


def _pieces(text: str) -> Iterator[str]:
    while len(text) > CHUNK:
        end = max(text.rfind(sign, CHUNK // 2, CHUNK) for sign in (". ", "\n", "。")) + 1 or CHUNK
        yield text[:end]
        text = text[end:]
    yield text


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--sets", default=",".join(SETS))
    options.add_argument("--folder", type=Path, help="where the sets are; else SHARED_DATA")
    given = options.parse_args()
    logging.getLogger("bm25s").setLevel(logging.WARNING)
    lacking = []
    with tempfile.TemporaryDirectory(prefix="knowledge-keyword-") as place:
        Path(place).chmod(0o711)
        with running_database(Path(place)):
            print("set                 ours   bm25s   ours - bm25s   ms a question")
            for name in given.sets.split(","):
                judged = read_set((given.folder or shared_retrieval()) / name)
                language = name.rpartition("-")[2] if "-" in name else "en"
                theirs = mean_ndcg(judged, reference(judged, language))
                rank = _ours(judged)
                started = perf_counter()
                ours = mean_ndcg(judged, rank)
                took = (perf_counter() - started) / len(judged.questions) * 1000
                print(
                    f"{name:18} {ours:6.3f}  {theirs:6.3f}   {ours - theirs:+12.3f}   {took:13.1f}",
                    flush=True,
                )
                if ours < theirs - ALLOWED_LOSS:
                    lacking.append(name)
    if lacking:
        sys.exit(f"More than {ALLOWED_LOSS} below bm25s: {', '.join(lacking)}.")


if __name__ == "__main__":
    main()
