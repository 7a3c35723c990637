"""Conversations of the caller and of nobody else."""

from __future__ import annotations

from typing import Any, ClassVar
from uuid import UUID

from django.db import transaction
from drf_spectacular.utils import OpenApiParameter
from rest_framework import exceptions, status
from rest_framework.request import Request
from rest_framework.response import Response

from assistant.api.answer_shapes import (
    AskedSerializer,
    ConversationBody,
    ConversationDetailSerializer,
    ConversationSerializer,
    MessageBody,
    conversation_json,
    message_json,
)
from assistant.api.authentication import token_of
from assistant.api.base import OwnedViewSet, page_of
from assistant.api.schema import operation
from assistant.api.search import ignored_of
from assistant.chat import actions
from assistant.chat.models import Conversation

_TAGS = ["conversations"]
_KEY_CHARACTERS = 200


class ConversationViewSet(OwnedViewSet):
    queryset = Conversation.objects.all()
    serializer_class = ConversationSerializer
    actions_allowed: ClassVar[frozenset[str]] = frozenset(
        {"list", "create", "retrieve", "partial_update", "destroy", "ask"}
    )
    read_actions: ClassVar[frozenset[str]] = frozenset({"create", "ask"})

    def get_queryset(self) -> Any:
        return super().get_queryset().prefetch_related("collections")

    @operation("list_conversations", responses={200: ConversationSerializer(many=True)}, tags=_TAGS)
    def list(self, request: Request) -> Response:
        """The caller's conversations, newest first."""
        rows = page_of(self, self.get_queryset())
        return self.get_paginated_response([conversation_json(row) for row in rows])

    @operation(
        "create_conversation",
        request=ConversationBody,
        responses={201: ConversationSerializer},
        errors=[400, 404, 413, 415],
        example={"title": "Leave"},
        tags=_TAGS,
    )
    def create(self, request: Request) -> Response:
        """Begin a conversation; without `collections` it asks everything the caller may read."""
        body = ConversationBody(data=request.data)
        body.is_valid(raise_exception=True)
        conversation = actions.create_conversation(
            user=self.person,
            collections=body.validated_data.get("collections") or [],
            filters=body.validated_data.get("filters"),
            title=body.validated_data.get("title", ""),
        )
        return Response(conversation_json(conversation), status=status.HTTP_201_CREATED)

    @operation(
        "get_conversation",
        responses={200: ConversationDetailSerializer},
        errors=[404],
        tags=_TAGS,
    )
    def retrieve(self, request: Request, pk: UUID) -> Response:
        """A conversation with its messages; the evidence of an answer is at `get_answer`."""
        conversation = self.get_object()
        messages = [
            message_json(message, user=self.person) for message in conversation.messages.all()
        ]
        return Response(conversation_json(conversation) | {"messages": messages})

    @operation(
        "update_conversation",
        request=ConversationBody,
        responses={200: ConversationSerializer},
        errors=[400, 404, 413, 415],
        tags=_TAGS,
    )
    def partial_update(self, request: Request, pk: UUID) -> Response:
        """Rename it, or change where its next questions look."""
        conversation = self.get_object()
        body = ConversationBody(data=request.data)
        body.is_valid(raise_exception=True)
        sent = body.validated_data
        with transaction.atomic():
            if "title" in sent:
                actions.rename_conversation(conversation, title=sent["title"], user=self.person)
            if "collections" in sent:
                actions.set_collections(conversation, sent["collections"] or [], user=self.person)
            if "filters" in sent:
                actions.set_filters(conversation, sent["filters"] or {})
        return Response(conversation_json(self.get_object()))

    @operation("delete_conversation", responses={204: None}, errors=[404], tags=_TAGS)
    def destroy(self, request: Request, pk: UUID) -> Response:
        """Delete it with its messages; an answer that is being written stops."""
        actions.delete_conversation(self.get_object(), user=self.person)
        return Response(status=status.HTTP_204_NO_CONTENT)

    @operation(
        "ask",
        request=MessageBody,
        parameters=[
            OpenApiParameter(
                "Idempotency-Key",
                str,
                OpenApiParameter.HEADER,
                description="A name of yours for this question. Sent again, the same question and"
                " answer come back and nothing is asked twice.",
            )
        ],
        responses={202: AskedSerializer},
        errors=[400, 404, 409, 413, 415, 429],
        example={"content": "How many days of leave do I have?"},
        tags=_TAGS,
    )
    def ask(self, request: Request, pk: UUID) -> Response:
        """Ask the next question. Follow the answer at `/api/v1/answers/{id}/events`."""
        conversation = self.get_object()
        body = MessageBody(data=request.data)
        body.is_valid(raise_exception=True)
        question, answer = actions.ask(
            conversation,
            content=body.validated_data["content"],
            user=self.person,
            effort=body.validated_data.get("effort", ""),
            model=body.validated_data.get("model", ""),
            filters=body.validated_data.get("filters"),
            ignored=ignored_of(body.validated_data),
            idempotency_key=_idempotency_key(request),
            token=token_of(request),
        )
        return Response(
            {
                "question": message_json(question, user=self.person),
                "answer": {"id": str(answer.pk), "status": answer.status},
            },
            status=status.HTTP_202_ACCEPTED,
        )


def _idempotency_key(request: Request) -> str | None:
    key: str = request.headers.get("Idempotency-Key", "").strip()
    if len(key) > _KEY_CHARACTERS or not key.isprintable():
        raise exceptions.ValidationError(
            {"Idempotency-Key": [f"At most {_KEY_CHARACTERS} printable characters."]}
        )
    return key or None
