"""Files attached to a conversation: its owner's alone, read like any document, gone with it.

They lie in a collection that is private to that person (``Collection.private_to``), so that
storing, reading, citing and deleting are those of documents; this one collection is searched
beside the others for questions of this conversation, and for nothing else.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from time import monotonic
from typing import Final
from uuid import UUID

from django.conf import settings
from django.core.exceptions import ValidationError
from django.db import transaction
from django.db.models import F, Q

from assistant import engines
from assistant.audit.models import record
from assistant.chat.models import Conversation
from assistant.chat.turn import Turn
from assistant.database import in_database
from assistant.documents import actions as documents
from assistant.documents.models import Document, DocumentVersion
from assistant.permissions.policy import AnyUser
from assistant.permissions.querysets import ScopedQuerySet
from assistant.retrieval import Passage, asearch
from assistant.retrieval.whole import all_passages
from assistant.users.models import User
from inference.types import EngineError

NAME: Final = "Attached files"
_LOOK_SECONDS: Final = 0.5
# A third of the room for passages stays for what the search brings.
_SHARE: Final = 2 / 3


@dataclass(frozen=True, slots=True)
class Attached:
    """What a prompt gets of the attached files. ``is_whole``: all of it, nothing was left out.

    ``tokens`` of SOURCE_TOKEN_BUDGET are taken. ``relevance`` as in ``SearchResult``.
    """

    passages: Sequence[Passage] = ()
    tokens: int = 0
    is_whole: bool = False
    relevance: float = 0.0


def attach(
    conversation: Conversation, *, user: User, accept: Callable[[UUID], DocumentVersion]
) -> UUID:
    """Take one file into the conversation; returns the document's id.

    ``accept`` is the door of ingestion: it takes the file into the collection of that id. A file
    of the same name is a new version of the one that is there.

    Raises ValidationError ``too_many``, and what ``accept`` raises.
    """
    with transaction.atomic():
        # Two uploads at once make one place, and the limit counts whole.
        locked = Conversation.objects.select_for_update().get(pk=conversation.pk)
        if locked.attachments_id is None:
            locked.attachments = documents.create_private_collection(name=NAME, owner=user)
            locked.save(update_fields=["attachments"])
        assert locked.attachments_id is not None
        document_id: UUID = accept(locked.attachments_id).document_id
        if attached_to(locked, user=user).count() > settings.MAX_ATTACHMENTS:
            raise ValidationError(
                f"At most {settings.MAX_ATTACHMENTS} files can be attached to one chat. Remove one"
                " first, or put them into a collection.",
                code="too_many",
            )
        record(user, "conversation.attach", locked, document=document_id)
    conversation.attachments_id = locked.attachments_id
    return document_id


def detach(conversation: Conversation, document: Document, *, user: User) -> None:
    """Delete one attached file; answers that were made from it are no longer shown."""
    with transaction.atomic():
        documents.delete_document(document, actor=user)
        record(user, "conversation.detach", conversation, document=document.pk)


def attached_to(conversation: Conversation, *, user: AnyUser) -> ScopedQuerySet[Document]:
    """The attached files, without what lies inside them, in the order they came."""
    files: ScopedQuerySet[Document] = Document.objects.readable_by(user).filter(
        collection=conversation.attachments_id, collection__isnull=False, parent=None
    )
    return files.order_by("created_at", "pk")


def conversation_of(document: Document, *, user: AnyUser) -> Conversation | None:
    """The conversation that a document is attached to; None for a document of the library."""
    return Conversation.objects.for_user(user).filter(attachments=document.collection_id).first()


async def attached_for(turn: Turn) -> Attached:
    """What the prompt of ``turn`` gets of its attached files, once they are read.

    Short ones whole; of longer ones what is found for the question. Raises EngineError
    ``attachment_failed`` with the reason, ``attachment_waiting`` when they take too long.
    """
    if turn.attachments is None:
        return Attached()
    await _read(turn.attachments, turn.user)
    budget = int(settings.SOURCE_TOKEN_BUDGET * _SHARE)
    whole = await all_passages(user=turn.user, private=turn.attachments, budget=budget)
    if whole is not None:
        return Attached(whole, _tokens(whole), is_whole=bool(whole))
    found = await asearch(
        turn.query, user=turn.user, private=turn.attachments, limit=12, budget=budget
    )
    return Attached(found.passages, _tokens(found.passages), relevance=found.relevance)


def _tokens(passages: Sequence[Passage]) -> int:
    counter = engines.token_counter()
    return sum(counter.count(passage.text) for passage in passages)


async def _read(collection: UUID, user: AnyUser) -> None:
    """Wait until every file is read. Raises EngineError."""
    until = monotonic() + settings.ATTACHMENT_WAIT_SECONDS
    while (waiting := await _unread(collection, user)) is not None:
        if monotonic() > until:
            raise EngineError(
                "attachment_waiting",
                f"“{waiting}” is still being read. Ask again when it is ready: the list of"
                " attached files says how far it is.",
                retryable=True,
            )
        await asyncio.sleep(_LOOK_SECONDS)


@in_database
def _unread(collection: UUID, user: AnyUser) -> str | None:
    """The title of one that is still being read. Raises EngineError when one failed."""
    files = Document.objects.readable_by(user).filter(collection=collection)
    unread = files.filter(latest_version__job__finished_at=None)
    title: str | None = unread.values_list("title", flat=True).first()
    if title is not None:
        return title
    # What failed inside a mail or an archive is said on its page, like that of the library.
    failed = (
        files.filter(parent=None)
        .filter(Q(current_version=None) | ~Q(current_version=F("latest_version")))
        .values_list("title", "latest_version__job__error_detail")
        .first()
    )
    if failed is not None:
        raise EngineError(
            "attachment_failed",
            f"“{failed[0]}” could not be read: {failed[1]} Remove it from the attached files, or"
            " attach another, and ask again.",
            retryable=True,
        )
    return None
