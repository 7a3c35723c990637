from __future__ import annotations

import json

import httpx
import pytest

from inference.reranker import HTTPReranker
from inference.types import EngineError

TEXTS = ["a", "bb", "ccc"]


def reranker(answer: object, status: int = 200) -> HTTPReranker:
    transport = httpx.MockTransport(lambda _: httpx.Response(status, json=answer))
    return HTTPReranker("http://rank.test/v1", "m", "k", transport=transport)


@pytest.mark.parametrize("shape", ["cohere", "tei"])
def test_scores_come_back_in_the_order_of_the_texts(shape: str) -> None:
    ranked = [(2, 0.9), (0, 0.5), (1, -1.0)]
    if shape == "cohere":
        body: object = {"results": [{"index": i, "relevance_score": s} for i, s in ranked]}
    else:
        body = [{"index": i, "score": s} for i, s in ranked]
    assert reranker(body).rerank("q", TEXTS) == [0.5, -1.0, 0.9]


def test_long_lists_are_sent_in_parts() -> None:
    sent: list[list[str]] = []

    def handler(request: httpx.Request) -> httpx.Response:
        texts = json.loads(request.content)["documents"]
        sent.append(texts)
        rows = [{"index": i, "relevance_score": len(t)} for i, t in enumerate(texts)]
        return httpx.Response(200, json={"results": rows})

    engine = HTTPReranker(
        "http://rank.test/v1", "m", batch_texts=2, transport=httpx.MockTransport(handler)
    )
    assert engine.rerank("q", TEXTS) == [1.0, 2.0, 3.0]
    assert sent == [["a", "bb"], ["ccc"]]
    assert engine.rerank("q", []) == []


@pytest.mark.parametrize(
    ("answer", "status", "code"),
    [
        ({"results": [{"index": 0, "relevance_score": 1}]}, 200, "reranker_bad_request"),
        ({"nothing": 1}, 200, "reranker_bad_request"),
        ({}, 404, "reranker_bad_request"),
        ({}, 401, "reranker_bad_request"),
        ({}, 429, "reranker_unavailable"),
        ({}, 500, "reranker_unavailable"),
    ],
)
def test_failures_have_codes(answer: object, status: int, code: str) -> None:
    with pytest.raises(EngineError) as caught:
        reranker(answer, status).rerank("q", TEXTS)
    assert caught.value.code == code
