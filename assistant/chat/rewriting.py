"""A follow-up becomes a query that stands on its own."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from contextlib import aclosing

from inference.prompts import render_rewrite_prompt
from inference.types import LLM, ChatMessage, EngineError, GenerationRequest, TextDelta

log = logging.getLogger(__name__)

MAX_QUERY_CHARACTERS = 500


async def standalone_query(question: str, history: Sequence[ChatMessage], *, llm: LLM) -> str:
    """The text to search for. The first turn is searched as it was asked.

    Without a language model a follow-up is searched together with the question before it. A model
    that fails here costs the rewriting, not the answer.
    """
    if not history:
        return question
    if not llm.is_language_model:
        before = [message.content for message in history if message.role == "user"]
        return f"{before[-1]} {question}" if before else question
    request = GenerationRequest(
        messages=render_rewrite_prompt(question, history),
        question=question,
        sources=(),
        max_tokens=400,
        effort="low",
        temperature=0.0,
    )
    try:
        async with aclosing(llm.stream(request)) as events:
            parts = [event.text async for event in events if isinstance(event, TextDelta)]
    except EngineError as error:
        log.info("rewriting failed, searching for the question as asked: %s", error.code)
        return question
    rewritten = " ".join("".join(parts).split())
    return rewritten if 0 < len(rewritten) <= MAX_QUERY_CHARACTERS else question
