"""How documents look from outside, and what may be sent to make one."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from django.db.models import Count, IntegerField, OuterRef, QuerySet, Subquery
from django.db.models.functions import Coalesce
from drf_spectacular.utils import extend_schema_field
from rest_framework import exceptions, serializers
from rest_framework.request import Request

from assistant.api.fields import (
    BodySerializer,
    MetadataField,
    external_id_field,
    source_url_field,
)
from assistant.documents.models import Document, DocumentVersion
from ingestion.attachments import clean_name
from ingestion.models import IngestionJob, JobStatus
from ingestion.progress import Progress, progress_of

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


def batch_field() -> serializers.UUIDField:
    return serializers.UUIDField(
        required=False,
        help_text="A random UUID of your choice: uploads that share it are counted together, see"
        " `/api/v1/batches/{id}/`.",
    )


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
    path = serializers.CharField(
        required=False,
        allow_blank=True,
        max_length=500,
        help_text="Where the file lay in the folder that it came from, with `/` between the parts.",
    )
    batch = batch_field()

    def validate_path(self, value: str) -> str:
        return clean_name(value)


class VersionBody(BodySerializer):
    """``multipart/form-data``."""

    file = serializers.FileField(
        allow_empty_file=True,
        max_length=None,
        error_messages={"required": "Send the file as the form field `file`."},
    )


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
    batch = batch_field()
    documents = serializers.ListField(
        child=serializers.JSONField(), min_length=1, max_length=MAX_BATCH
    )


class BatchBody(serializers.Serializer[Any]):
    """Up to 500 documents as text."""

    collection = serializers.UUIDField()
    batch = batch_field()
    documents = BatchItem(many=True)


class TwinSerializer(serializers.Serializer[Any]):
    """A document that you may read and that holds the same bytes."""

    id = serializers.UUIDField()
    title = serializers.CharField()
    collection = serializers.UUIDField()


def twin_field(*, required: bool = True) -> TwinSerializer:
    return TwinSerializer(
        required=required,
        allow_null=True,
        help_text="The same file in another document that the caller may read. Only a notice: the"
        " upload is taken all the same.",
    )


class BatchResult(serializers.Serializer[Any]):
    """`id` and `status` of what was taken, `errors` of what was not."""

    external_id = serializers.CharField(allow_null=True)
    id = serializers.UUIDField(required=False)
    status = StatusField(required=False)
    duplicate_of = twin_field(required=False)
    errors = serializers.DictField(required=False)  # type: ignore[assignment]  # a field, not the property


class BatchResults(serializers.Serializer[Any]):
    batch = serializers.UUIDField(help_text="Ask `/api/v1/batches/{id}/` how far it is.")
    results = BatchResult(many=True)


class ListQuery(serializers.Serializer[Any]):
    collection = serializers.UUIDField(required=False)
    status = StatusField(required=False, help_text="Of the newest version.")
    q = serializers.CharField(
        required=False,
        allow_blank=True,
        max_length=200,
        help_text="Part of the title, the external id or the path.",
    )
    parent = serializers.UUIDField(  # type: ignore[assignment]  # a field, not the property
        required=False, help_text="The e-mail or archive of which documents are parts."
    )
    batch = serializers.UUIDField(required=False, help_text="Uploads that were sent together.")


class ProgressSerializer(serializers.Serializer[Any]):
    """Within the present stage."""

    done = serializers.IntegerField()
    total = serializers.IntegerField()


class ErrorSerializer(serializers.Serializer[Any]):
    code = serializers.CharField()
    detail = serializers.CharField()


class QueueSerializer(serializers.Serializer[Any]):
    """A place in the order of the whole site."""

    ahead = serializers.IntegerField(help_text="Unfinished files that come before.")
    eta_seconds = serializers.IntegerField(
        allow_null=True,
        help_text="Until it is ready, from what was finished lately; null when nothing was.",
    )


class NextAttemptSerializer(serializers.Serializer[Any]):
    """The last attempt failed for a reason that may pass."""

    in_seconds = serializers.IntegerField()
    attempt = serializers.IntegerField()
    attempts = serializers.IntegerField(help_text="After so many the document fails.")
    error = ErrorSerializer()


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
    stage = serializers.CharField(help_text="The state in words.")
    stage_progress = ProgressSerializer()
    queue = QueueSerializer(allow_null=True, help_text="Null once it has ended.")
    next_attempt = NextAttemptSerializer(allow_null=True)
    blocked = ErrorSerializer(
        allow_null=True,
        help_text="Nothing moves until an administrator acts: `no_worker`, `broker_unreachable`.",
    )
    error = ErrorSerializer(allow_null=True, help_text="Why it failed or was cancelled.")
    batch = serializers.UUIDField(allow_null=True, help_text="With what it was sent.")
    disabled = serializers.BooleanField(help_text="It stays here and answers nothing.")
    parent = serializers.UUIDField(  # type: ignore[assignment]  # a field, not the property
        allow_null=True, help_text="The e-mail or archive of which it is a part."
    )
    path = serializers.CharField(
        allow_blank=True, help_text="Where it lay in the uploaded folder, or within its parent."
    )
    children = serializers.IntegerField(help_text="Its parts, see the filter `parent`.")
    version = serializers.IntegerField(help_text="Number of the newest version.")
    answering_version = serializers.IntegerField(
        allow_null=True, help_text="Number of the version that answers questions now."
    )
    chunks = serializers.IntegerField(help_text="Of the version that answers now.")
    pages = serializers.IntegerField(allow_null=True)
    warnings = serializers.ListField(child=serializers.CharField())
    created_at = serializers.DateTimeField()
    updated_at = serializers.DateTimeField()


class UploadedSerializer(DocumentSerializer):
    duplicate_of = twin_field()


def with_versions(rows: QuerySet[Any]) -> QuerySet[Any]:
    """Everything ``documents_json`` reads of a row, in one statement."""
    parts = (
        Document.objects.filter(parent=OuterRef("pk"))
        .order_by()
        .values("parent")
        .annotate(count=Count("pk"))
        .values("count")
    )
    found = rows.filter(latest_version__isnull=False).select_related(
        "latest_version__job", "current_version"
    )
    count = Coalesce(Subquery(parts, output_field=IntegerField()), 0)
    annotated: QuerySet[Any] = found.annotate(part_count=count)
    return annotated


def documents_json(rows: Iterable[Any]) -> list[dict[str, Any]]:
    """Each newest version's state, and which version answers meanwhile. ``with_versions`` rows."""
    rows = list(rows)
    progress = progress_of(row.latest_version.job for row in rows)
    return [_document_json(row, progress[row.latest_version.job.pk]) for row in rows]


