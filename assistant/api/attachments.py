"""Files attached to a conversation of the caller's own; nobody else ever reads them."""

from __future__ import annotations

from typing import Any, ClassVar
from uuid import UUID

from rest_framework import exceptions, status
from rest_framework.request import Request
from rest_framework.response import Response

from assistant.api.base import OwnedViewSet, page_of
from assistant.api.document_shapes import (
    DocumentSerializer,
    VersionBody,
    document_json,
    documents_json,
    with_versions,
)
from assistant.api.parsers import MultiPartParser, StrictJSONParser
from assistant.api.schema import operation
from assistant.chat import attaching
from assistant.chat.models import Conversation
from assistant.documents.actions import Upload
from ingestion.actions import accept_upload

_TAGS = ["conversations"]


class AttachmentViewSet(OwnedViewSet):
    queryset = Conversation.objects.all()
    serializer_class = DocumentSerializer
    actions_allowed: ClassVar[frozenset[str]] = frozenset({"list", "create", "destroy"})

    def get_parsers(self) -> list[Any]:
        is_upload = getattr(self, "action_map", {}).get("post") == "create"
        return [MultiPartParser() if is_upload else StrictJSONParser()]

    @operation(
        "list_attachments",
        responses={200: DocumentSerializer(many=True)},
        errors=[404],
        tags=_TAGS,
    )
    def list(self, request: Request, pk: UUID) -> Response:
        """The files attached to a conversation, newest first, and how far they are."""
        rows = page_of(self, with_versions(self._attached(self.get_object())))
        return self.get_paginated_response(documents_json(rows))

    @operation(
        "attach_file",
        request={"multipart/form-data": VersionBody},
        responses={202: DocumentSerializer},
        errors=[400, 404, 413, 415, 422],
        tags=_TAGS,
    )
    def create(self, request: Request, pk: UUID) -> Response:
        """Attach a file to a conversation. Its next questions wait until it is read.

        It is the caller's alone, is found by no search, and goes with the conversation. Its
        `id` is that of a document: `/api/v1/documents/{id}/` says how far it is. The same file name
        again is a new version.
        """
        conversation = self.get_object()
        body = VersionBody(data=request.data)
        body.is_valid(raise_exception=True)
        file = body.validated_data["file"]
        upload = Upload(
            content=file.file, filename=file.name, media_type="", external_id=file.name[-500:]
        )
        document_id = attaching.attach(
            conversation,
            user=self.person,
            accept=lambda place: accept_upload(place, upload, actor=self.person),
        )
        document = with_versions(self._attached(conversation)).get(pk=document_id)
        return Response(document_json(document), status=status.HTTP_202_ACCEPTED)

    @operation("detach_file", responses={204: None}, errors=[404], tags=_TAGS)
    def destroy(self, request: Request, pk: UUID, document: UUID) -> Response:
        """Delete an attached file. Answers that were made from it are no longer shown."""
        conversation = self.get_object()
        found = self._attached(conversation).filter(pk=document).first()
        if found is None:
            raise exceptions.NotFound
        attaching.detach(conversation, found, user=self.person)
        return Response(status=status.HTTP_204_NO_CONTENT)

    def _attached(self, conversation: Conversation) -> Any:
        return attaching.attached_to(conversation, user=self.person)
