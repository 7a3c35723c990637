from __future__ import annotations

from contextlib import aclosing
from typing import Any

import pytest

from assistant.chat.events import Status
from assistant.chat.fitting import Size, written
from assistant.chat.turn import Turn
from inference.fakes import FakeLLM, say
from inference.types import (
    ChatMessage,
    EngineError,
    GenerationRequest,
    TextDelta,
)

TOO_LONG = EngineError("llm_context_too_long", "Too long.", retryable=False)


def turn(*, passages: int = 6, turns: int = 3) -> Turn:
    history = [
        ChatMessage(role, f"{role} {number} " + "x" * 300)
        for number in range(turns)
        for role in ("user", "assistant")
    ]
    found: list[Any] = [f"passage {number} " + "y" * 300 for number in range(passages)]
    return Turn(question="When?", user=None, history=history, passages=found)  # type: ignore[arg-type]


def render(asked: Turn, size: Size) -> GenerationRequest:
    history = asked.history[len(asked.history) - size.messages :]
    body = "\n".join(map(str, asked.passages[: size.passages]))
    return GenerationRequest(
        messages=(ChatMessage("system", "Rules."), *history, ChatMessage("user", body)),
        question="When?",
        sources=(),
        max_tokens=size.max_tokens,
    )


async def ask(llm: FakeLLM, asked: Turn) -> list[Any]:
    async with aclosing(written(asked, llm, render)) as events:
        return [event async for event in events]


def sizes(request: GenerationRequest) -> tuple[int, int]:
    """Earlier messages and passages in a prompt."""
    return len(request.messages) - 2, request.messages[-1].content.count("passage")


async def test_what_fits_is_sent_whole() -> None:
    llm = FakeLLM(window=8192)
    await ask(llm, turn())
    assert sizes(llm.requests[0]) == (6, 6)


@pytest.mark.parametrize(
    ("window", "expected"), [(2600, (2, 6)), (2000, (2, 4)), (1500, (0, 3)), (700, (0, 1))]
)
async def test_old_turns_go_before_passages_and_the_best_stays(
    window: int, expected: tuple[int, int]
) -> None:
    llm = FakeLLM(window=window)
    asked = turn()
    await ask(llm, asked)
    assert sizes(llm.requests[0]) == expected
    assert "passage 0" in llm.requests[0].messages[-1].content
    assert llm.requests[0].max_tokens <= window // 2
    assert len(asked.prompt_digest) == 64


async def test_a_prompt_the_server_refuses_is_sent_again_smaller_once() -> None:
    llm = FakeLLM(scripts=[[TOO_LONG], say("Yes.")], window=131072)
    events = await ask(llm, turn())
    assert Status("shortening") in events
    assert "".join(e.text for e in events if isinstance(e, TextDelta)) == "Yes."
    first, second = map(sizes, llm.requests)
    assert second < first
    assert len(llm.requests) == 2


async def test_what_cannot_be_made_smaller_fails_in_words() -> None:
    llm = FakeLLM(scripts=[[TOO_LONG]], window=131072)
    with pytest.raises(EngineError, match="Too long"):
        await ask(llm, turn(passages=1, turns=0))
    assert len(llm.requests) == 1


async def test_nothing_is_said_twice() -> None:
    llm = FakeLLM(scripts=[[*say("Half", finish=False), TOO_LONG]], window=131072)
    with pytest.raises(EngineError):
        await ask(llm, turn())
    assert len(llm.requests) == 1