def document_json(document: Document) -> dict[str, Any]:
    return documents_json([document])[0]


def twin_json(twin: Document | None) -> dict[str, Any] | None:
    if twin is None:
        return None
    return {"id": str(twin.pk), "title": twin.title, "collection": str(twin.collection_id)}


def progress_json(progress: Progress) -> dict[str, Any]:
    queue, again, blocked = progress.queue, progress.again, progress.blocked
    return {
        "stage": progress.sentence,
        "stage_progress": {"done": progress.done, "total": progress.total},
        "queue": {"ahead": queue.ahead, "eta_seconds": queue.eta_seconds} if queue else None,
        "next_attempt": again
        and {
            "in_seconds": again.seconds,
            "attempt": again.attempt,
            "attempts": again.attempts,
            "error": {"code": again.code, "detail": again.detail},
        },
        "blocked": {"code": blocked.code, "detail": blocked.detail} if blocked else None,
    }


def error_json(job: IngestionJob) -> dict[str, Any] | None:
    """Null while the job is open: what its last attempt met is ``next_attempt``."""
    if job.status not in (JobStatus.FAILED, JobStatus.CANCELLED) or not job.error_code:
        return None
    return {"code": job.error_code, "detail": job.error_detail}


def _document_json(document: Any, progress: Progress) -> dict[str, Any]:
    latest, current = document.latest_version, document.current_version
    job: IngestionJob = latest.job
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
        **progress_json(progress),
        "error": error_json(job),
        "batch": job.batch,
        "disabled": document.disabled_at is not None,
        "parent": document.parent_id,
        "path": document.path,
        "children": document.part_count,
        "version": latest.number,
        "answering_version": current.number if current else None,
        "chunks": (current.chunk_count if current else None) or 0,
        "pages": latest.page_count,
        "warnings": latest.warnings,
        "created_at": document.created_at,
        "updated_at": document.updated_at,
    }


def asked_version(document: Document, request: Request) -> DocumentVersion:
    """The version that ``?version=`` names, else the one that answers, else the newest."""
    asked = request.query_params.get("version")
    if asked is None:
        version = document.current_version or document.latest_version
    elif asked.isascii() and asked.isdigit() and len(asked) < 10:
        version = document.versions.filter(number=int(asked)).first()
    else:
        version = None
    if version is None:
        raise exceptions.NotFound
    return version
