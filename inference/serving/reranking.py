"""A cross-encoder beside the embedding model, behind the rerank API of Cohere, Jina and vLLM.

It reads question and text together, which finds more than comparing two vectors, and costs a pass
through the model for every text. Importing this module is cheap; ``load_cross_encoder`` imports
torch.
"""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any, Final

import numpy as np

from inference.serving.batching import BatchEncoder, Batcher
from inference.types import Vectors

logger = logging.getLogger(__name__)

MAX_DOCUMENTS: Final = 1000
_MAX_TOKENS: Final = 512
_CHARACTERS_A_TOKEN: Final = 3


class PairEncoder:
    """Pairs of question and text to scores between 0 and 1, shape (len(pairs), 1)."""

    def __init__(self, model: Any, *, threads: int | None) -> None:
        self._model = model
        self._threads = threads
        self._lock = threading.Lock()  # fast tokenizers may not be borrowed twice

    def encode(self, texts: Sequence[Any]) -> Vectors:
        import torch

        with self._lock:
            if self._threads:
                torch.set_num_threads(self._threads)
            scores = self._model.predict(
                [tuple(pair) for pair in texts],
                batch_size=len(texts),
                activation_fn=torch.nn.Sigmoid(),
                show_progress_bar=False,
            )
        return np.asarray(scores, dtype=np.float32).reshape(len(texts), 1)

    def release_memory(self) -> None:
        """Nothing is kept between batches."""


def load_cross_encoder(folder: Path, *, threads: int | None = None) -> PairEncoder:
    """Raises what sentence-transformers raises for a folder without a model of one score."""
    from sentence_transformers import CrossEncoder

    model = CrossEncoder(str(folder), max_length=_MAX_TOKENS, local_files_only=True)
    return PairEncoder(model, threads=threads)


class ServedReranker:
    """One cross-encoder with the thread that runs it; ``name`` is that of its folder."""

    def __init__(self, folder: Path, load: Callable[[], BatchEncoder]) -> None:
        self.name = str(folder)
        self.batcher = Batcher(
            load, batch_texts=32, max_queued={"query": 4 * MAX_DOCUMENTS, "bulk": 1}
        )

    def submit(self, query: str, documents: Sequence[str]) -> Future[Vectors]:
        """Raises QueueFullError or ClosedError."""
        pairs = [(query, document) for document in documents]
        lengths = [
            min(_MAX_TOKENS, (len(query) + len(document)) // _CHARACTERS_A_TOKEN + 3)
            for document in documents
        ]
        return self.batcher.submit(pairs, lengths, lane="query")


def read_request(body: bytes) -> tuple[str, list[str]]:
    """Query and documents of a rerank request. Raises ValueError with words for the client."""
    try:
        data = json.loads(body)
    except ValueError as error:
        raise ValueError(f"The body is not JSON: {error}") from None
    query = data.get("query") if isinstance(data, dict) else None
    documents = data.get("documents") if isinstance(data, dict) else None
    if not isinstance(query, str) or not query.strip():
        raise ValueError("query must be a text.")
    if not isinstance(documents, list) or not all(isinstance(each, str) for each in documents):
        raise ValueError("documents must be a list of texts.")
    if not 0 < len(documents) <= MAX_DOCUMENTS:
        raise ValueError(f"documents must hold 1 to {MAX_DOCUMENTS} texts.")
    return query, documents


def answer(name: str, scores: Vectors) -> dict[str, Any]:
    """``scores`` of shape (documents, 1) as results, best first."""
    order = np.argsort(-scores[:, 0], kind="stable")
    results = [{"index": int(at), "relevance_score": float(scores[at, 0])} for at in order]
    return {"model": name, "results": results}
