"""The versions of a document: listing, adding, restoring; resting a document; its chunks."""

from __future__ import annotations

from typing import Any, ClassVar
from uuid import UUID

from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiParameter
from rest_framework import exceptions, serializers, status
from rest_framework.request import Request
from rest_framework.response import Response

from assistant.api.base import ScopedViewSet
from assistant.api.document_shapes import (
    DocumentSerializer,
    ErrorSerializer,
    StatusField,
    UploadedSerializer,
    VersionBody,
    asked_version,
    document_json,
    error_json,
    twin_json,
    with_versions,
)
from assistant.api.pagination import ByOrdinal
from assistant.api.parsers import MultiPartParser, StrictJSONParser
from assistant.api.problems import Problem, ProblemError
from assistant.api.schema import operation
from assistant.documents import actions as documents
from assistant.documents.actions import Upload
from assistant.documents.duplicates import twin_of
from assistant.documents.models import Document
from assistant.permissions.roles import Role
from assistant.retrieval import inspection
from ingestion import actions as ingestion
from ingestion.progress import progress_of

_TAGS = ["documents"]
_NUMBER = OpenApiParameter("number", OpenApiTypes.INT, OpenApiParameter.PATH)


class VersionSerializer(serializers.Serializer[Any]):
    id = serializers.UUIDField()
    number = serializers.IntegerField()
    status = StatusField()
    stage = serializers.CharField(help_text="The state in words.")
    error = ErrorSerializer(allow_null=True)
    answering = serializers.BooleanField(help_text="Whether it answers questions now.")
    restored_from = serializers.IntegerField(
        allow_null=True, help_text="Number of the version whose bytes it has."
    )
    filename = serializers.CharField()
    media_type = serializers.CharField()
    size = serializers.IntegerField()
    sha256 = serializers.CharField()
    pages = serializers.IntegerField(allow_null=True)
    chunks = serializers.IntegerField(allow_null=True)
    created_by = serializers.CharField(allow_null=True, help_text="Name of who uploaded it.")
    created_at = serializers.DateTimeField()


class VersionsSerializer(serializers.Serializer[Any]):
    results = VersionSerializer(many=True)


class ChunkSerializer(serializers.Serializer[Any]):
    """`text` is `[char_start, char_end)` of the version's text; `context` is embedded before it."""

    ordinal = serializers.IntegerField()
    text = serializers.CharField()
    context = serializers.CharField(allow_blank=True)  # type: ignore[assignment]  # a field, not the property
    heading_path = serializers.ListField(child=serializers.CharField())
    page = serializers.IntegerField(allow_null=True)
    char_start = serializers.IntegerField()
    char_end = serializers.IntegerField()
    tokens = serializers.IntegerField(help_text="Of context and text, as the model counts.")
    has_vector = serializers.BooleanField()


class ChunksSerializer(serializers.Serializer[Any]):
    next = serializers.URLField(allow_null=True, help_text="The next page; null on the last one.")
    results = ChunkSerializer(many=True)


