"""What the rest of the house knows of a model: Protocols, requests, events and errors."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

Effort = Literal["low", "medium", "high"]
EmbedKind = Literal["query", "passage"]
Vectors = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class ChatMessage:
    """One message of a chat prompt. ``system`` becomes harmony's developer message on gpt-oss."""

    role: Literal["system", "user", "assistant"]
    content: str


@dataclass(frozen=True, slots=True)
class SourceText:
    """One numbered passage as the model sees it. ``number`` counts from 1.

    ``collection`` names the collection where that has instructions of its own.
    """

    number: int
    title: str
    text: str
    heading_path: tuple[str, ...] = ()
    collection: str = ""


@dataclass(frozen=True, slots=True)
class GenerationRequest:
    """Everything an engine may use to answer once.

    A language model reads ``messages``; the extractive engine reads ``question`` and ``sources``.
    ``max_tokens`` bounds answer and reasoning together. ``cache_salt`` separates prefix caches of
    readers with different rights. Requests with the same ``affinity`` begin alike, and go to the
    server that has that beginning cached.
    """

    messages: tuple[ChatMessage, ...]
    question: str
    sources: tuple[SourceText, ...]
    max_tokens: int = 2048
    effort: Effort | None = None
    temperature: float | None = None
    cache_salt: str | None = None
    affinity: str = ""


@dataclass(frozen=True, slots=True)
class TextDelta:
    """A piece of the visible answer."""

    text: str


@dataclass(frozen=True, slots=True)
class Thinking:
    """The model is reasoning. Carries no text: reasoning is never shown, stored or logged."""


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens spent, as the engine counted them; zeros when it does not count."""

    prompt_tokens: int = 0
    completion_tokens: int = 0


@dataclass(frozen=True, slots=True)
class Finished:
    """Last event of every stream that did not raise."""

    finish_reason: Literal["stop", "length"]
    usage: Usage = field(default_factory=Usage)


LLMEvent = TextDelta | Thinking | Finished


class EngineError(Exception):
    """A model server could not do its work.

    ``code`` is stable and machine readable, ``detail`` is a sentence for a person that says what
    to do, ``retryable`` says whether the same request may succeed later, and ``retry_after`` in
    how many seconds, where that is known.
    """

    def __init__(
        self, code: str, detail: str, *, retryable: bool, retry_after: int | None = None
    ) -> None:
        super().__init__(f"{code}: {detail}")
        self.code = code
        self.detail = detail
        self.retryable = retryable
        self.retry_after = retry_after


@dataclass(frozen=True, slots=True)
class EngineHealth:
    """Whether an engine can serve now, in words for a person.

    ``degraded``: it can, but a part of it is missing.
    """

    ok: bool
    detail: str
    model: str = ""
    degraded: bool = False


@dataclass(frozen=True, slots=True)
class EmbeddingSpec:
    """What makes two vectors comparable. All of it is part of an EmbeddingSpace's identity.

    ``dimension`` in components, ``window`` in tokens of the model's own tokenizer.
    """

    model: str
    revision: str
    dimension: int
    window: int
    query_prefix: str = ""
    passage_prefix: str = ""


class LLM(Protocol):
    """Streams one answer. Closing the generator ends the upstream request.

    Raises EngineError: ``llm_unavailable``, ``llm_timeout``, ``llm_lost`` (broke mid-stream),
    ``llm_overloaded``, ``llm_unauthorized``, ``llm_model_not_found``, ``llm_context_too_long``,
    ``llm_bad_request``, ``llm_empty`` (tokens spent, nothing said).
    """

    @property
    def model(self) -> str: ...

    @property
    def is_language_model(self) -> bool:
        """False for the extractive engine, which quotes sentences and writes none."""
        ...

    def stream(self, request: GenerationRequest) -> AsyncGenerator[LLMEvent, None]: ...

    async def context_window(self) -> int:
        """Tokens that prompt and answer may use together."""
        ...

    async def check(self) -> EngineHealth: ...


class Embedder(Protocol):
    """Texts to unit vectors, shape (len(texts), dimension), float32, in order.

    Raises EngineError ``embedder_unavailable``, ``embedder_overloaded``, ``embedder_mismatch``
    (another dimension or model than the spec says), ``embedder_bad_request``,
    ``embedder_unauthorized``.
    ``query`` texts get the query prefix and priority over bulk ``passage`` texts.
    """

    @property
    def spec(self) -> EmbeddingSpec: ...

    def embed(self, texts: Sequence[str], *, kind: EmbedKind) -> Vectors: ...

    async def aembed(self, texts: Sequence[str], *, kind: EmbedKind) -> Vectors: ...

    def check(self) -> EngineHealth: ...


class Reranker(Protocol):
    """Scores how well each text answers the query, higher is better, one float per text.

    Scores are probabilities, or log odds where they leave 0 to 1. Raises EngineError
    ``reranker_unavailable``, ``reranker_bad_request``.
    """

    @property
    def model(self) -> str: ...

    def rerank(self, query: str, texts: Sequence[str]) -> list[float]: ...

    async def arerank(self, query: str, texts: Sequence[str]) -> list[float]: ...


class TokenCounter(Protocol):
    """Counts tokens as the embedding model does, special tokens excluded."""

    def count(self, text: str) -> int: ...

    def offsets(self, text: str) -> list[tuple[int, int]]:
        """Character span of each token, ascending."""
        ...
