"""Engines for tests: scripted, deterministic, no network and no model."""

from __future__ import annotations

import asyncio
import hashlib
import re
from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from inference.types import (
    EmbeddingSpec,
    EmbedKind,
    EngineError,
    EngineHealth,
    Finished,
    GenerationRequest,
    LLMEvent,
    TextDelta,
    Usage,
    Vectors,
)

Step = LLMEvent | EngineError | float


def say(text: str, *, finish: bool = True) -> list[Step]:
    """A script that writes ``text`` word by word."""
    steps: list[Step] = [TextDelta(piece) for piece in re.findall(r"\s*\S+", text)]
    if finish:
        steps.append(Finished("stop", Usage(10, len(steps))))
    return steps


@dataclass
class FakeLLM:
    """Plays one script per call and repeats the last: events are sent, errors raised, floats slept.

    With ``write`` the script is made from the request.
    ``requests`` holds what was asked, ``closed`` counts streams left before their end.
    """

    scripts: Sequence[Sequence[Step]] = field(default_factory=lambda: [say("Yes [1].")])
    model: str = "fake-llm"
    is_language_model: bool = True
    window: int = 8192
    health: EngineHealth = field(
        default_factory=lambda: EngineHealth(ok=True, detail="Fake.", model="fake-llm")
    )
    write: Callable[[GenerationRequest], Sequence[Step]] | None = None
    requests: list[GenerationRequest] = field(default_factory=list)
    closed: int = 0

    async def stream(self, request: GenerationRequest) -> AsyncGenerator[LLMEvent, None]:
        script = self.scripts[min(len(self.requests), len(self.scripts) - 1)]
        if self.write is not None:
            script = self.write(request)
        self.requests.append(request)
        ended = False
        try:
            for step in script:
                if isinstance(step, EngineError):
                    ended = True
                    raise step
                if isinstance(step, float | int):
                    await asyncio.sleep(step)
                else:
                    yield step
            ended = True
        finally:
            self.closed += not ended

    async def context_window(self) -> int:
        return self.window

    async def check(self) -> EngineHealth:
        return self.health


class FakeEmbedder:
    """Hashed bags of words as unit vectors: texts that share words are near each other.

    ``calls`` counts requests; ``error``, when set, is raised instead.
    """

    def __init__(self, spec: EmbeddingSpec | None = None) -> None:
        self._spec = spec or EmbeddingSpec("fake-embedder", "1", dimension=384, window=256)
        self.calls = 0
        self.error: EngineError | None = None

    @property
    def spec(self) -> EmbeddingSpec:
        return self._spec

    def embed(self, texts: Sequence[str], *, kind: EmbedKind) -> Vectors:
        self.calls += 1
        if self.error is not None:
            raise self.error
        vectors = np.zeros((len(texts), self._spec.dimension), dtype=np.float32)
        for row, text in zip(vectors, texts, strict=True):
            for word in re.findall(r"\w+", text.lower()) or ["(empty)"]:
                digest = hashlib.blake2b(word.encode(), digest_size=8).digest()
                row[int.from_bytes(digest, "big") % self._spec.dimension] += 1.0
        lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
        return np.asarray(vectors / np.maximum(lengths, 1e-12), dtype=np.float32)

    async def aembed(self, texts: Sequence[str], *, kind: EmbedKind) -> Vectors:
        return self.embed(texts, kind=kind)

    def check(self) -> EngineHealth:
        if self.error is not None:
            return EngineHealth(ok=False, detail=self.error.detail, model=self._spec.model)
        return EngineHealth(ok=True, detail="Fake.", model=self._spec.model)


class FakeReranker:
    """Scores by the share of the query's words a text holds; ``error``, when set, is raised."""

    model = "fake-reranker"

    def __init__(self) -> None:
        self.error: EngineError | None = None

    def rerank(self, query: str, texts: Sequence[str]) -> list[float]:
        if self.error is not None:
            raise self.error
        wanted = set(re.findall(r"\w+", query.lower()))
        held = [set(re.findall(r"\w+", text.lower())) for text in texts]
        return [len(wanted & words) / max(1, len(wanted)) for words in held]

    async def arerank(self, query: str, texts: Sequence[str]) -> list[float]:
        return self.rerank(query, texts)
