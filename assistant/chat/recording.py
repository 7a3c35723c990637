"""The row of an answer: read once, finished once, replayed from when the stream is gone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast
from uuid import UUID

from django.db import transaction
from django.utils import timezone

from assistant.chat import branching, choosing
from assistant.chat.abstaining import stored
from assistant.chat.bundling import keep
from assistant.chat.events import CitationFound, Delta, Done, Event, Failed
from assistant.chat.models import UNFINISHED, AnswerStatus, Citation, Conversation, Message
from assistant.chat.presenting import present, presented
from assistant.chat.turn import Turn
from assistant.database import in_database
from assistant.documents.models import Collection
from assistant.retrieval.understanding import as_json
from assistant.users.models import User
from inference.types import ChatMessage, Effort

# Turns of history that go into a prompt; the newest ones.
HISTORY_TURNS = 4


def turn_for(answer: Message) -> Turn:
    """What is known before it is written. Queries."""
    conversation, question = answer.conversation, answer.parent
    assert question is not None
    return Turn(
        question=question.text,
        user=conversation.user,
        collections=chosen_collections(conversation),
        filters=answer.narrowing.get("filters"),
        attachments=conversation.attachments_id,
        ignored=answer.narrowing.get("ignored", ()),
        effort=cast("Effort", answer.effort) if answer.effort else None,
        choice=choosing.still_chosen(conversation.user, answer.model),
        history=_history(question, user=conversation.user),
        answer_id=answer.pk,
        affinity=str(conversation.pk),
    )


def chosen_collections(conversation: Conversation) -> Sequence[UUID] | None:
    """The chosen collections that are still readable; None when none was ever chosen."""
    chosen = list(conversation.collections.values_list("pk", flat=True))
    if not chosen:
        return None
    readable = Collection.objects.for_user(conversation.user).filter(pk__in=chosen)
    return list(readable.values_list("pk", flat=True))


def _history(question: Message, *, user: User) -> list[ChatMessage]:
    """Earlier turns of its branch whose sources the reader may still see, oldest first."""
    messages: list[ChatMessage] = []
    for shown in presented(branching.before(question, limit=2 * HISTORY_TURNS), user=user):
        if shown.message.role == Message.Role.QUESTION:
            messages.append(ChatMessage("user", shown.text))
        elif shown.text:
            messages.append(ChatMessage("assistant", shown.text))
    return messages


@in_database
def finish(turn: Turn, last: Event) -> None:
    """Store what was said, how it ended, and its citations, once."""
    assert turn.answer_id is not None
    now = timezone.now()
    values: dict[str, Any] = {
        "text": turn.text,
        "query": turn.query,
        "model": turn.model,
        "prompt_digest": turn.prompt_digest,
        "timings_ms": turn.timings_ms,
        "support": turn.support,
        "searched": stored(turn.searched),
        "narrowing": {
            "filters": turn.filters or {},
            "ignored": list(turn.ignored),
            "understood": as_json(turn.understood),
        },
        "sources": [
            {
                "number": number,
                "document": str(passage.document_id),
                "version": str(passage.version_id),
                "locator": passage.locator.to_json(),
                "score": round(passage.score, 4),
            }
            for number, passage in enumerate(turn.passages, start=1)
        ],
        "finished_at": now,
    }
    if isinstance(last, Done):
        stopped = last.finish_reason == "stopped"
        values |= {
            "status": AnswerStatus.STOPPED if stopped else AnswerStatus.DONE,
            "finish_reason": last.finish_reason,
            "usage": last.usage,
            "abstained": last.abstained,
        }
    elif isinstance(last, Failed):
        values |= {
            "status": _status_of(last, has_text=bool(turn.text)),
            "error_code": last.code,
            "error_detail": last.detail,
        }
        if last.code == "revoked":
            values |= {"text": "", "sources": [], "support": {}, "searched": {}}
    with transaction.atomic():
        if not Message.objects.filter(pk=turn.answer_id, status__in=UNFINISHED).update(**values):
            return
        if isinstance(last, Failed) and last.code == "revoked":
            return
        keep(turn)
        Citation.objects.bulk_create(
            [
                Citation(
                    answer_id=turn.answer_id,
                    ordinal=ordinal,
                    number=citation.number,
                    document_id=citation.document_id,
                    version_id=citation.version_id,
                    quote=citation.quote,
                    locator=citation.locator,
                    verified=citation.verified,
                )
                for ordinal, citation in enumerate(turn.citations)
            ]
        )


def _status_of(last: Failed, *, has_text: bool) -> AnswerStatus:
    if last.code == "revoked":
        return AnswerStatus.STOPPED
    if has_text or last.code == "interrupted":
        return AnswerStatus.INTERRUPTED
    return AnswerStatus.FAILED


def mark_interrupted(answer_id: UUID, *, text: str) -> None:
    """End an answer whose writer is gone, keeping what readers saw of it."""
    Message.objects.filter(pk=answer_id, status__in=UNFINISHED).update(
        status=AnswerStatus.INTERRUPTED,
        text=text,
        error_code="interrupted",
        error_detail="The server was restarted while answering. Ask again.",
        finished_at=timezone.now(),
    )


@in_database
def replay(answer_id: UUID) -> list[Event] | None:
    """The events of a finished answer, from its row; None while it is not finished.

    Sources are not repeated: pages and the API read them with the answer, under present rights.
    """
    answer = Message.objects.select_related("conversation__user").filter(pk=answer_id).first()
    if answer is None:
        return [Failed("deleted", "This answer was deleted.", retryable=False)]
    if answer.status in UNFINISHED:
        return None
    events: list[Event] = []
    shown = present(answer, user=answer.conversation.user)
    if shown.is_fully_available:
        events.append(Delta(shown.text))
        events += [
            CitationFound(
                citation.number,
                citation.quote or "",
                citation.verified,
                citation.locator.to_json(),
                str(citation.document_id),
                str(citation.version_id),
            )
            for citation in shown.citations
        ]
    if answer.error_code:
        events.append(Failed(answer.error_code, answer.error_detail, retryable=True))
    else:
        events.append(
            Done(
                str(answer.pk),
                answer.finish_reason,
                answer.usage,
                answer.timings_ms,
                answer.abstained,
                shown.support or None,
                shown.searched or None,
            )
        )
    return events
