"""When an answer has ended: a title for its conversation, and questions that could follow it.

The small model writes both while nobody waits. It is asked only when it is free at once, and what
it says is text to show, nothing more. The title is made from the question alone, so that it
holds nothing of a source; the questions are shown, withheld and deleted with their answer.
"""

from __future__ import annotations

import asyncio
import logging
import re
from dataclasses import dataclass
from datetime import timedelta
from typing import Final
from uuid import UUID

from django.conf import settings
from django.utils import timezone

from assistant import engines
from assistant.chat import queueing, rights
from assistant.chat.models import AnswerStatus, Conversation, Message
from assistant.chat.presenting import present
from assistant.chat.saying import said
from assistant.database import in_database
from assistant.users.models import User
from inference.prompts import render_follow_ups_prompt, render_title_prompt
from inference.types import LLM, ChatMessage, EngineError

log = logging.getLogger(__name__)

SECONDS: Final = 20.0
FOLLOW_UPS: Final = 3
_TITLE_CHARACTERS: Final = 80
_QUESTION_CHARACTERS: Final = 140
# Numbers, dashes and quotation marks that models put around a line all the same.
_BEFORE: Final = re.compile(r"^(?:[\s\"'“”„«»*#-]|\d{1,2}[.)]\s)+")
_AFTER: Final = "\"'“”„«»* \t"
_LINK: Final = re.compile(r"://|\bwww\.|[\w.]+@[\w.]+|\]\(", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class _Wanted:
    user: User
    conversation_id: UUID
    question: str
    text: str
    title: bool
    follow_ups: bool


async def suggest(answer_id: UUID) -> None:
    """Title and follow-ups of an answer that has ended; none where they cannot be had."""
    llm = engines.small_llm()
    if not llm.is_language_model or (wanted := await _wanted(answer_id)) is None:
        return
    follow_ups: list[str] = []
    try:
        async with asyncio.timeout(SECONDS), queueing.spare_place() as is_free:
            if is_free and wanted.title:
                title = await _ask(llm, render_title_prompt(wanted.question), wanted)
                await _store_title(wanted.conversation_id, title_of(title))
            if is_free and wanted.follow_ups:
                prompt = render_follow_ups_prompt(wanted.question, wanted.text)
                follow_ups = questions_of(await _ask(llm, prompt, wanted), wanted.question)
    except EngineError as error:
        log.info("no suggestions: %s", error.code)
    except TimeoutError:
        log.info("no suggestions: the model took too long")
    await _store_follow_ups(answer_id, follow_ups)


async def _ask(llm: LLM, prompt: tuple[ChatMessage, ...], wanted: _Wanted) -> str:
    salt = rights.cache_salt(wanted.user)
    return await said(llm, prompt, question=wanted.question, cache_salt=salt)


@in_database
def _wanted(answer_id: UUID) -> _Wanted | None:
    found = Message.objects.select_related("conversation__user", "parent").filter(
        pk=answer_id, status=AnswerStatus.DONE, follow_ups__isnull=True
    )
    answer = found.first()
    if answer is None or answer.parent is None:
        return None
    conversation = answer.conversation
    return _Wanted(
        conversation.user,
        conversation.pk,
        answer.parent.text,
        answer.text,
        title=conversation.title_by == Conversation.TitleBy.QUESTION,
        follow_ups=settings.SUGGEST_FOLLOW_UPS
        and not answer.abstained
        and answer.citations.filter(verified=True).exists()
        and present(answer, user=conversation.user).is_fully_available,
    )


@in_database
def _store_title(conversation_id: UUID, title: str) -> None:
    """Unless the person has given one meanwhile."""
    if title:
        Conversation.objects.filter(
            pk=conversation_id, title_by=Conversation.TitleBy.QUESTION
        ).update(title=title, title_by=Conversation.TitleBy.MODEL)


@in_database
def _store_follow_ups(answer_id: UUID, questions: list[str]) -> None:
    Message.objects.filter(pk=answer_id).update(follow_ups=questions)


def are_coming(answer: Message) -> bool:
    """Whether it may soon have a title and follow-ups: a page may ask again in a moment."""
    return (
        answer.status == AnswerStatus.DONE
        and answer.follow_ups is None
        and answer.finished_at is not None
        and timezone.now() - answer.finished_at < timedelta(seconds=SECONDS)
        and engines.small_llm().is_language_model
    )


def title_of(said: str) -> str:
    """A title from what a model said; empty when it did not say one."""
    lines = [line for line in said.splitlines() if line.strip()]
    title = _plain(lines[0]).rstrip(".:") if len(lines) == 1 else ""
    return title if len(title) <= _TITLE_CHARACTERS and not _LINK.search(title) else ""


def questions_of(said: str, question: str) -> list[str]:
    """The questions among the lines that a model said, without links and repetitions."""
    known = {question.strip().casefold()}
    found: list[str] = []
    for line in map(_plain, said.splitlines()):
        fits = line.endswith(("?", "？", "؟", ";")) and len(line) <= _QUESTION_CHARACTERS
        if fits and not _LINK.search(line) and line.casefold() not in known:
            known.add(line.casefold())
            found.append(line)
    return found[:FOLLOW_UPS]


def _plain(line: str) -> str:
    return " ".join(_BEFORE.sub("", line).rstrip(_AFTER).split())
