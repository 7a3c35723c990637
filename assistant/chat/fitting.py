"""A prompt no longer than the model can read, and a shorter one when it says it was too long."""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import aclosing
from dataclasses import dataclass
from typing import Final

from django.conf import settings
from prometheus_client import Counter

from assistant.chat.events import Status
from assistant.chat.turn import Turn
from inference.prompts import prompt_digest
from inference.tokens import estimated_tokens
from inference.types import LLM, EngineError, GenerationRequest, LLMEvent, TextDelta

log = logging.getLogger(__name__)

SHORTENED: Final = Counter(
    "llm_prompts_shortened_total", "Prompts asked again with less in them: the model refused them"
)
# Chat formats wrap every message; a server counts what it adds itself.
_HEADROOM: Final = 256
_FEW_PASSAGES: Final = 3


@dataclass(frozen=True, slots=True)
class Size:
    """How many passages, from the best on, and how many earlier messages, from the last back."""

    passages: int
    messages: int
    max_tokens: int


Render = Callable[[Turn, Size], GenerationRequest]


async def written(turn: Turn, llm: LLM, render: Render) -> AsyncGenerator[LLMEvent | Status, None]:
    """The model's events for the turn. Raises EngineError.

    What a server knows better than we (its tokeniser, its real limit) shows when it refuses the
    prompt: then once more with half of it.
    """
    window = await llm.context_window()
    max_tokens = min(turn.max_tokens or settings.LLM_MAX_TOKENS, window // 2)
    room = window - max_tokens - _HEADROOM
    request = _fitted(turn, render, room=room, max_tokens=max_tokens)
    is_shown = False
    try:
        async with aclosing(llm.stream(request)) as events:
            async for event in events:
                is_shown = is_shown or isinstance(event, TextDelta)
                yield event
        return
    except EngineError as error:
        if error.code != "llm_context_too_long" or is_shown:
            raise
        shorter = _fitted(
            turn, render, room=min(room, _tokens(request)) // 2, max_tokens=max_tokens // 2
        )
        if shorter.messages == request.messages:
            raise
    SHORTENED.inc()
    log.info("the prompt was too long for the model, asking with a shorter one")
    yield Status("shortening")
    async with aclosing(llm.stream(shorter)) as events:
        async for event in events:
            yield event


def _fitted(turn: Turn, render: Render, *, room: int, max_tokens: int) -> GenerationRequest:
    """The largest request that should fit; the smallest there is when none does."""
    for size in _sizes(turn, max_tokens):
        request = render(turn, size)
        if _tokens(request) <= room:
            break
    turn.prompt_digest = prompt_digest(request.messages)
    return request


def _sizes(turn: Turn, max_tokens: int) -> Iterator[Size]:
    """From all of it down: old turns before passages, the last turn and best passages last."""
    passages, messages = len(turn.passages), len(turn.history)
    while True:
        yield Size(passages, messages, max_tokens)
        if messages > 2:
            messages -= 2
        elif passages > _FEW_PASSAGES:
            passages -= 1
        elif messages:
            messages = 0
        elif passages > 1:
            passages -= 1
        else:
            return


def _tokens(request: GenerationRequest) -> int:
    """On the high side, with what a chat format adds to each message."""
    return sum(estimated_tokens(message.content) + 8 for message in request.messages)
