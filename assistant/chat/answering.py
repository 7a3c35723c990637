"""A question becomes an answer here: authorise, rewrite, retrieve, prompt, stream, cite, record.

``produce`` is the flow itself, used for conversations and for one-shot answers alike. ``generate``
runs it detached from the request that asked, writes its events to a Redis stream that any process
can serve, and records the end of it whatever happens.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from time import perf_counter
from typing import Any
from uuid import UUID

from django.conf import settings

from assistant import engines
from assistant.chat import fitting, queueing, recording, rights, watching
from assistant.chat.abstaining import abstain
from assistant.chat.attaching import attached_for
from assistant.chat.event_store import RedisLost
from assistant.chat.events import (
    Delta,
    Done,
    Event,
    Failed,
    Sources,
    Status,
    is_last,
)
from assistant.chat.instructing import instructions_for
from assistant.chat.rewriting import standalone_query
from assistant.chat.stream import EventLog
from assistant.chat.support import support_of
from assistant.chat.turn import Turn
from assistant.chat.watching import watched
from assistant.chat.writing import Writer
from assistant.permissions.policy import AnyUser
from assistant.retrieval import Passage
from assistant.retrieval.understanding import as_json, asearch_understanding
from inference.prompts import NO_ANSWER, is_no_answer, render_answer_prompt
from inference.types import (
    ChatMessage,
    Effort,
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
    llm = engines.chosen_llm(turn.choice) if turn.choice else engines.llm()
    turn.model = llm.model
    yield Status("searching")
    turn.query = await standalone_query(
        turn.question,
        turn.history,
        llm=engines.small_llm(),
        cache_salt=rights.cache_salt(turn.user),
    )
    if turn.attachments is not None:
        yield Status("attachments")
    attached = await attached_for(turn)
    found, turn.understood = await asearch_understanding(
        turn.query,
        user=turn.user,
        question=turn.question,
        ignored=turn.ignored,
        collections=turn.collections,
        filters=turn.filters,
        limit=PASSAGES,
        budget=settings.SOURCE_TOKEN_BUDGET - attached.tokens,
    )
    is_found = found.relevance >= found.threshold
    # Beside attached files, what is only near the question would be in the way.
    searched = found.passages if is_found or not attached.passages else []
    turn.passages = [*attached.passages, *searched]
    turn.timings_ms.update(found.timings_ms, retrieval=_ms(started))
    yield Sources(
        [_source_json(n, p) for n, p in enumerate(turn.passages, start=1)],
        as_json(turn.understood),
    )
    is_worth_it = is_found or attached.is_whole or attached.relevance >= found.threshold
    if not turn.passages or not is_worth_it:
        yield Delta(await abstain(turn))
        yield Done(
            _id(turn),
            "stop",
            timings_ms=turn.timings_ms,
            abstained=True,
            searched=turn.searched,
        )
        return
    turn.instructions = await instructions_for(turn.passages, user=turn.user)
    yield Status("writing")
    finished: Finished | None = None
    opening: str | None = ""
    writer = Writer(turn)
    async with aclosing(fitting.written(turn, llm, _request)) as upstream:
        async for event in upstream:
            if isinstance(event, TextDelta):
                opening, text = _after_opening(opening, event.text)
                if text and "first_token" not in turn.timings_ms:
                    turn.timings_ms["first_token"] = _ms(started)
                for shown in writer.feed(text):
                    yield shown
            elif isinstance(event, Status):
                yield event
            elif isinstance(event, Finished):
                finished = event
            elif isinstance(event, Thinking) and "thinking" not in turn.timings_ms:
                turn.timings_ms["thinking"] = _ms(started)
                yield Status("thinking")
    assert finished is not None
    no_answer = opening is not None and is_no_answer(opening)
    if opening and not no_answer:
        for shown in writer.feed(opening):
            yield shown
    for shown in writer.finish():
        yield shown
    written = perf_counter()
    if no_answer:
        yield Delta(await abstain(turn))
    else:
        turn.support = await support_of(turn.text, turn.citations, turn.passages)
        turn.timings_ms["support"] = _ms(written)
    turn.timings_ms["total"] = _ms(started)
    yield Done(
        _id(turn),
        finished.finish_reason,
        usage={
            "prompt_tokens": finished.usage.prompt_tokens,
            "completion_tokens": finished.usage.completion_tokens,
        },
        timings_ms=turn.timings_ms,
        abstained=no_answer,
        support=turn.support or None,
        searched=turn.searched or None,
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


def _request(turn: Turn, size: fitting.Size) -> GenerationRequest:
    offered = turn.passages[: size.passages]
    instructed = turn.instructions.within({p.collection_id for p in offered})
    sources = tuple(
        SourceText(n, p.title, p.text, p.locator.heading_path, instructed.name(p.collection_id))
        for n, p in enumerate(offered, start=1)
    )
    history = turn.history[len(turn.history) - size.messages :]
    turn.request = GenerationRequest(
        messages=render_answer_prompt(
            turn.question,
            sources,
            history=history,
            instructions=instructed.site,
            wishes=turn.wishes,
            of_collections=[(each.name, each.text) for each in instructed.collections],
        ),
        question=turn.query,
        sources=sources,
        max_tokens=size.max_tokens,
        effort=turn.effort or engines.default_effort(),
        temperature=turn.temperature,
        cache_salt=rights.cache_salt(turn.user),
        affinity=turn.affinity,
    )
    return turn.request


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


async def generate(turn: Turn) -> None:
    """Produce one stored answer that was claimed, to a final status.

    Stops when its reader says so, when the right to a source or the account is withdrawn, and at
    the deadline; each closes the request to the model server.
    """
    assert turn.answer_id is not None
    events = EventLog(turn.answer_id)
    # The search waits for others most of its time.
    noting = asyncio.ensure_future(rights.note_snapshot(turn))
    try:
        last = await _write(turn, events)
    except asyncio.CancelledError:
        last = watching.RESTARTED
    except Exception:
        log.exception("answer %s failed", turn.answer_id)
        last = Failed("internal", "Something went wrong while answering.", retryable=True)
    await asyncio.shield(_end(turn, events, last, noting))


async def _write(turn: Turn, events: EventLog) -> Event:
    """Everything up to the last event goes to the log; the last one is returned."""
    try:
        async with aclosing(watched(turn, queueing.admitted(turn, produce))) as produced:
            async for event in produced:
                if is_last(event):
                    return event
                events.append(event)
    except RedisLost:
        return Failed(
            "broker_lost", "The connection to the event store broke. Ask again.", retryable=True
        )
    raise AssertionError("an answer ended without its last event")


async def _end(turn: Turn, events: EventLog, last: Event, noting: asyncio.Future[None]) -> None:
    """The row first: a reader who sees the last event finds the answer stored."""
    assert turn.answer_id is not None
    await asyncio.wait({noting})
    if not noting.cancelled() and (error := noting.exception()):
        log.error("what answer %s could read is not known: %r", turn.answer_id, error)
    await recording.finish(turn, last)
    try:
        if isinstance(last, Failed) and last.code == "revoked":
            events.forget()
        events.append(last)
        await events.close()
    except RedisLost:
        log.warning("the last event of %s is in the database only", turn.answer_id)


def answer_once(
    *,
    question: str,
    user: AnyUser,
    collections: Sequence[UUID] | None = None,
    filters: Mapping[str, Any] | None = None,
    attachments: UUID | None = None,
    ignored: Sequence[str] = (),
    effort: Effort | None = None,
    choice: engines.ModelChoice | None = None,
    history: Sequence[ChatMessage] = (),
    wishes: str = "",
    max_tokens: int | None = None,
    temperature: float | None = None,
    ticket: UUID | None = None,
) -> AsyncGenerator[Event, None]:
    """One answer for a caller who waits for it; nothing is stored.

    ``choice`` is from ``choosing.chosen``, ``attachments`` of a conversation of ``user``.
    ``wishes`` are the caller's own, about form and language. ``ticket`` is from
    ``queueing.take_place``; without one it takes its place in the line itself.
    Ends with Done or Failed. Closing it ends the request to the model server.
    """
    turn = Turn(
        question=question,
        user=user,
        collections=collections,
        filters=filters,
        attachments=attachments,
        ignored=ignored,
        effort=effort,
        choice=choice,
        history=history,
        wishes=wishes,
        max_tokens=max_tokens,
        temperature=temperature,
        ticket=ticket,
    )
    return watched(turn, queueing.admitted(turn, produce))
