"""A question becomes an answer here: authorise, rewrite, retrieve, prompt, stream, cite, record.

``produce`` is the flow itself, used for conversations and for one-shot answers alike. ``generate``
runs it detached from the request that asked, writes its events to a Redis stream that any process
can serve, and records the end of it whatever happens.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Iterable, Iterator, Sequence
from contextlib import aclosing
from time import perf_counter
from typing import Any
from uuid import UUID

from django.conf import settings

from assistant import engines
from assistant.chat import recording, rights
from assistant.chat.citing import Marker, MarkerParser, bind
from assistant.chat.events import CitationFound, Delta, Done, Event, Failed, Sources, Status
from assistant.chat.rewriting import standalone_query
from assistant.chat.stream import EventLog, RedisLost
from assistant.chat.turn import Turn
from assistant.permissions.policy import AnyUser
from assistant.retrieval import Passage, asearch
from inference.prompts import NO_ANSWER, is_no_answer, prompt_digest, render_answer_prompt
from inference.types import (
    Effort,
    EngineError,
    Finished,
    GenerationRequest,
    SourceText,
    TextDelta,
    Thinking,
)

log = logging.getLogger(__name__)

PASSAGES = 12


async def produce(turn: Turn) -> AsyncGenerator[Event, None]:
    """The events of one answer, ending with Done. Raises EngineError.

    No SQL runs between the first and the last word. Closing the generator ends the request to the
    model server.
    """
    started = perf_counter()
    llm = engines.llm()
    turn.model = llm.model
    yield Status("searching")
    turn.query = await standalone_query(turn.question, turn.history, llm=llm)
    found = await asearch(
        turn.query,
        user=turn.user,
        collections=turn.collections,
        limit=PASSAGES,
        budget=settings.SOURCE_TOKEN_BUDGET,
    )
    turn.passages = found.passages
    turn.timings_ms.update(found.timings_ms, retrieval=_ms(started))
    yield Sources([_source_json(n, p) for n, p in enumerate(turn.passages, start=1)])
    if not turn.passages:
        turn.text = await rights.nothing_found(turn.user, turn.collections)
        yield Delta(turn.text)
        yield Done(_id(turn), "stop", timings_ms=turn.timings_ms, abstained=True)
        return
    yield Status("writing")
    request = _request(turn)
    turn.prompt_digest = prompt_digest(request.messages)
    finished: Finished | None = None
    opening: str | None = ""
    parser = MarkerParser(frozenset(range(1, len(turn.passages) + 1)))
    async with aclosing(llm.stream(request)) as upstream:
        async for event in upstream:
            if isinstance(event, TextDelta):
                opening, text = _after_opening(opening, event.text)
                if text and "first_token" not in turn.timings_ms:
                    turn.timings_ms["first_token"] = _ms(started)
                for shown in _shown(turn, parser.feed(text)):
                    yield shown
            elif isinstance(event, Finished):
                finished = event
            elif isinstance(event, Thinking) and "thinking" not in turn.timings_ms:
                turn.timings_ms["thinking"] = _ms(started)
                yield Status("thinking")
    assert finished is not None
    no_answer = opening is not None and is_no_answer(opening)
    if opening and not no_answer:
        for shown in _shown(turn, parser.feed(opening)):
            yield shown
    for shown in _shown(turn, parser.finish()):
        yield shown
    if no_answer:
        turn.text = await rights.nothing_found(turn.user, turn.collections)
        yield Delta(turn.text)
    turn.timings_ms["total"] = _ms(started)
    yield Done(
        _id(turn),
        finished.finish_reason,
        usage={
            "prompt_tokens": finished.usage.prompt_tokens,
            "completion_tokens": finished.usage.completion_tokens,
        },
        timings_ms=turn.timings_ms,
        abstained=finished.abstained or no_answer,
    )


def _after_opening(opening: str | None, text: str) -> tuple[str | None, str]:
    """Hold back the first words while they may still be the agreed "no answer" line.

    Returns what is held (None once it is something else) and what may be shown.
    """
    if opening is None:
        return None, text
    held = opening + text
    start = held.strip(" \n`*\"'")
    if NO_ANSWER.startswith(start[: len(NO_ANSWER)]) and len(held) < len(NO_ANSWER) + 20:
        return held, ""
    return None, held


def _request(turn: Turn) -> GenerationRequest:
    sources = tuple(
        SourceText(n, p.title, p.text, p.locator.heading_path)
        for n, p in enumerate(turn.passages, start=1)
    )
    return GenerationRequest(
        messages=render_answer_prompt(turn.question, sources, history=turn.history),
        question=turn.query,
        sources=sources,
        max_tokens=settings.LLM_MAX_TOKENS,
        effort=turn.effort or engines.default_effort(),
        cache_salt=rights.cache_salt(turn.user),
    )


def _shown(turn: Turn, pieces: Iterable[str | Marker]) -> Iterator[Event]:
    """The events for pieces of text and for markers, which are text too: ``[n]``."""
    for piece in pieces:
        text = piece if isinstance(piece, str) else f"[{piece.number}]"
        turn.text += text
        yield Delta(text)
        if isinstance(piece, Marker) and (citation := _citation(turn, piece)):
            turn.citations.append(citation)
            yield citation


def _citation(turn: Turn, marker: Marker) -> CitationFound | None:
    passage = turn.passages[marker.number - 1]
    quote = bind(marker.claim, passage.text)
    if quote is None:
        return None
    return CitationFound(
        number=marker.number,
        quote=quote.text,
        verified=quote.verified,
        locator=passage.locate(quote.span.start, quote.span.end).to_json(),
        document_id=str(passage.document_id),
        version_id=str(passage.version_id),
    )


def _source_json(number: int, passage: Passage) -> dict[str, Any]:
    return {
        "number": number,
        "document": document_json(passage),
        "text": passage.text,
        "locator": passage.locator.to_json(),
        "score": round(passage.score, 4),
    }


def document_json(passage: Passage) -> dict[str, Any]:
    """How a passage names its document everywhere outside."""
    return {
        "id": str(passage.document_id),
        "external_id": passage.external_id,
        "title": passage.title,
        "version": passage.version_number,
        "version_id": str(passage.version_id),
        "source_url": passage.source_url,
        "collection": str(passage.collection_id),
    }


def _id(turn: Turn) -> str | None:
    return str(turn.answer_id) if turn.answer_id else None


def _ms(started: float) -> float:
    return round((perf_counter() - started) * 1000, 2)


async def generate(answer_id: UUID) -> None:
    """Produce one stored answer from PENDING to a final status.

    Stops when its reader says so, when the right to a source or the account is withdrawn, and at
    the deadline; each closes the request to the model server.
    """
    turn = await recording.claim(answer_id)
    if turn is None:
        return
    events = EventLog(answer_id)
    work = asyncio.create_task(_write(turn, events))
    watch = asyncio.create_task(_until_ended(turn, events))
    try:
        await asyncio.wait({work, watch}, return_when=asyncio.FIRST_COMPLETED)
        last = work.result() if work.done() else watch.result()
    except asyncio.CancelledError:
        last = Failed("interrupted", "The server was restarted while answering.", retryable=True)
    except Exception:
        log.exception("answer %s failed", answer_id)
        last = Failed("internal", "Something went wrong while answering.", retryable=True)
    # Libraries can swallow a cancellation that meets the end of what they wait for, so the tasks
    # look at the flag too, and nothing waits for them without a limit.
    turn.is_over = True
    for task in (work, watch):
        task.cancel()
    await asyncio.wait({work, watch}, timeout=5)
    await asyncio.shield(_end(turn, events, last))


async def _write(turn: Turn, events: EventLog) -> Event:
    """Everything ``produce`` yields goes to the log, except the last event, which is returned."""
    try:
        async with aclosing(produce(turn)) as produced:
            async for event in produced:
                if isinstance(event, Done):
                    return event
                await events.append(event)
                if turn.is_over:
                    break
    except EngineError as error:
        return Failed(error.code, error.detail, retryable=error.retryable)
    except RedisLost:
        return Failed(
            "broker_lost", "The connection to the event store broke. Ask again.", retryable=True
        )
    return Done(_id(turn), "stopped", timings_ms=turn.timings_ms)


async def _until_ended(turn: Turn, events: EventLog) -> Event:
    """Returns when the answer must end early, with the event that says why."""
    deadline = perf_counter() + settings.ANSWER_DEADLINE_SECONDS
    next_check = perf_counter() + rights.RECHECK_SECONDS
    while not turn.is_over:
        await asyncio.sleep(0.25)
        await events.keep_alive()
        if await events.stop_requested():
            return Done(_id(turn), "stopped", timings_ms=turn.timings_ms)
        if perf_counter() > deadline:
            return Failed("deadline", "The answer took too long and was ended.", retryable=True)
        if perf_counter() > next_check:
            next_check = perf_counter() + rights.RECHECK_SECONDS
            if not await rights.still_allowed(turn.user, turn.passages):
                return Failed(
                    "revoked",
                    "Your access to a source of this answer was withdrawn, so it was stopped.",
                    retryable=False,
                )
    return Done(_id(turn), "stopped", timings_ms=turn.timings_ms)


async def _end(turn: Turn, events: EventLog, last: Event) -> None:
    """The row first: a reader who sees the last event finds the answer stored."""
    assert turn.answer_id is not None
    await recording.finish(turn, last)
    try:
        if isinstance(last, Failed) and last.code == "revoked":
            await events.forget()
        await events.append(last)
        await events.close()
    except RedisLost:
        log.warning("the last event of %s is in the database only", turn.answer_id)


async def answer_once(
    *,
    question: str,
    user: AnyUser,
    collections: Sequence[UUID] | None = None,
    effort: Effort | None = None,
) -> AsyncGenerator[Event, None]:
    """One answer for a caller who waits for it; nothing is stored.

    Ends with Done or Failed. Closing it ends the request to the model server.
    """
    turn = Turn(question=question, user=user, collections=collections, effort=effort)
    try:
        async with aclosing(produce(turn)) as produced:
            async for event in produced:
                yield event
    except EngineError as error:
        yield Failed(error.code, error.detail, retryable=error.retryable)
