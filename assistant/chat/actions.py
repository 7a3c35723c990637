"""Asking, stopping, rating and tidying up: what a person does in a conversation."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Literal
from uuid import UUID, uuid4

from django.conf import settings
from django.core.exceptions import ValidationError
from django.db import IntegrityError, transaction
from django.utils import timezone

from assistant.audit.models import record
from assistant.chat import branching, choosing, queueing, stream
from assistant.chat.models import UNFINISHED, Conversation, Feedback, Message
from assistant.chat.running import first_status, start
from assistant.documents.actions import delete_collection
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
            user=user,
            title=title[:200],
            title_by=Conversation.TitleBy.PERSON if title else Conversation.TitleBy.QUESTION,
            filters=filters or {},
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
    """An empty title is none: the next question gives it one."""
    conversation.title = title[:200]
    conversation.title_by = Conversation.TitleBy.PERSON if title else Conversation.TitleBy.QUESTION
    with transaction.atomic():
        conversation.save(update_fields=["title", "title_by"])
        record(user, "conversation.rename", conversation)


def delete_conversation(conversation: Conversation, *, user: User) -> None:
    """A running answer of it stops; the files that were attached to it go too."""
    running = list(conversation.messages.filter(status__in=UNFINISHED).values_list("pk", flat=True))
    with transaction.atomic():
        # A file that is being attached is waited for.
        locked = Conversation.objects.select_for_update().get(pk=conversation.pk)
        record(user, "conversation.delete", locked)
        if locked.attachments is not None:
            delete_collection(locked.attachments, actor=user)
        locked.delete()
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
    conversation: UUID,
    *,
    content: str,
    user: User,
    parent: UUID | Literal["leaf"] | None = "leaf",
    effort: str = "",
    model: str = "",
    filters: Mapping[str, Any] | None = None,
    ignored: Sequence[str] = (),
    idempotency_key: str | None = None,
    token: ApiToken | None = None,
) -> tuple[Message, Message]:
    """Store a question and its answer to come, and start answering after the commit.

    It follows the answer ``parent``, by default the one at the end of the branch that is shown; to
    edit a question is to ask with its parent (None: it begins the conversation). Its branch is
    shown from now on.

    With the idempotency key of an earlier question, that question and its answer are returned.
    ``filters`` narrow this question instead of the conversation's own; ``ignored`` are fields
    that its words may not narrow.

    ``model`` is the name of one to choose from, empty for the site's own.

    Raises Conversation.DoesNotExist when it is not one of ``user``, and ValidationError: ``empty``,
    ``too_long``, ``unknown_model``, ``unknown_parent``, ``busy`` while an answer is being written,
    ``llm_overloaded`` or ``limit_reached`` when there is no place in the line.
    """
    question_text = check_question(content)
    check(filters or {})
    choice = choosing.chosen(user, model)

    def make(locked: Conversation, ordinal: int) -> tuple[Message, Message]:
        question = Message(
            conversation=locked,
            parent_id=_parent(locked, parent),
            role=Message.Role.QUESTION,
            ordinal=ordinal,
            text=question_text,
            idempotency_key=idempotency_key or None,
        )
        locked.title = locked.title or cut_off(question_text)
        return question, Message(
            ordinal=ordinal + 1,
            effort=effort,
            model=choice.name if choice else "",  # until it is written: what was chosen
            narrowing={
                "filters": dict(locked.filters if filters is None else filters),
                "ignored": list(ignored),
            },
        )

    return _begin(conversation, make, user=user, idempotency_key=idempotency_key, token=token)


def ask_again(
    answer: Message,
    *,
    user: User,
    effort: str | None = None,
    model: str | None = None,
    filters: Mapping[str, Any] | None = None,
    ignored: Sequence[str] | None = None,
    idempotency_key: str | None = None,
    token: ApiToken | None = None,
) -> tuple[Message, Message]:
    """Have the question of ``answer`` answered once more; the new answer stands beside it.

    What is None is as it was for ``answer``. Returns and raises as ``ask``.
    """
    check(filters or {})
    choice = choosing.chosen(user, choosing.name_of(user, answer) if model is None else model)
    was = answer.narrowing

    def make(_: Conversation, ordinal: int) -> tuple[Message, Message]:
        question = answer.parent
        assert question is not None
        return question, Message(
            ordinal=ordinal,
            effort=answer.effort if effort is None else effort,
            model=choice.name if choice else "",
            narrowing={
                "filters": dict(was.get("filters", {}) if filters is None else filters),
                "ignored": list(was.get("ignored", ()) if ignored is None else ignored),
            },
            idempotency_key=idempotency_key or None,
        )

    return _begin(
        answer.conversation_id, make, user=user, idempotency_key=idempotency_key, token=token
    )


def _begin(
    conversation: UUID,
    make: Callable[[Conversation, int], tuple[Message, Message]],
    *,
    user: User,
    idempotency_key: str | None,
    token: ApiToken | None,
) -> tuple[Message, Message]:
    """Store what ``make`` returns unsaved, given the next ordinal: an answer, and its question
    where that is new. Then start the answer.
    """
    own = Conversation.objects.for_user(user)
    if idempotency_key and (earlier := _earlier(conversation, idempotency_key, user)):
        return earlier
    try:
        with transaction.atomic():
            locked = own.select_for_update().get(pk=conversation)
            if idempotency_key and (earlier := _earlier(conversation, idempotency_key, user)):
                return earlier
            question, answer = make(locked, _next_ordinal(locked))
            answer.pk = _place_in_line(user, token)
            answer.conversation, answer.parent = locked, question
            answer.role, answer.status = Message.Role.ANSWER, first_status()
            Message.objects.bulk_create(
                message for message in (question, answer) if message._state.adding
            )
            locked.leaf = answer
            locked.updated_at = timezone.now()
            locked.save(update_fields=["title", "leaf", "updated_at"])
            record(user, "answer.ask", answer)
            locked.user = user
            transaction.on_commit(partial(start, answer))
    except IntegrityError:
        if idempotency_key and (earlier := _earlier(conversation, idempotency_key, user)):
            return earlier
        raise
    return question, answer


def _parent(conversation: Conversation, parent: UUID | Literal["leaf"] | None) -> UUID | None:
    if parent == "leaf":
        return conversation.leaf_id
    answers = conversation.messages.filter(role=Message.Role.ANSWER)
    if parent is not None and not answers.filter(pk=parent).exists():
        raise ValidationError(
            "There is no such answer in this conversation to go on from.", code="unknown_parent"
        )
    return parent


def _next_ordinal(conversation: Conversation) -> int:
    """Raises ValidationError ``busy`` while an answer is being written."""
    newest = conversation.messages.order_by("-ordinal").values_list("ordinal", "status").first()
    if newest is None:
        return 1
    # Nothing is put after an answer that is being written.
    if newest[1] in UNFINISHED:
        _refuse_while_busy(conversation)
    return newest[0] + 1


def choose_branch(message: Message) -> None:
    """Show the branch that goes through ``message`` from now on, and ask at its end."""
    with transaction.atomic():
        locked = Conversation.objects.select_for_update().get(pk=message.conversation_id)
        locked.leaf_id = branching.newest_below(message)
        locked.save(update_fields=["leaf"])


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


def _earlier(conversation: UUID, key: str, user: User) -> tuple[Message, Message] | None:
    own = Message.objects.for_user(user)
    asked = own.filter(conversation=conversation, idempotency_key=key).first()
    if asked is None:
        return None
    if asked.role == Message.Role.ANSWER:  # asked again
        assert asked.parent is not None
        return asked.parent, asked
    return asked, asked.children.earliest("ordinal")


def _refuse_while_busy(conversation: Conversation) -> None:
    for answer in conversation.messages.filter(status__in=UNFINISHED):
        age = (timezone.now() - answer.created_at).total_seconds()
        if age < 10 or stream.is_being_written(answer.pk):
            raise ValidationError(
                "The previous question is still being answered. Stop it or wait.", code="busy"
            )
        stream.end_orphan(answer.pk)


def cut_off(question: str) -> str:
    """The title of a conversation that begins with ``question``, until it gets a better one."""
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
