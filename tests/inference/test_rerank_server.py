from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from inference.embedding_models import resolve_model
from inference.reranker import HTTPReranker
from inference.serving.batching import Batcher
from inference.serving.embedding_server import EmbeddingService
from inference.serving.reranking import ServedReranker
from inference.serving.shelf import Shelf
from inference.types import EngineError, Vectors


class SharedLetters:
    """Scores a pair by the letters that question and text share."""

    def encode(self, texts: Sequence[Any]) -> Vectors:
        rows = [[len(set(query) & set(text)) / 100] for query, text in texts]
        return np.array(rows, dtype=np.float32)

    def release_memory(self) -> None:
        """Nothing is held."""


def service(*, with_reranker: bool = True) -> EmbeddingService:
    reranker = ServedReranker(Path("/models/cross"), SharedLetters) if with_reranker else None
    if reranker:
        reranker.batcher.start()
    shelf = Shelf(resolve_model(), lambda _: Batcher(SharedLetters))
    return EmbeddingService(shelf, api_key="k", reranker=reranker)


def client_of(served: EmbeddingService) -> HTTPReranker:
    return HTTPReranker(
        "http://rank.test/v1",
        "/models/cross",
        "k",
        async_transport=httpx.ASGITransport(served.app()),
    )


async def test_our_client_and_our_server_agree() -> None:
    served = service()
    assert served.reranker is not None
    scores = await client_of(served).arerank("abc", ["xyz", "abz", "abc"])
    assert scores == pytest.approx([0.0, 0.02, 0.03])
    assert served.reranker.batcher.stats.texts["query"] == 3
    served.reranker.batcher.close()


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"query": "a", "documents": ["b"]}, 401),
        ({"query": "", "documents": ["b"]}, 400),
        ({"query": "a", "documents": []}, 400),
        ({"query": "a", "documents": [1]}, 400),
        ([], 400),
    ],
)
async def test_refusals_say_what_is_wrong(body: object, status: int) -> None:
    served = service()
    assert served.reranker is not None
    transport = httpx.ASGITransport(served.app())
    key = {} if status == 401 else {"Authorization": "Bearer k"}
    async with httpx.AsyncClient(transport=transport, base_url="http://rank.test") as http:
        answer = await http.post("/v1/rerank", json=body, headers=key)
    served.reranker.batcher.close()
    assert answer.status_code == status
    assert answer.json()["error"]["message"]


async def test_a_server_without_a_reranker_says_so() -> None:
    with pytest.raises(EngineError, match="reranker_bad_request"):
        await client_of(service(with_reranker=False)).arerank("a", ["b"])
