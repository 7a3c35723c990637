"""A short task for a language model: one prompt in, a few words out."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import aclosing

from inference.types import LLM, ChatMessage, GenerationRequest, TextDelta

_MAX_TOKENS = 400


async def said(
    llm: LLM, messages: Sequence[ChatMessage], *, question: str, cache_salt: str | None = None
) -> str:
    """What ``llm`` says to ``messages``, with little thought and no chance. Raises EngineError."""
    request = GenerationRequest(
        messages=tuple(messages),
        question=question,
        sources=(),
        max_tokens=_MAX_TOKENS,
        effort="low",
        temperature=0.0,
        cache_salt=cache_salt,
    )
    async with aclosing(llm.stream(request)) as events:
        return "".join([event.text async for event in events if isinstance(event, TextDelta)])
