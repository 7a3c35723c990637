"""Saying "not found" with proof: what was searched, and whom one could ask.

The nearest passages are the answer's own ``sources``: read, but no answer.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import timedelta
from typing import Any, Final
from uuid import UUID

from django.conf import settings
from django.core.exceptions import ValidationError
from django.db import transaction
from django.utils import timezone

from assistant.audit.models import record
from assistant.chat.models import Message, OpenQuestion
from assistant.chat.turn import Turn
from assistant.database import in_database
from assistant.documents.models import Collection, Document
from assistant.permissions.policy import AnyUser, collections_with_role
from assistant.permissions.roles import Role
from assistant.users.models import User

# More is no question any more but a way to fill other people's page.
SENT_PER_DAY: Final = 20


@dataclass(frozen=True, slots=True)
class Searched:
    """How many documents were looked through, of which collections, for what.

    ``collections`` have id and name; only the ids are stored.
    """

    documents: int
    collections: tuple[Mapping[str, str], ...]
    query: str
    filters: Mapping[str, Any]

    def words(self) -> str:
        """What the answer says, in the site's words (``NOT_FOUND_TEXT``)."""
        if not self.documents and not self.collections:
            return (
                "There is no collection that you can read yet. Make one in the library and upload"
                " documents, or ask a colleague to share one."
            )
        if not self.documents:
            return (
                "The collections that you can read have no ready documents yet. The library shows"
                " how far uploads are."
            )
        plural = "document" if self.documents == 1 else "documents"
        return settings.NOT_FOUND_TEXT.replace("{documents}", f"{self.documents:,} {plural}")


@in_database
def _searched(
    user: AnyUser,
    collections: Sequence[UUID] | None,
    query: str,
    filters: Mapping[str, Any],
    attachments: UUID | None,
) -> Searched:
    documents = Document.objects.for_user(user).filter(
        current_version__isnull=False, disabled_at=None
    )
    visible = Collection.objects.for_user(user)
    if collections is not None:
        documents = documents.filter(collection__in=collections)
        visible = visible.filter(pk__in=collections)
    count = documents.count()
    if attachments is not None:
        attached = Document.objects.readable_by(user).filter(collection=attachments)
        count += attached.filter(current_version__isnull=False, disabled_at=None).count()
    named = tuple(
        {"id": str(pk), "name": name}
        for pk, name in visible.order_by("name", "pk").values_list("pk", "name")
    )
    return Searched(count, named, query, dict(filters))


async def abstain(turn: Turn) -> str:
    """What to say when nothing was found; what was searched is noted in ``turn``."""
    searched = await _searched(
        turn.user,
        turn.collections,
        turn.query or turn.question,
        turn.filters or {},
        turn.attachments,
    )
    turn.searched = asdict(searched)
    turn.text = searched.words()
    return turn.text


def stored(searched: Mapping[str, Any]) -> dict[str, Any]:
    """Without the names of collections: they are read again under the reader's rights."""
    if not searched:
        return {}
    return {**searched, "collections": [each["id"] for each in searched["collections"]]}


def is_sent(answer: Message) -> bool:
    return OpenQuestion.objects.filter(answer=answer).exists()


def manages_all(ids: Sequence[str], *, user: AnyUser) -> bool:
    """Whether ``user`` is among those to whom a question about each of these goes."""
    others = Collection.objects.for_user(user).filter(pk__in=ids)
    return not others.exclude(pk__in=collections_with_role(user, Role.MANAGER)).exists()


def send_question(answer: Message, *, user: User) -> OpenQuestion:
    """Tell the managers of the collections that were searched what was asked, once.

    They see the question and who asks. Raises ValidationError: ``answered`` when something was
    found, ``limit_reached``, ``nobody`` when no collection that was searched is readable any more.
    """
    if not answer.abstained:
        raise ValidationError("This question has an answer.", code="answered")
    with transaction.atomic():
        # Two clicks, one question; and the limit counts whole.
        User.objects.select_for_update().get(pk=user.pk)
        earlier = OpenQuestion.objects.filter(answer=answer).first()
        if earlier is not None:
            return earlier
        since = timezone.now() - timedelta(days=1)
        if OpenQuestion.objects.filter(asker=user, created_at__gte=since).count() >= SENT_PER_DAY:
            raise ValidationError(
                f"You sent {SENT_PER_DAY} questions today. Try again tomorrow.",
                code="limit_reached",
            )
        collections = Collection.objects.for_user(user).filter(
            pk__in=answer.searched.get("collections", [])
        )
        question = answer.parent
        if not collections or question is None:
            raise ValidationError(
                "None of the collections that were searched can be read any more.", code="nobody"
            )
        sent = OpenQuestion.objects.create(answer=answer, text=question.text, asker=user)
        sent.collections.set(collections)
        record(user, "question.send", sent)
    return sent


def close_question(question: OpenQuestion, *, status: str, user: User) -> None:
    """A manager says what became of it; OPEN takes that back."""
    is_open = status == OpenQuestion.Status.OPEN
    with transaction.atomic():
        OpenQuestion.objects.filter(pk=question.pk).update(
            status=OpenQuestion.Status(status),
            closed_at=None if is_open else timezone.now(),
            closed_by=None if is_open else user,
        )
        record(user, "question.close", question, status=status)
