"""Fetch and authorise in one call: a view cannot hold an object that its person may not see."""

from __future__ import annotations

from typing import NoReturn
from uuid import UUID

from django.core.exceptions import PermissionDenied
from django.db.models import Model, QuerySet
from django.shortcuts import get_object_or_404

from assistant.audit.models import record
from assistant.chat.models import Conversation, Message
from assistant.documents.models import Collection, Document
from assistant.permissions import policy
from assistant.permissions.roles import Role
from assistant.users.models import User

_NEEDED = {
    Role.CONTRIBUTOR: "Only contributors and managers of this collection may do that. "
    "Ask one of its managers for the contributor role.",
    Role.MANAGER: "Only managers of this collection may do that.",
}


def readable_collection(user: User, pk: UUID) -> Collection:
    """Raises Http404 for a collection that is absent or hidden, without saying which."""
    return get_object_or_404(Collection.objects.for_user(user), pk=pk)


def collection_for(user: User, pk: UUID, role: Role, *, action: str) -> Collection:
    """Like ``readable_collection``; too low a role raises PermissionDenied and is audited."""
    collection = readable_collection(user, pk)
    if not policy.has_role(user, role, collection_id=collection.pk):
        _refuse(user, action, collection, role)
    return collection


def readable_document(user: User, pk: UUID) -> Document:
    """Also one that is attached to the person's own conversation."""
    documents: QuerySet[Document] = Document.objects.readable_by(user).select_related(
        "collection", "current_version", "latest_version__job", "parent"
    )
    return get_object_or_404(documents, pk=pk)


def document_for(user: User, pk: UUID, role: Role, *, action: str) -> Document:
    """Like ``readable_document``; too low a role raises PermissionDenied and is audited."""
    document = readable_document(user, pk)
    if not policy.has_role(user, role, collection_id=document.collection_id):
        record(user, action, document, collection_id=document.collection_id, denied=True)
        raise PermissionDenied(_NEEDED[role])
    return document


def own_conversation(user: User, pk: UUID) -> Conversation:
    return get_object_or_404(Conversation.objects.for_user(user), pk=pk)


def own_message(user: User, pk: UUID) -> Message:
    messages = Message.objects.for_user(user)
    return get_object_or_404(messages.select_related("conversation", "feedback"), pk=pk)


def own_question(user: User, pk: UUID) -> Message:
    questions = Message.objects.for_user(user).filter(role=Message.Role.QUESTION)
    return get_object_or_404(questions.select_related("conversation"), pk=pk)


def own_answer(user: User, pk: UUID) -> Message:
    answers = Message.objects.for_user(user).filter(role=Message.Role.ANSWER)
    related = ("conversation", "parent", "feedback")
    return get_object_or_404(answers.select_related(*related), pk=pk)


def _refuse(user: User, action: str, target: Model, role: Role) -> NoReturn:
    record(user, action, target, collection_id=target.pk, denied=True)
    raise PermissionDenied(_NEEDED[role])
