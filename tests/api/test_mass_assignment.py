"""Every model field in every body that writes: what is protected never changes.

OWASP API3:2023. Names are taken from the models, so that a new column is covered at once.
"""

from __future__ import annotations

from typing import Any

import pytest
from django.db import models

from assistant.chat.models import AnswerStatus, Conversation, Feedback, Message
from assistant.documents.models import Collection, Document, DocumentVersion
from assistant.permissions.models import Grant
from assistant.users.models import ApiToken, User
from ingestion.models import IngestionJob
from tests.api.calls import JSON
from tests.factories import file_named, make_collection, make_document, make_user

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("fake_llm")]
MODELS: tuple[type[models.Model], ...] = (
    Collection, Document, DocumentVersion, IngestionJob, Grant,
    Conversation, Message, Feedback, User, ApiToken,
)  # fmt: skip
# What a body may set, by address.
MEANT = {
    "name", "description", "title", "metadata", "source_url", "external_id", "collection",
    "collections", "rating", "reasons", "comment", "role", "group", "everyone", "effort", "text",
    "media_type", "batch", "path",
}  # fmt: skip


def every_field() -> set[str]:
    names = {field.attname for model in MODELS for field in model._meta.concrete_fields}
    names |= {field.name for model in MODELS for field in model._meta.concrete_fields}
    return names - MEANT


def hostile(world: Any, *, meant: dict[str, Any]) -> list[dict[str, Any]]:
    """The body with every foreign field at once, and with each that is refused by itself."""
    values: dict[str, Any] = dict.fromkeys(every_field(), True)
    for name in values:
        if "user" in name or name in ("created_by", "created_by_id", "owner", "actor_id"):
            values[name] = str(world["eve"].pk)
        elif name.endswith("_id") or name in ("id", "pk"):
            values[name] = str(world["victim"].pk)
        elif name.endswith("_at"):
            values[name] = "1999-01-01T00:00:00Z"
        elif name == "status":
            values[name] = "ready"
    refused = {"id", "pk", "user", "user_id", "owner", "created_by", "created_by_id", "tenant"}
    quiet = {name: value for name, value in values.items() if name not in refused}
    return [{**quiet, **meant}, *({**meant, name: values.get(name, True)} for name in refused)]


def protected(world: Any) -> dict[str, Any]:
    """Everything about rows that no body may touch."""

    def rows(model: type[models.Model], *fields: str) -> list[Any]:
        return list(model._base_manager.order_by("pk").values("pk", *fields))

    return {
        "users": rows(User, "email", "is_active", "is_staff", "is_superuser", "password"),
        "grants": rows(Grant, "user_id", "group_id", "everyone", "role", "collection_id"),
        "tokens": rows(ApiToken, "user_id", "scopes", "digest", "expires_at", "revoked_at"),
        "victim": Document.objects.filter(pk=world["victim"].pk).values().get(),
        "jobs": rows(IngestionJob, "status", "fence", "attempts", "version_id"),
        "versions": rows(DocumentVersion, "document_id", "number", "sha256", "storage_key"),
        "messages": rows(Message, "conversation_id", "role", "text", "status", "model"),
    }


@pytest.fixture
def world(as_caller: Any) -> dict[str, Any]:
    ada, eve = as_caller(make_user()), make_user()
    collection = make_collection(managers=[ada.user])
    conversation = Conversation.objects.create(user=ada.user)
    answer = Message.objects.create(
        conversation=conversation,
        role=Message.Role.ANSWER,
        ordinal=1,
        status=AnswerStatus.DONE,
        text="At noon.",
    )
    return {
        "client": ada.with_token(),
        "ada": ada.user,
        "eve": eve,
        "collection": collection,
        "victim": make_document(make_collection(managers=[eve])),
        "conversation": conversation,
        "answer": answer,
    }


def test_the_fuzz_has_teeth() -> None:
    assert {"is_superuser", "created_by_id", "deleted_at", "fence", "digest"} <= every_field()


