"""Rows for tests, made by the actions that make them in production wherever there is one."""

from __future__ import annotations

import io
import itertools
from collections.abc import Iterable, Sequence
from typing import Any
from uuid import UUID

from django.contrib.auth.models import Group
from django.core.files.base import ContentFile
from django.db import transaction

from assistant.chat.models import Citation, Conversation, Message
from assistant.documents import actions as documents
from assistant.documents.actions import Upload
from assistant.documents.models import Collection, Document, DocumentVersion
from assistant.permissions.models import Grant
from assistant.permissions.roles import Role
from assistant.retrieval import index, spaces
from assistant.users.models import User
from inference.fakes import FakeEmbedder
from ingestion.elements import ChunkDraft
from ingestion.models import IngestionJob, JobStatus

PASSWORD = "correct horse battery staple"


_numbers = itertools.count(1)


def make_group(name: str | None = None) -> Group:
    return Group.objects.create(name=name or f"group {next(_numbers)}")


def make_user(
    *,
    email: str | None = None,
    groups: Iterable[Group] = (),
    is_superuser: bool = False,
    **fields: Any,
) -> User:
    """A person whose password is ``PASSWORD``."""
    number = next(_numbers)
    fields = {"name": f"Person {number}", "password": PASSWORD, **fields}
    make = User.objects.create_superuser if is_superuser else User.objects.create_user
    user = make(email or f"person{number}@example.com", **fields)
    user.groups.set(groups)
    return user


def make_collection(
    *,
    readers: Iterable[User | Group] = (),
    contributors: Iterable[User | Group] = (),
    managers: Iterable[User | Group] = (),
    everyone: Role | None = None,
    **fields: Any,
) -> Collection:
    """A collection with these grants. Nobody else has a role, not even whoever made it."""
    fields = {"name": f"Collection {next(_numbers)}", **fields}
    collection = Collection.objects.create(**fields)
    members = {Role.READER: readers, Role.CONTRIBUTOR: contributors, Role.MANAGER: managers}
    for role, subjects in members.items():
        for subject in subjects:
            key = "group" if isinstance(subject, Group) else "user"
            Grant.objects.create(collection=collection, role=role, **{key: subject})
    if everyone is not None:
        Grant.objects.create(collection=collection, role=everyone, everyone=True)
    return collection


def make_document(
    collection: Collection,
    *,
    text: str = "The canteen opens at noon.",
    title: str = "Canteen",
    external_id: str | None = None,
    filename: str = "canteen.md",
    media_type: str = "text/markdown",
    actor: User | None = None,
    ready: bool = True,
    boxes: Sequence[dict[str, Any]] = (),
) -> Document:
    """A document as the pipeline leaves it: stored, chunked paragraph by paragraph, published.

    With ``ready=False`` it stays queued. ``boxes`` are from ``line_box``.
    """
    actor = actor or make_user()
    with transaction.atomic():
        version, _ = documents.store_version(
            collection.pk,
            Upload(
                content=io.BytesIO(text.encode()),
                filename=filename,
                media_type=media_type,
                title=title,
                external_id=external_id,
            ),
            actor=actor,
        )
        job = IngestionJob.objects.create(version=version)
    if ready:
        publish(version, text, boxes=boxes)
        IngestionJob.objects.filter(pk=job.pk).update(
            status=JobStatus.READY, stage_done=version.chunk_count or 0
        )
    document: Document = Document.objects.get(pk=version.document_id)
    return document


def line_box(page: int, char_start: int, char_end: int) -> dict[str, Any]:
    """Of a line on a page, as it is stored."""
    sides = {"x0": 0.1, "y0": 0.1, "x1": 0.9, "y1": 0.12}
    return {"page": page, "char_start": char_start, "char_end": char_end, **sides}


def publish(version: DocumentVersion, text: str, *, boxes: Sequence[dict[str, Any]] = ()) -> None:
    """Text, chunks and vectors of one version, written by the actions of the pipeline."""
    drafts = _drafts(text, title=version.document.title)
    with transaction.atomic():
        documents.store_text(version.pk, text=text, elements=[], boxes=list(boxes))
        index.replace_chunks(version, drafts)
        DocumentVersion.objects.filter(pk=version.pk).update(chunk_count=len(drafts))
    with transaction.atomic():
        spaces.hold()
        _embed(version.pk)
        documents.publish_versions([version.pk])
        index.remove_superseded_chunks([version.document_id])


def _drafts(text: str, *, title: str) -> list[ChunkDraft]:
    drafts: list[ChunkDraft] = []
    position = 0
    for paragraph in text.split("\n\n"):
        if paragraph.strip():
            drafts.append(
                ChunkDraft(
                    ordinal=len(drafts),
                    text=paragraph,
                    embed_text=f"{title}\n{paragraph}",
                    char_start=position,
                    char_end=position + len(paragraph),
                )
            )
        position += len(paragraph) + 2
    return drafts


def _embed(version_id: UUID) -> None:
    space = spaces.ensure_active(FakeEmbedder().spec)
    embedder = FakeEmbedder(spaces.spec_of(space))
    while batch := index.chunks_without_vector([version_id], space=space, limit=64):
        vectors = embedder.embed([chunk.embed_text for chunk in batch], kind="passage")
        index.store_vectors(batch, vectors, space=space)


def make_turn(conversation: Conversation, *, question: str = "When?", **answer: Any) -> Message:
    """A question at the end of the branch that is shown, and its answer, which is returned."""
    last = conversation.messages.count()
    asked = Message.objects.create(
        conversation=conversation,
        parent=conversation.leaf,
        role=Message.Role.QUESTION,
        ordinal=last + 1,
        text=question,
    )
    made: Message = Message.objects.create(
        conversation=conversation,
        parent=asked,
        role=Message.Role.ANSWER,
        ordinal=last + 2,
        **answer,
    )
    conversation.leaf = made
    conversation.save()
    return made


def make_citation(answer: Message, document: Document, **fields: Any) -> Citation:
    """A verified one of the version that answers; ``fields`` are quote and locator at least."""
    fields = {"ordinal": 0, "number": 1, "version": document.current_version, **fields}
    return Citation.objects.create(answer=answer, document=document, verified=True, **fields)


def file_named(name: str, content: bytes) -> ContentFile[bytes]:
    return ContentFile(content, name=name)