class DocumentVersionsViewSet(ScopedViewSet):
    queryset = Document.objects.all()
    serializer_class = DocumentSerializer
    basename = "document"
    roles: ClassVar[dict[str, Role]] = {
        "versions": Role.READER,
        "add": Role.CONTRIBUTOR,
        "restore": Role.CONTRIBUTOR,
        "disable": Role.CONTRIBUTOR,
        "enable": Role.CONTRIBUTOR,
        "chunks": Role.CONTRIBUTOR,
    }

    def get_parsers(self) -> list[Any]:
        is_upload = getattr(self, "action_map", {}).get("post") == "add"
        return [MultiPartParser() if is_upload else StrictJSONParser()]

    def get_queryset(self) -> Any:
        rows: Any = super().get_queryset()
        if self.action == "chunks":  # what the index holds is nothing a reader is told of
            rows = rows.for_user(self.person, Role.CONTRIBUTOR)
        return with_versions(rows)

    @operation("list_versions", responses={200: VersionsSerializer}, errors=[404], tags=_TAGS)
    def versions(self, request: Request, pk: UUID) -> Response:
        """All versions, newest first."""
        document = self.get_object()
        rows = list(document.versions.select_related("job", "created_by"))
        progress = progress_of(row.job for row in rows)
        return Response(
            {"results": [_version_json(document, row, progress[row.job.pk]) for row in rows]}
        )

    @operation(
        "add_version",
        request={"multipart/form-data": VersionBody},
        responses={202: UploadedSerializer},
        errors=[400, 404, 413, 415, 422],
        tags=_TAGS,
    )
    def add(self, request: Request, pk: UUID) -> Response:
        """Upload the next version of this document. Until it is ready, the present one answers."""
        document = self.get_object()
        body = VersionBody(data=request.data)
        body.is_valid(raise_exception=True)
        file = body.validated_data["file"]
        upload = Upload(
            content=file.file, filename=file.name, media_type="", document_id=document.pk
        )
        version = ingestion.accept_upload(document.collection_id, upload, actor=self.person)
        twin = twin_of(version, user=self.person)
        return self._accepted(document, duplicate_of=twin_json(twin))

    @operation(
        "restore_version",
        request=None,
        parameters=[_NUMBER],
        responses={202: DocumentSerializer},
        errors=[404, 409],
        tags=_TAGS,
    )
    def restore(self, request: Request, pk: UUID, number: int) -> Response:
        """Make the bytes of an older version the newest version again."""
        document = self.get_object()
        version = document.versions.filter(number=number).first()
        if version is None:
            raise exceptions.NotFound
        try:
            ingestion.restore_version(version, actor=self.person)
        except FileNotFoundError as error:
            raise ProblemError(
                Problem(
                    409,
                    "The original of this version is lost, so it cannot be restored. Upload the"
                    " file again.",
                    code="lost",
                )
            ) from error
        return self._accepted(document)

    @operation(
        "disable_document",
        request=None,
        responses={200: DocumentSerializer},
        errors=[404],
        tags=_TAGS,
    )
    def disable(self, request: Request, pk: UUID) -> Response:
        """From now on it answers nothing, nor do its parts. It stays readable; nothing is lost."""
        return self._switch(disabled=True)

    @operation(
        "enable_document",
        request=None,
        responses={200: DocumentSerializer},
        errors=[404],
        tags=_TAGS,
    )
    def enable(self, request: Request, pk: UUID) -> Response:
        """Let it answer again."""
        return self._switch(disabled=False)

    @operation(
        "list_chunks",
        parameters=[
            OpenApiParameter(
                "version", int, description="A version's number. Default: the one that answers."
            ),
            OpenApiParameter("start", int, description="The first ordinal wanted, from 0."),
            OpenApiParameter("limit", int, description="Rows on a page, up to 200."),
        ],
        responses={200: ChunksSerializer},
        errors=[400, 404],
        tags=_TAGS,
    )
    def chunks(self, request: Request, pk: UUID) -> Response:
        """What the index holds of a version, in its order. For contributors."""
        version = asked_version(self.get_object(), request)
        page = ByOrdinal(request)
        rows = inspection.chunks_of(
            version.pk, user=self.person, start=page.start, limit=page.limit + 1
        )
        return page.response([_chunk_json(row) for row in rows])

    def _switch(self, *, disabled: bool) -> Response:
        document = self.get_object()
        documents.set_disabled(document, disabled=disabled, actor=self.person)
        return Response(document_json(self.get_queryset().get(pk=document.pk)))

    def _accepted(self, document: Document, **more: Any) -> Response:
        fresh = self.get_queryset().get(pk=document.pk)
        return Response({**document_json(fresh), **more}, status=status.HTTP_202_ACCEPTED)


def _version_json(document: Document, version: Any, progress: Any) -> dict[str, Any]:
    author = version.created_by
    return {
        "id": str(version.pk),
        "number": version.number,
        "status": version.job.status,
        "stage": progress.sentence,
        "error": error_json(version.job),
        "answering": version.pk == document.current_version_id and document.disabled_at is None,
        "restored_from": version.restored_from,
        "filename": version.filename,
        "media_type": version.media_type,
        "size": version.size,
        "sha256": version.sha256,
        "pages": version.page_count,
        "chunks": version.chunk_count,
        "created_by": author.display_name if author else None,
        "created_at": version.created_at,
    }


def _chunk_json(chunk: inspection.IndexedChunk) -> dict[str, Any]:
    return {
        "ordinal": chunk.ordinal,
        "text": chunk.text,
        "context": chunk.context,
        "heading_path": list(chunk.heading_path),
        "page": chunk.page,
        "char_start": chunk.char_start,
        "char_end": chunk.char_end,
        "tokens": chunk.tokens,
        "has_vector": chunk.has_vector,
    }
