"""Uploading, watching, fetching and deleting documents."""

from __future__ import annotations

import io
import logging
from typing import Any, ClassVar, Final
from uuid import UUID, uuid4

from django.db.models import Q
from django.http.response import HttpResponseBase
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiParameter
from rest_framework import status
from rest_framework.request import Request
from rest_framework.response import Response

from assistant.api.base import ScopedViewSet, page_of
from assistant.api.document_shapes import (
    TEXT_TYPES,
    BatchBody,
    BatchEnvelope,
    BatchItem,
    BatchResults,
    DocumentSerializer,
    ListQuery,
    UploadBody,
    UploadedSerializer,
    asked_version,
    document_json,
    documents_json,
    twin_json,
    with_versions,
)
from assistant.api.downloads import original_response
from assistant.api.parsers import MultiPartParser, StrictJSONParser
from assistant.api.problems import Problem, ProblemError, field_errors, problem_of
from assistant.api.schema import operation
from assistant.documents import actions as documents
from assistant.documents.actions import Upload
from assistant.documents.duplicates import twin_of
from assistant.documents.models import Collection, Document
from assistant.permissions.roles import Role
from ingestion import actions as ingestion
from ingestion.errors import IngestionError

log = logging.getLogger(__name__)

_TAGS = ["documents"]
_BATCH_BYTES: Final = 64 * 1024 * 1024