def test_changing_a_collection(world: Any) -> None:
    collection, before = world["collection"], protected(world)
    for body in hostile(world, meant={"name": "New"}):
        world["client"].patch(f"/api/v1/collections/{collection.pk}/", body, **JSON)
        found = Collection.objects.filter(created_by=None).get(pk=collection.pk)
        assert found.created_at == collection.created_at
        assert Collection.objects.count() == 2
        assert protected(world) == before


def test_making_a_collection(world: Any) -> None:
    before = protected(world)
    for body in hostile(world, meant={"name": "New"}):
        answer = world["client"].post("/api/v1/collections/", body, **JSON)
        assert answer.status_code in (201, 400)
        if answer.status_code == 201:
            made = Collection.objects.get(pk=answer.json()["id"])
            assert made.created_by == world["ada"]
            assert made.created_at.year > 2000
            assert str(made.pk) != str(world["victim"].pk)
            made.delete()
    assert protected(world) == before


def test_making_a_document(world: Any) -> None:
    before = protected(world)
    meant = {"collection": str(world["collection"].pk), "external_id": "new"}
    for body in hostile(world, meant=meant):
        text = {name: str(value) for name, value in body.items()}
        upload = {**text, "file": file_named("new.md", b"New.")}
        answer = world["client"].post("/api/v1/documents/", upload)
        assert answer.status_code in (202, 400), answer.content
        if answer.status_code == 202:
            made = Document.objects.get(pk=answer.json()["id"])
            assert (made.collection, made.created_by) == (world["collection"], world["ada"])
            assert answer.json()["status"] == "queued"
            assert made.created_at.year > 2000
            assert made.current_version is None
            Document.objects.filter(pk=made.pk).delete()
    assert protected(world) == before


def test_a_batch(world: Any) -> None:
    before = protected(world)
    meant = {"external_id": "new", "title": "New", "text": "New."}
    documents = hostile(world, meant=meant)
    answer = world["client"].post(
        "/api/v1/documents/batch/",
        {"collection": str(world["collection"].pk), "documents": documents},
        **JSON,
    )
    taken = [row for row in answer.json()["results"] if "id" in row]
    assert len(taken) == 1
    made = Document.objects.get(pk=taken[0]["id"])
    assert (made.collection, made.created_by) == (world["collection"], world["ada"])
    Document.objects.filter(pk=made.pk).delete()
    assert protected(world) == before


def test_conversations_and_feedback(world: Any) -> None:
    client, before = world["client"], protected(world)
    conversation, answer = world["conversation"], world["answer"]
    for body in hostile(world, meant={"title": "New"}):
        client.patch(f"/api/v1/conversations/{conversation.pk}/", body, **JSON)
        made = client.post("/api/v1/conversations/", body, **JSON)
        assert made.status_code in (201, 400)
    assert set(Conversation.objects.values_list("user", flat=True)) == {world["ada"].pk}
    for body in hostile(world, meant={"rating": "up"}):
        client.post(f"/api/v1/answers/{answer.pk}/feedback", body, **JSON)
    feedback = Feedback.objects.get()
    assert (feedback.answer_id, feedback.rating) == (answer.pk, "up")
    assert feedback.created_at.year > 2000
    assert protected(world) == before


def test_a_question_is_nothing_but_its_text(world: Any) -> None:
    client, conversation = world["client"], world["conversation"]
    for body in hostile(world, meant={"content": "When?"}):
        for choice in ("effort", "model", "filters", "parent"):  # what an asker may choose
            body.pop(choice, None)
        client.post(f"/api/v1/conversations/{conversation.pk}/messages/", body, **JSON)
    question, answer = Message.objects.filter(ordinal__gt=1)
    assert (question.role, question.text, question.status) == ("question", "When?", "done")
    assert (answer.role, answer.text, answer.status) == ("answer", "", "pending")
    assert question.conversation_id == answer.conversation_id == conversation.pk


def test_a_grant_names_subject_and_role_only(world: Any) -> None:
    collection = world["collection"]
    grant = {"user": world["ada"].email, "role": "manager"}
    for body in hostile(world, meant={"grants": [{**grant, "id": 1, "collection_id": 7}]}):
        world["client"].put(f"/api/v1/collections/{collection.pk}/grants/", body, **JSON)
    assert Grant.objects.get(collection=collection).user == world["ada"]
    assert Grant.objects.count() == 2
