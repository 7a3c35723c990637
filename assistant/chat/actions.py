"""Asking, stopping, rating and tidying up: what a person does in a conversation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any
from uuid import UUID, uuid4

from django.conf import settings
from django.core.exceptions import ValidationError
from django.db import IntegrityError, transaction
from django.db.models import Max
from django.utils import timezone

from assistant.audit.models import record
from assistant.chat import choosing, queueing, stream
from assistant.chat.models import AnswerStatus, Conversation, Feedback, Message
from assistant.chat.recording import UNFINISHED
from assistant.chat.running import start
from assistant.documents.models import Collection
from assistant.retrieval.filters import check
from assistant.users.models import ApiToken, User
from inference.types import EngineError


def create_conversation(
    *,
    user: User,
    collections: Sequence[UUID] = (),
    filters: Mapping[str, Any] | None = None,
    title: str = "",
) -> Conversation:
    """Raises Collection.DoesNotExist when one of ``collections`` is absent or hidden, and
    ValidationError for a bad filter.
    """
    check(filters or {})
    with transaction.atomic():
        conversation = Conversation.objects.create(
            user=user, title=title[:200], filters=filters or {}
        )
        set_collections(conversation, collections, user=user)
        record(user, "conversation.create", conversation)
    return conversation


def set_collections(conversation: Conversation, ids: Sequence[UUID], *, user: User) -> None:
    """Ask only these collections from now on; none means all. Raises Collection.DoesNotExist."""
    chosen = list(Collection.objects.for_user(user).filter(pk__in=ids))
    if len(chosen) != len(set(ids)):
        raise Collection.DoesNotExist
    conversation.collections.set(chosen)


def set_filters(conversation: Conversation, filters: Mapping[str, Any]) -> None:
    """Narrow the next questions to these; none means no filter. Raises ValidationError."""
    check(filters)
    conversation.filters = dict(filters)
    conversation.save(update_fields=["filters"])


def rename_conversation(conversation: Conversation, *, title: str, user: User) -> None:
    conversation.title = title[:200]
    with transaction.atomic():
        conversation.save(update_fields=["title"])
        record(user, "conversation.rename", conversation)


def delete_conversation(conversation: Conversation, *, user: User) -> None:
    """A running answer of it stops."""
    running = list(conversation.messages.filter(status__in=UNFINISHED).values_list("pk", flat=True))
    with transaction.atomic():
        record(user, "conversation.delete", conversation)
        conversation.delete()
    for answer_id in running:
        stream.request_stop(answer_id)


def check_question(text: str) -> str:
    """The question as it will be asked. Raises ValidationError with words for its author."""
    question = text.strip()
    if not question:
        raise ValidationError("Write a question first.", code="empty")
    if len(question) > settings.MAX_QUESTION_CHARACTERS:
        raise ValidationError(
            f"The question has {len(question):,} characters; at most"
            f" {settings.MAX_QUESTION_CHARACTERS:,} can be asked at once. Shorten it, or upload"
            " the long text as a document and ask about it.",
            code="too_long",
        )
    if "\x00" in question:
        raise ValidationError("The question contains a NUL character.", code="nul")
    return question


def ask(
    conversation: Conversation,
    *,
    content: str,
    user: User,
    effort: str = "",
    model: str = "",
    filters: Mapping[str, Any] | None = None,
    ignored: Sequence[str] = (),
    idempotency_key: str | None = None,
    token: ApiToken | None = None,
) -> tuple[Message, Message]:
    """Store a question and its PENDING answer, and start answering after the commit.

    With the idempotency key of an earlier question, that question and its answer are returned.
    ``filters`` narrow this question instead of the conversation's own; ``ignored`` are fields
    that its words may not narrow.

    ``model`` is the name of one to choose from, empty for the site's own.

    Raises ValidationError: ``empty``, ``too_long``, ``unknown_model``, ``busy`` while an answer is
    being written, ``llm_overloaded`` or ``limit_reached`` when there is no place in the line.
    """
    question_text = check_question(content)
    check(filters or {})
    choice = choosing.chosen(user, model)
    if idempotency_key and (earlier := _earlier(conversation, idempotency_key)):
        return earlier
    try:
        with transaction.atomic():
            locked = Conversation.objects.select_for_update().get(pk=conversation.pk)
            if idempotency_key and (earlier := _earlier(locked, idempotency_key)):
                return earlier
            _refuse_while_busy(locked)
            last = locked.messages.aggregate(last=Max("ordinal"))["last"] or 0
            question = Message.objects.create(
                conversation=locked,
                role=Message.Role.QUESTION,
                ordinal=last + 1,
                text=question_text,
                idempotency_key=idempotency_key or None,
            )
            answer = Message.objects.create(
                pk=_place_in_line(user, token),
                conversation=locked,
                role=Message.Role.ANSWER,
                ordinal=last + 2,
                status=AnswerStatus.PENDING,
                effort=effort,
                model=choice.name if choice else "",  # until it is written: what was chosen
                narrowing={
                    "filters": dict(locked.filters if filters is None else filters),
                    "ignored": list(ignored),
                },
            )
            locked.title = locked.title or _title(question_text)
            locked.updated_at = timezone.now()
            locked.save(update_fields=["title", "updated_at"])
            record(user, "answer.ask", answer)
            transaction.on_commit(partial(start, answer.pk))
    except IntegrityError:
        if idempotency_key and (earlier := _earlier(conversation, idempotency_key)):
            return earlier
        raise
    return question, answer


def _place_in_line(user: User, token: ApiToken | None) -> UUID:
    """The id of the answer to come, which holds its place. Raises ValidationError."""
    answer_id = uuid4()
    try:
        queueing.reserve(answer_id, queueing.Asker.of(user, token))
    except EngineError as error:
        raise ValidationError(
            error.detail, code=error.code, params={"retry_after": error.retry_after}
        ) from error
    return answer_id


def _earlier(conversation: Conversation, key: str) -> tuple[Message, Message] | None:
    question = conversation.messages.filter(idempotency_key=key).first()
    if question is None:
        return None
    return question, conversation.messages.get(ordinal=question.ordinal + 1)


def _refuse_while_busy(conversation: Conversation) -> None:
    for answer in conversation.messages.filter(status__in=UNFINISHED):
        age = (timezone.now() - answer.created_at).total_seconds()
        if age < 10 or stream.is_being_written(answer.pk):
            raise ValidationError(
                "The previous question is still being answered. Stop it or wait.", code="busy"
            )
        stream.end_orphan(answer.pk)


def _title(question: str) -> str:
    line = " ".join(question.split())
    return line if len(line) <= 80 else line[:79].rsplit(" ", 1)[0] + "…"


def stop_answer(answer: Message, *, user: User) -> None:
    """What was said so far stays. Nothing happens to an answer that has ended."""
    if answer.status in UNFINISHED:
        stream.request_stop(answer.pk)
        record(user, "answer.stop", answer)


def rate_answer(
    answer: Message, *, rating: str, reasons: Sequence[str] = (), comment: str = "", user: User
) -> Feedback:
    """The last rating counts."""
    with transaction.atomic():
        feedback, _ = Feedback.objects.update_or_create(
            answer=answer,
            defaults={
                "rating": rating,
                "reasons": list(reasons),
                "comment": comment,
                "created_at": timezone.now(),
            },
        )
        record(user, "answer.rate", answer, rating=rating)
    return feedback