class DocumentViewSet(ScopedViewSet):
    queryset = Document.objects.all()
    serializer_class = DocumentSerializer
    basename = "document"
    roles: ClassVar[dict[str, Role]] = {
        "list": Role.READER,
        "create": Role.CONTRIBUTOR,
        "batch": Role.CONTRIBUTOR,
        "retrieve": Role.READER,
        "destroy": Role.CONTRIBUTOR,
        "file": Role.READER,
        "retry": Role.CONTRIBUTOR,
        "cancel": Role.CONTRIBUTOR,
    }

    by_id: ClassVar[frozenset[str]] = frozenset({"retrieve", "file"})

    @property
    def max_body_bytes(self) -> int:  # type: ignore[override]
        return _BATCH_BYTES if self.action == "batch" else ScopedViewSet.max_body_bytes

    def get_parsers(self) -> list[Any]:
        is_upload = getattr(self, "action_map", {}).get("post") == "create"
        return [MultiPartParser() if is_upload else StrictJSONParser()]

    def get_queryset(self) -> Any:
        return with_versions(super().get_queryset())

    @operation(
        "list_documents",
        parameters=[ListQuery],
        responses={200: DocumentSerializer(many=True)},
        errors=[400, 404],
        tags=_TAGS,
    )
    def list(self, request: Request) -> Response:
        """Documents that the caller may read, newest first."""
        query = ListQuery(data=request.query_params)
        query.is_valid(raise_exception=True)
        wanted = query.validated_data
        rows = self.get_queryset()
        if collection := wanted.get("collection"):
            rows = rows.filter(collection=self.collection_or_404(collection))
        if state := wanted.get("status"):
            rows = rows.filter(latest_version__job__status=state)
        if parent := wanted.get("parent"):
            rows = rows.filter(parent=parent)
        if batch := wanted.get("batch"):
            rows = rows.filter(latest_version__job__batch=batch)
        if part := wanted.get("q"):
            rows = rows.filter(
                Q(title__icontains=part) | Q(external_id__icontains=part) | Q(path__icontains=part)
            )
        return self.get_paginated_response(documents_json(page_of(self, rows)))

    @operation(
        "upload_document",
        request={"multipart/form-data": UploadBody},
        responses={202: UploadedSerializer},
        errors=[400, 404, 413, 415, 422],
        tags=_TAGS,
    )
    def create(self, request: Request) -> Response:
        """Upload one file. The answer comes at once; `status` tells when it is searchable.

        The same `external_id` in the collection is a new version, the same bytes are the version
        that is there already. `duplicate_of` is a notice: the file was taken all the same.
        """
        body = UploadBody(data=request.data)
        body.is_valid(raise_exception=True)
        sent = body.validated_data
        collection = self.collection_or_404(sent["collection"])
        upload = Upload(
            content=sent["file"].file,
            filename=sent["file"].name,
            media_type="",  # found out from the content, never taken from the client
            title=sent.get("title", ""),
            external_id=sent.get("external_id") or None,
            source_url=sent.get("source_url", ""),
            metadata=sent.get("metadata", {}),
            path=sent.get("path", ""),
        )
        version = ingestion.accept_upload(
            collection.pk, upload, actor=self.person, batch=sent.get("batch")
        )
        twin = twin_of(version, user=self.person)
        return self._accepted(version.document_id, duplicate_of=twin_json(twin))

    @operation(
        "upload_documents",
        request=BatchBody,
        responses={202: BatchResults},
        errors=[400, 404, 413, 415],
        example={
            "collection": "5a3f6c1e-8f0e-4a53-9d8e-0d7c6a1f2b3c",
            "documents": [
                {
                    "external_id": "handbook/leave",
                    "title": "Leave",
                    "text": "# Leave\n\nEverybody has 30 days of leave a year.",
                    "metadata": {"team": "people"},
                }
            ],
        },
        tags=_TAGS,
    )
    def batch(self, request: Request) -> Response:
        """Upload up to 500 texts. Each is taken or refused by itself, in order.

        `batch` is the one that was sent, or a new one.
        """
        body = BatchEnvelope(data=request.data)
        body.is_valid(raise_exception=True)
        collection = self.collection_or_404(body.validated_data["collection"])
        batch = body.validated_data.get("batch") or uuid4()
        items = body.validated_data["documents"]
        results = [self._take(collection, item, batch) for item in items]
        return Response({"batch": str(batch), "results": results}, status=status.HTTP_202_ACCEPTED)

    @operation("get_document", responses={200: DocumentSerializer}, errors=[404], tags=_TAGS)
    def retrieve(self, request: Request, pk: UUID) -> Response:
        """One document and how far its newest version is."""
        return Response(document_json(self.get_object()))

    @operation("delete_document", responses={204: None}, errors=[404], tags=_TAGS)
    def destroy(self, request: Request, pk: UUID) -> Response:
        """Delete it with all versions. From that moment it answers nothing."""
        documents.delete_document(self.get_object(), actor=self.person)
        return Response(status=status.HTTP_204_NO_CONTENT)

    @operation(
        "download_document",
        parameters=[
            OpenApiParameter(
                "version",
                int,
                description="A version's number. Default: the one that answers, else the newest.",
            )
        ],
        responses={(200, "application/octet-stream"): OpenApiTypes.BINARY},
        errors=[404],
        tags=_TAGS,
    )
    def file(self, request: Request, pk: UUID) -> HttpResponseBase:
        """The original file, as an attachment."""
        return original_response(request._request, asked_version(self.get_object(), request))

    @operation(
        "retry_document",
        request=None,
        responses={202: DocumentSerializer},
        errors=[404, 409],
        tags=_TAGS,
    )
    def retry(self, request: Request, pk: UUID) -> Response:
        """Try a failed or cancelled upload again."""
        document = self.get_object()
        if not ingestion.retry_jobs([document.latest_version.job], actor=self.person):
            raise ProblemError(
                Problem(409, "Only a failed or cancelled document can be retried.", code="state")
            )
        return self._accepted(document.pk)

    @operation(
        "cancel_document",
        request=None,
        responses={200: DocumentSerializer},
        errors=[404, 409],
        tags=_TAGS,
    )
    def cancel(self, request: Request, pk: UUID) -> Response:
        """Stop an upload that is not ready yet. An older version goes on answering."""
        document = self.get_object()
        if not ingestion.cancel_jobs([document.latest_version.job], actor=self.person):
            raise ProblemError(Problem(409, "There is nothing left to cancel.", code="state"))
        return Response(document_json(self.get_queryset().get(pk=document.pk)))

    def _accepted(self, document_id: UUID, **more: Any) -> Response:
        document = self.get_queryset().get(pk=document_id)
        return Response({**document_json(document), **more}, status=status.HTTP_202_ACCEPTED)

    def _take(self, collection: Collection, item: Any, batch: UUID) -> dict[str, Any]:
        """One item of a batch: what became of it, or what is wrong with it."""
        named = item.get("external_id") if isinstance(item, dict) else None
        external_id = named if isinstance(named, str) else None
        body = BatchItem(data=item)
        if not body.is_valid():
            return {"external_id": external_id, "errors": field_errors(body.errors)}
        sent = body.validated_data
        upload = Upload(
            content=io.BytesIO(sent["text"].encode()),
            filename=_filename(sent["external_id"], sent["media_type"]),
            media_type=sent["media_type"],
            title=sent["title"],
            external_id=sent["external_id"],
            source_url=sent.get("source_url", ""),
            metadata=sent.get("metadata", {}),
        )
        try:
            version = ingestion.accept_upload(collection.pk, upload, actor=self.person, batch=batch)
        except IngestionError as error:
            errors = {"text": [error.detail], "code": str(error.code)}
            return {"external_id": sent["external_id"], "errors": errors}
        except OSError as error:
            problem = problem_of(error)
            return {"external_id": sent["external_id"], "errors": {"detail": [problem.detail]}}
        return {
            "external_id": sent["external_id"],
            "id": str(version.document_id),
            "status": version.job.status,
            "duplicate_of": twin_json(twin_of(version, user=self.person)),
        }


def _filename(external_id: str, media_type: str) -> str:
    """A name for a text that came without a file: the end of its external id."""
    ending = TEXT_TYPES[media_type]
    stem = external_id.replace("\\", "/").rstrip("/").rpartition("/")[2] or "document"
    return stem if stem.lower().endswith(ending) else stem[: 255 - len(ending)] + ending
