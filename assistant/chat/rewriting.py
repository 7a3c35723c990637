"""A follow-up becomes a query that stands on its own."""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence
from typing import Final

from assistant.chat.saying import said
from assistant.retrieval.similarity import nearness
from inference.prompts import render_rewrite_prompt
from inference.types import LLM, ChatMessage, EngineError

log = logging.getLogger(__name__)

MAX_QUERY_CHARACTERS = 500
# Without a language model: questions that may belong together, the last of them the one asked.
_CHAIN: Final = 3
# A question that goes on from another one, by its first word or by what it only points to.
_GOES_ON: Final = re.compile(
    r"^\W*(?i:and|or|but|also|what about|how about|und|oder|aber|auch|was ist mit|et|ou|mais|y|o"
    r"|pero|e|mas)\b"
    r"|\b(?:its?|they|them|their|theirs|he|him|his|she|her|hers"
    r"|ihn|ihm|ihnen|diese[mnrs]?|davon|dafür|dazu|damit|daran|dabei)\b"
    r"|(?<![-\w])(?:this|that|these|those|one|ones|es|sie|das|dort|da)\W*$"
)
# What two questions ask together is so near to what the first asks where the second names no
# subject ("For whom?"). ``benchmarks.conversations`` measures both.
SAME_SUBJECT: Final = 0.93


async def standalone_query(
    question: str, history: Sequence[ChatMessage], *, llm: LLM, cache_salt: str | None = None
) -> str:
    """The text to search for. The first turn is searched as it was asked.

    Without a language model a follow-up is searched together with the questions it belongs to. A
    model that fails here costs the rewriting, not the answer.
    """
    if not history:
        return question
    try:
        if not llm.is_language_model:
            before = [message.content for message in history if message.role == "user"]
            return await _together([*before, question][-_CHAIN:])
        prompt = render_rewrite_prompt(question, history)
        words = await said(llm, prompt, question=question, cache_salt=cache_salt)
    except EngineError as error:
        log.info("rewriting failed, searching for the question as asked: %s", error.code)
        return question
    rewritten = " ".join(words.split())
    return rewritten if 0 < len(rewritten) <= MAX_QUERY_CHARACTERS else question


async def _together(questions: Sequence[str]) -> str:
    """The last question, after those before it from the one that names its subject on."""
    subject = questions[0]
    for question in questions[1:]:
        both = f"{subject} {question}"
        goes_on = _GOES_ON.search(question) or await nearness(subject, both) >= SAME_SUBJECT
        subject = both if goes_on else question
    return subject
