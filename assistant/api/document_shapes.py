"""How documents look from outside, and what may be sent to make one."""

from __future__ import annotations

from typing import Any, Final

from django.db.models import QuerySet
from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers

from assistant.api.fields import (
    BodySerializer,
    MetadataField,
    external_id_field,
    source_url_field,
)
from assistant.documents.models import Document
from ingestion.models import IngestionJob, JobStatus

MAX_BATCH: Final = 500
TEXT_TYPES: Final[dict[str, str]] = {
    "text/markdown": ".md",
    "text/plain": ".txt",
    "text/html": ".html",
    "text/csv": ".csv",
    "text/tab-separated-values": ".tsv",
    "application/json": ".json",
    "application/xml": ".xml",
    "application/yaml": ".yaml",
}
"""What a batch may hold as text, and the file name ending that says so."""


@extend_schema_field(
    {"type": "string", "enum": list(JobStatus.values)}, component_name="DocumentStatus"
)
class StatusField(serializers.ChoiceField):
    def __init__(self, **kwargs: Any) -> None:
        super().__init__(choices=JobStatus.values, **kwargs)


class UploadBody(BodySerializer):
    """``multipart/form-data``."""

    collection = serializers.UUIDField()
    file = serializers.FileField(
        allow_empty_file=True,  # ingestion says what is wrong with an empty file
        max_length=None,
        error_messages={"required": "Send the file as the form field `file`."},
    )
    external_id = external_id_field(required=False)
    title = serializers.CharField(required=False, allow_blank=True, max_length=500)
    metadata = MetadataField(required=False, help_text="A JSON object.")
    source_url = source_url_field()


class BatchItem(BodySerializer):
    external_id = external_id_field(required=True)
    title = serializers.CharField(max_length=500)
    text = serializers.CharField(trim_whitespace=False, allow_blank=True)
    media_type = serializers.ChoiceField(choices=list(TEXT_TYPES), default="text/markdown")
    metadata = MetadataField(required=False)
    source_url = source_url_field()


class BatchEnvelope(BodySerializer):
    """The outside of a batch: its items are looked at one by one."""

    collection = serializers.UUIDField()
    documents = serializers.ListField(
        child=serializers.JSONField(), min_length=1, max_length=MAX_BATCH
    )


class BatchBody(serializers.Serializer[Any]):
    """Up to 500 documents as text."""

    collection = serializers.UUIDField()
    documents = BatchItem(many=True)


class BatchResult(serializers.Serializer[Any]):
    """`id` and `status` of what was taken, `errors` of what was not."""

    external_id = serializers.CharField(allow_null=True)
    id = serializers.UUIDField(required=False)
    status = StatusField(required=False)
    errors = serializers.DictField(required=False)  # type: ignore[assignment]  # a field, not the property


class BatchResults(serializers.Serializer[Any]):
    results = BatchResult(many=True)


class ListQuery(serializers.Serializer[Any]):
    collection = serializers.UUIDField(required=False)
    status = StatusField(required=False, help_text="Of the newest version.")
    q = serializers.CharField(
        required=False,
        allow_blank=True,
        max_length=200,
        help_text="Part of the title or the external id.",
    )


class ProgressSerializer(serializers.Serializer[Any]):
    """Within the present stage."""

    done = serializers.IntegerField()
    total = serializers.IntegerField()


class ErrorSerializer(serializers.Serializer[Any]):
    code = serializers.CharField()
    detail = serializers.CharField()


class DocumentSerializer(serializers.Serializer[Any]):
    id = serializers.UUIDField()
    collection = serializers.UUIDField()
    external_id = serializers.CharField(allow_null=True)
    title = serializers.CharField()
    source_url = serializers.CharField(allow_blank=True)
    metadata = serializers.DictField()
    filename = serializers.CharField()
    media_type = serializers.CharField()
    size = serializers.IntegerField(help_text="Bytes of the newest version.")
    status = StatusField()
    stage_progress = ProgressSerializer()
    error = ErrorSerializer(allow_null=True)
    version = serializers.IntegerField(help_text="Number of the newest version.")
    answering_version = serializers.IntegerField(
        allow_null=True, help_text="Number of the version that answers questions now."
    )
    chunks = serializers.IntegerField(help_text="Of the version that answers now.")
    pages = serializers.IntegerField(allow_null=True)
    warnings = serializers.ListField(child=serializers.CharField())
    created_at = serializers.DateTimeField()
    updated_at = serializers.DateTimeField()


def with_versions(rows: QuerySet[Any]) -> QuerySet[Any]:
    """Everything ``document_json`` reads, in one statement."""
    return rows.filter(latest_version__isnull=False).select_related(
        "latest_version__job", "current_version"
    )


def document_json(document: Document) -> dict[str, Any]:
    """The newest version's state, and which version answers meanwhile."""
    latest, current = document.latest_version, document.current_version
    assert latest is not None
    job: IngestionJob = latest.job
    error = {"code": job.error_code, "detail": job.error_detail} if job.error_code else None
    return {
        "id": str(document.pk),
        "collection": str(document.collection_id),
        "external_id": document.external_id,
        "title": document.title,
        "source_url": document.source_url,
        "metadata": document.metadata,
        "filename": latest.filename,
        "media_type": latest.media_type,
        "size": latest.size,
        "status": job.status,
        "stage_progress": {"done": job.stage_done, "total": job.stage_total},
        "error": error,
        "version": latest.number,
        "answering_version": current.number if current else None,
        "chunks": (current.chunk_count if current else None) or 0,
        "pages": latest.page_count,
        "warnings": latest.warnings,
        "created_at": document.created_at,
        "updated_at": document.updated_at,
    }
