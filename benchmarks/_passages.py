"""Real passages and their real vectors, embedded once and kept in a folder.

The passages are those of the retrieval sets below SHARED_DATA (default: ``shared/data`` beside the
repository), cut by the house's own chunker; the vectors are all-MiniLM-L6-v2's, in bf16 where the
processor has it, as the embedding server makes them.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks._site import ROOT
from inference.embedding_models import resolve_model
from inference.serving.encoder import load_encoder
from inference.tokens import TokenizerCounter, load_token_counter
from inference.types import Vectors
from ingestion.chunking import chunk_document
from ingestion.parsers.blocks import lay_out
from ingestion.parsers.plain import parse_text

SETS = ("xquad-en", "tatqa_dev", "chroma_chunking_eval", "scifact")
_BATCH_TOKENS = 8192


@dataclass(frozen=True, slots=True)
class Passages:
    """``texts[i]`` was embedded behind its title as ``vectors[i]``; ``queries`` are questions."""

    texts: list[str]
    vectors: Vectors
    queries: list[str]
    query_vectors: Vectors


def shared_retrieval() -> Path:
    """Raises SystemExit where the retrieval sets are not."""
    shared = Path(os.environ.get("SHARED_DATA") or ROOT.parent / "shared" / "data")
    folder = shared / "retrieval"
    if not folder.is_dir():
        raise SystemExit(f"No retrieval sets in {folder}: set SHARED_DATA.")
    return folder


def real_passages(folder: Path, *, sets: Sequence[str] = SETS) -> Passages:
    """All passages and questions of ``sets``; vectors are read from ``folder`` or made there."""
    texts: list[str] = []
    queries: list[str] = []
    vectors: list[Vectors] = []
    query_vectors: list[Vectors] = []
    for name in sets:
        drafts = list(_drafts(shared_retrieval() / name / "corpus.jsonl"))
        asked = [row["text"] for row in _rows(shared_retrieval() / name / "queries.jsonl")]
        texts += [text for text, _ in drafts]
        queries += asked
        vectors.append(
            kept_vectors(folder / f"{name}-passages.npy", [whole for _, whole in drafts])
        )
        query_vectors.append(kept_vectors(folder / f"{name}-queries.npy", asked))
    return Passages(texts, np.concatenate(vectors), queries, np.concatenate(query_vectors))


def _rows(path: Path) -> Iterator[dict[str, Any]]:
    with path.open(encoding="utf-8") as lines:
        yield from (json.loads(line) for line in lines if line.strip())


def _drafts(path: Path) -> Iterator[tuple[str, str]]:
    """Text of each chunk, and the text that is embedded for it."""
    model = resolve_model()
    counter = load_token_counter(model)
    for row in _rows(path):
        text = row["text"] or row.get("title", "")
        document = lay_out(parse_text(text.encode()), media_type="text/plain", max_characters=10**8)
        title = row.get("title") or row["_id"]
        for draft in chunk_document(document, title=title, tokens=counter, window=model.window):
            yield draft.text, draft.embed_text


def kept_vectors(file: Path, texts: list[str]) -> Vectors:
    """Vectors of shape (len(texts), dimension), from ``file`` when it has as many."""
    if file.is_file():
        kept: Vectors = np.load(file)
        if len(kept) == len(texts):
            return kept
    vectors = _embed(texts)
    file.parent.mkdir(parents=True, exist_ok=True)
    np.save(file, vectors)
    return vectors


def _embed(texts: list[str]) -> Vectors:
    model = resolve_model()
    counter = load_token_counter(model)
    assert isinstance(counter, TokenizerCounter)
    encoder = load_encoder(model, threads=os.cpu_count())
    lengths = counter.count_many(texts)
    order = np.argsort(lengths)[::-1]
    vectors = np.zeros((len(texts), model.dimension), dtype=np.float32)
    start = 0
    while start < len(order):
        width = min(model.window, lengths[order[start]] + 2)
        batch = order[start : start + max(1, min(64, _BATCH_TOKENS // width))]
        vectors[batch] = encoder.encode([texts[at] for at in batch])
        start += len(batch)
    return vectors
