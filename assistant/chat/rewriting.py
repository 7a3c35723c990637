"""A follow-up becomes a query that stands on its own."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from assistant.chat.saying import said
from inference.prompts import render_rewrite_prompt
from inference.types import LLM, ChatMessage, EngineError

log = logging.getLogger(__name__)

MAX_QUERY_CHARACTERS = 500


async def standalone_query(
    question: str, history: Sequence[ChatMessage], *, llm: LLM, cache_salt: str | None = None
) -> str:
    """The text to search for. The first turn is searched as it was asked.

    Without a language model a follow-up is searched together with the question before it. A model
    that fails here costs the rewriting, not the answer.
    """
    if not history:
        return question
    if not llm.is_language_model:
        before = [message.content for message in history if message.role == "user"]
        return f"{before[-1]} {question}" if before else question
    try:
        prompt = render_rewrite_prompt(question, history)
        words = await said(llm, prompt, question=question, cache_salt=cache_salt)
    except EngineError as error:
        log.info("rewriting failed, searching for the question as asked: %s", error.code)
        return question
    rewritten = " ".join(words.split())
    return rewritten if 0 < len(rewritten) <= MAX_QUERY_CHARACTERS else question
