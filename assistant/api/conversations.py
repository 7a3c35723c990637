"""Conversations of the caller and of nobody else."""

from __future__ import annotations

from typing import Any, ClassVar
from uuid import UUID

from django.db import transaction
from rest_framework import status
from rest_framework.request import Request
from rest_framework.response import Response

from assistant.api.answer_shapes import (
    AskedSerializer,
    ConversationBody,
    ConversationChangeBody,
    ConversationDetailSerializer,
    ConversationSerializer,
    MessageBody,
    asked_json,
    branch_json,
    conversation_json,
)
from assistant.api.authentication import token_of
from assistant.api.base import OwnedViewSet, page_of
from assistant.api.idempotency import IDEMPOTENCY_KEY, idempotency_key
from assistant.api.schema import operation
from assistant.api.search import ignored_of
from assistant.chat import actions
from assistant.chat.branching import branch_of
from assistant.chat.models import Conversation

_TAGS = ["conversations"]


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
        """A conversation with the messages of the branch that is shown.

        The evidence of an answer is at `get_answer`.
        """
        conversation = self.get_object()
        messages = branch_json(branch_of(conversation), user=self.person)
        return Response(conversation_json(conversation) | {"messages": messages})

    @operation(
        "update_conversation",
        request=ConversationChangeBody,
        responses={200: ConversationSerializer},
        errors=[400, 404, 413, 415],
        tags=_TAGS,
    )
    def partial_update(self, request: Request, pk: UUID) -> Response:
        """Rename it, change where its next questions look, or show another of its branches."""
        conversation = self.get_object()
        body = ConversationChangeBody(data=request.data)
        body.is_valid(raise_exception=True)
        sent = body.validated_data
        with transaction.atomic():
            if "title" in sent:
                actions.rename_conversation(conversation, title=sent["title"], user=self.person)
            if "collections" in sent:
                actions.set_collections(conversation, sent["collections"] or [], user=self.person)
            if "filters" in sent:
                actions.set_filters(conversation, sent["filters"] or {})
            if "branch" in sent:
                actions.choose_branch(conversation.messages.get(pk=sent["branch"]))
        return Response(conversation_json(self.get_object()))

    @operation("delete_conversation", responses={204: None}, errors=[404], tags=_TAGS)
    def destroy(self, request: Request, pk: UUID) -> Response:
        """Delete it with its messages; an answer that is being written stops."""
        actions.delete_conversation(self.get_object(), user=self.person)
        return Response(status=status.HTTP_204_NO_CONTENT)

    @operation(
        "ask",
        request=MessageBody,
        parameters=[IDEMPOTENCY_KEY],
        responses={202: AskedSerializer},
        errors=[400, 404, 409, 413, 415, 429],
        example={"content": "How many days of leave do I have?"},
        tags=_TAGS,
    )
    def ask(self, request: Request, pk: UUID) -> Response:
        """Ask the next question. Follow the answer at `/api/v1/answers/{id}/events`."""
        body = MessageBody(data=request.data)
        body.is_valid(raise_exception=True)
        question, answer = actions.ask(
            pk,
            content=body.validated_data["content"],
            user=self.person,
            effort=body.validated_data.get("effort", ""),
            model=body.validated_data.get("model", ""),
            parent=body.validated_data.get("parent", "leaf"),
            filters=body.validated_data.get("filters"),
            ignored=ignored_of(body.validated_data),
            idempotency_key=idempotency_key(request),
            token=token_of(request),
        )
        return Response(
            asked_json(question, answer, user=self.person), status=status.HTTP_202_ACCEPTED
        )
