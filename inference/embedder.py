"""Texts to vectors through any OpenAI-compatible ``/v1/embeddings``: ours, vLLM or TEI.

Imports no torch: web and worker processes stay small, the model runs in its own server.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

import httpx
import numpy as np

from inference.connections import Connections
from inference.embedding_models import (
    DEFAULT_MODEL,
    EmbeddingModel,
    UnknownModelError,
    resolve_model,
)
from inference.types import EmbeddingSpec, EmbedKind, EngineError, EngineHealth, Vectors

__all__ = [
    "DEFAULT_MODEL",
    "EmbeddingModel",
    "HTTPEmbedder",
    "UnknownModelError",
    "resolve_model",
]

_BACKOFF_SECONDS: Final = (0.1, 0.4)
_UNAVAILABLE: Final = (
    "The embedding server at {url} does not answer. Check that it runs and that the address is "
    "right."
)
_LOADING: Final = "The embedding server at {url} is starting. Try again in a few seconds."


class HTTPEmbedder:
    """The Embedder of the house.

    A request carries at most ``batch_texts`` texts and about ``batch_characters`` characters.
    ``timeout`` in seconds is for one request of passages; a query waits ``query_timeout``.
    ``retries`` counts new attempts after a failed connection; nothing else is retried. ``source``
    is what our own embedding server is asked to load when it does not hold the model (it was
    started with another one, or again).
    """

    def __init__(
        self,
        base_url: str,
        spec: EmbeddingSpec,
        *,
        api_key: str | None = None,
        source: str = "",
        timeout: float = 120.0,
        query_timeout: float = 15.0,
        connect_timeout: float = 3.0,
        retries: int = 2,
        batch_texts: int = 64,
        batch_characters: int = 400_000,
        transport: httpx.BaseTransport | None = None,
        async_transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        self._spec = spec
        self._timeouts: dict[EmbedKind, httpx.Timeout] = {
            "query": httpx.Timeout(query_timeout, connect=connect_timeout),
            "passage": httpx.Timeout(timeout, connect=connect_timeout),
        }
        self._retries = retries
        self._batch_texts = batch_texts
        self._batch_characters = batch_characters
        self._connections = Connections(
            base_url,
            api_key=api_key,
            timeout=self._timeouts["passage"],
            transport=transport,
            async_transport=async_transport,
        )
        self._lock = threading.Lock()
        self._as_base64 = True
        self._source = source

    @property
    def spec(self) -> EmbeddingSpec:
        return self._spec

    def embed(self, texts: Sequence[str], *, kind: EmbedKind) -> Vectors:
        """Unit vectors, shape (len(texts), dimension). Raises EngineError, see the Protocol."""
        batches = list(self._batches(texts, kind))
        if len(batches) < 2:
            return self._post(batches[0], kind) if batches else self._nothing()
        # Two in flight, so that the model has work while an answer travels.
        with ThreadPoolExecutor(2, thread_name_prefix="embed") as pool:
            return np.concatenate(list(pool.map(lambda batch: self._post(batch, kind), batches)))

    async def aembed(self, texts: Sequence[str], *, kind: EmbedKind) -> Vectors:
        """As ``embed``; cancelling it lets the server drop the texts that still wait."""
        parts = [await self._apost(batch, kind) for batch in self._batches(texts, kind)]
        return np.concatenate(parts) if parts else self._nothing()

    def check(self) -> EngineHealth:
        """Embed one word: proves address, key, model and dimension at once."""
        try:
            self._post(["ready"], "query")
        except EngineError as error:
            return EngineHealth(ok=False, detail=error.detail, model=self._spec.model)
        return EngineHealth(ok=True, detail="The embedding server answers.", model=self._spec.model)

    def close(self) -> None:
        self._connections.close()

    async def aclose(self) -> None:
        await self._connections.aclose()

    def _nothing(self) -> Vectors:
        return np.empty((0, self._spec.dimension), dtype=np.float32)

    def _batches(self, texts: Sequence[str], kind: EmbedKind) -> Iterator[list[str]]:
        prefix = self._spec.query_prefix if kind == "query" else self._spec.passage_prefix
        batch: list[str] = []
        characters = 0
        for text in texts:
            full = batch and (
                len(batch) >= self._batch_texts or characters + len(text) > self._batch_characters
            )
            if full:
                yield batch
                batch, characters = [], 0
            batch.append(prefix + text)
            characters += len(text)
        if batch:
            yield batch

    def _request(
        self, client: httpx.Client | httpx.AsyncClient, texts: list[str], kind: EmbedKind
    ) -> httpx.Request:
        body: dict[str, Any] = {"model": self._spec.model, "input": texts}
        if self._as_base64:
            body["encoding_format"] = "base64"
        return client.build_request(
            "POST",
            "/embeddings",
            json=body,
            headers={"X-Priority": "query" if kind == "query" else "bulk"},
            timeout=self._timeouts[kind],
        )

    def _post(self, texts: list[str], kind: EmbedKind) -> Vectors:
        client = self._connections.client()
        attempt = 0
        while True:
            asked_base64 = self._as_base64
            try:
                response = client.send(self._request(client, texts, kind))
                if self._may_be_loaded(response, attempt):
                    loaded = client.post("/models", json={"model": self._source})
                    if loaded.is_success:
                        attempt += 1
                        continue
            except httpx.HTTPError as error:
                if not self._again(error, attempt):
                    raise self._unreachable(error) from error
                time.sleep(_BACKOFF_SECONDS[min(attempt, 1)])
                attempt += 1
                continue
            if not self._retry_as_floats(response, asked_base64):
                return self._vectors(response, len(texts))

    async def _apost(self, texts: list[str], kind: EmbedKind) -> Vectors:
        client = self._connections.async_client()
        attempt = 0
        while True:
            asked_base64 = self._as_base64
            try:
                response = await client.send(self._request(client, texts, kind))
                if self._may_be_loaded(response, attempt):
                    loaded = await client.post("/models", json={"model": self._source})
                    if loaded.is_success:
                        attempt += 1
                        continue
            except httpx.HTTPError as error:
                if not self._again(error, attempt):
                    raise self._unreachable(error) from error
                await asyncio.sleep(_BACKOFF_SECONDS[min(attempt, 1)])
                attempt += 1
                continue
            if not self._retry_as_floats(response, asked_base64):
                return self._vectors(response, len(texts))

    def _may_be_loaded(self, response: httpx.Response, attempt: int) -> bool:
        """Whether the server lives but lacks the model, and was not asked to load it yet."""
        return (
            bool(self._source)
            and response.status_code == httpx.codes.NOT_FOUND
            and attempt < self._retries
        )

    def _again(self, error: httpx.HTTPError, attempt: int) -> bool:
        # A kept-alive connection that the server closed shows as a protocol or read error.
        broken = (httpx.ConnectError, httpx.RemoteProtocolError, httpx.ReadError, httpx.WriteError)
        return attempt < self._retries and isinstance(error, broken)

    def _unreachable(self, error: httpx.HTTPError) -> EngineError:
        url = self._connections.base_url
        if isinstance(error, httpx.TimeoutException) and not isinstance(
            error, httpx.ConnectTimeout
        ):
            return EngineError(
                "embedder_overloaded",
                f"The embedding server at {url} took too long. Try again later, or give it more "
                "processors.",
                retryable=True,
            )
        return EngineError("embedder_unavailable", _UNAVAILABLE.format(url=url), retryable=True)

    def _retry_as_floats(self, response: httpx.Response, asked_base64: bool) -> bool:
        """Whether the server may have stumbled over base64; then floats are used from now on."""
        refused = response.status_code in {400, 422} and "encoding_format" in response.text
        if asked_base64 and refused:
            with self._lock:
                self._as_base64 = False
            return True
        return False

    def _vectors(self, response: httpx.Response, expected: int) -> Vectors:
        if response.status_code != httpx.codes.OK:
            raise self._refused(response)
        try:
            rows = sorted(response.json()["data"], key=lambda item: int(item["index"]))
            vectors = np.stack([_components(item["embedding"]) for item in rows])
        except (KeyError, TypeError, ValueError, binascii.Error) as error:
            raise self._mismatch("its answer is not in the OpenAI shape") from error
        if vectors.shape != (expected, self._spec.dimension):
            raise self._mismatch(
                f"it returned {vectors.shape[0]} vectors of {vectors.shape[1]} components, "
                f"expected {expected} of {self._spec.dimension}"
            )
        norms = np.linalg.norm(vectors, axis=1, keepdims=True)
        if not np.all(np.isfinite(norms)) or not np.all(norms > 0):
            raise self._mismatch("a vector is not finite or is zero")
        return np.asarray(vectors / norms, dtype=np.float32)

    def _mismatch(self, reason: str) -> EngineError:
        return EngineError(
            "embedder_mismatch",
            f"The embedding server at {self._connections.base_url} does not serve "
            f"{self._spec.model} as configured: {reason}. Set EMBEDDING_MODEL to the model that "
            "is served there.",
            retryable=False,
        )

    def _refused(self, response: httpx.Response) -> EngineError:
        url, status = self._connections.base_url, response.status_code
        said = _message(response)
        if status == httpx.codes.TOO_MANY_REQUESTS:
            return EngineError(
                "embedder_overloaded",
                "The embedding server has too much to do. Try again later.",
                retryable=True,
            )
        if status in {httpx.codes.UNAUTHORIZED, httpx.codes.FORBIDDEN}:
            return EngineError(
                "embedder_unauthorized",
                f"The embedding server at {url} refused the key. Set the right API key.",
                retryable=False,
            )
        if status == httpx.codes.NOT_FOUND:
            return self._mismatch(said or "it knows no such model or path")
        if status >= httpx.codes.INTERNAL_SERVER_ERROR:
            words = _LOADING if status == httpx.codes.SERVICE_UNAVAILABLE else _UNAVAILABLE
            return EngineError("embedder_unavailable", words.format(url=url), retryable=True)
        return EngineError(
            "embedder_bad_request",
            f"The embedding server refused the texts ({status}): {said}",
            retryable=False,
        )


def _components(embedding: object) -> Vectors:
    if isinstance(embedding, str):
        return np.frombuffer(base64.b64decode(embedding, validate=True), dtype="<f4")
    return np.asarray(embedding, dtype=np.float32)


def _message(response: httpx.Response) -> str:
    """The server's own words, shortened; the text that was sent is never part of them here."""
    try:
        body = response.json()
    except ValueError:
        return ""
    error = body.get("error", body.get("message", "")) if isinstance(body, dict) else ""
    if isinstance(error, dict):
        error = error.get("message", "")
    return str(error)[:300]
