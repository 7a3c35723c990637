"""Scores from a reranking server in the Cohere/Jina shape: vLLM, infinity or TEI."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import httpx

from inference.connections import Connections
from inference.types import EngineError


class HTTPReranker:
    """``POST {base_url}/rerank``. ``base_url`` ends in ``/v1`` where the server wants that.

    Raises EngineError ``reranker_unavailable`` (retryable) or ``reranker_bad_request``.
    """

    def __init__(
        self,
        base_url: str,
        model: str,
        api_key: str | None = None,
        *,
        timeout: float = 10.0,
        connect_timeout: float = 1.0,
        batch_texts: int = 100,
        transport: httpx.BaseTransport | None = None,
        async_transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        self._model = model
        self._batch_texts = batch_texts
        self._connections = Connections(
            base_url,
            api_key=api_key,
            timeout=httpx.Timeout(timeout, connect=connect_timeout),
            transport=transport,
            async_transport=async_transport,
        )

    @property
    def model(self) -> str:
        return self._model

    def rerank(self, query: str, texts: Sequence[str]) -> list[float]:
        """One relevance score per text, in the order of ``texts``; higher is better."""
        scores: list[float] = []
        for batch in self._batches(texts):
            try:
                response = self._connections.client().post("/rerank", json=self._body(query, batch))
            except httpx.HTTPError as error:
                raise self._unavailable() from error
            scores += self._read(response, len(batch))
        return scores

    async def arerank(self, query: str, texts: Sequence[str]) -> list[float]:
        """As ``rerank``; cancelling it closes the request."""
        client = self._connections.async_client()
        scores: list[float] = []
        for batch in self._batches(texts):
            try:
                response = await client.post("/rerank", json=self._body(query, batch))
            except httpx.HTTPError as error:
                raise self._unavailable() from error
            scores += self._read(response, len(batch))
        return scores

    def close(self) -> None:
        self._connections.close()

    def _batches(self, texts: Sequence[str]) -> Iterator[list[str]]:
        for start in range(0, len(texts), self._batch_texts):
            yield list(texts[start : start + self._batch_texts])

    def _body(self, query: str, texts: list[str]) -> dict[str, Any]:
        # Cohere, Jina, vLLM and infinity read "documents", TEI reads "texts"; each ignores the
        # other's name.
        return {"model": self._model, "query": query, "documents": texts, "texts": texts}

    def _read(self, response: httpx.Response, expected: int) -> list[float]:
        if response.status_code == httpx.codes.TOO_MANY_REQUESTS or response.is_server_error:
            raise self._unavailable()
        if not response.is_success:
            raise EngineError(
                "reranker_bad_request",
                f"The reranker at {self._connections.base_url} refused the request "
                f"({response.status_code}). Check RERANKER_MODEL, the address and the key.",
                retryable=False,
            )
        try:
            return _scores(response.json(), expected)
        except (KeyError, TypeError, ValueError, IndexError) as error:
            raise EngineError(
                "reranker_bad_request",
                f"The answer of {self._connections.base_url} is not a ranking. Check that the "
                "address belongs to a reranking model.",
                retryable=False,
            ) from error

    def _unavailable(self) -> EngineError:
        return EngineError(
            "reranker_unavailable",
            f"The reranker at {self._connections.base_url} does not answer. Results are shown in "
            "the order of the search.",
            retryable=True,
        )


def _scores(body: Any, expected: int) -> list[float]:
    """Scores by index from ``{"results": [...]}`` (Cohere) or a bare list (TEI)."""
    results = body["results"] if isinstance(body, dict) else body
    by_index: dict[int, float] = {}
    for item in results:
        score = item["relevance_score"] if "relevance_score" in item else item["score"]
        by_index[int(item["index"])] = float(score)
    if sorted(by_index) != list(range(expected)):
        raise ValueError("the ranking does not cover every text")
    return [by_index[index] for index in range(expected)]
