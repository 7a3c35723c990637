"""Uploads that were sent together, and changing many documents at once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar, Final
from uuid import UUID

from django.db.models import QuerySet
from drf_spectacular.utils import OpenApiParameter
from rest_framework import serializers, status
from rest_framework.request import Request
from rest_framework.response import Response

from assistant.api.base import ApiView, ScopedViewSet, require_role
from assistant.api.document_shapes import MAX_BATCH, StatusField, with_versions
from assistant.api.fields import BodySerializer
from assistant.api.problems import NOT_FOUND, Problem, problem_of
from assistant.api.schema import ID_PARAMETER, ProblemSerializer, operation
from assistant.audit import models as audit
from assistant.documents.models import Document
from assistant.permissions.roles import Role
from ingestion import actions, batches, workers
from ingestion.models import OPEN_STATUSES, IngestionJob, JobStatus
from ingestion.progress import blocked_queues

_TAGS = ["documents"]
_COLLECTION: Final = OpenApiParameter(
    "collection", UUID, description="Count only the files of this collection."
)


class TotalsSerializer(serializers.Serializer[Any]):
    all = serializers.IntegerField()
    queued = serializers.IntegerField()
    parsing = serializers.IntegerField()
    embedding = serializers.IntegerField()
    ready = serializers.IntegerField()
    failed = serializers.IntegerField()
    cancelled = serializers.IntegerField()


class FailedDocumentSerializer(serializers.Serializer[Any]):
    id = serializers.UUIDField()
    title = serializers.CharField()
    path = serializers.CharField(allow_blank=True)
    detail = serializers.CharField()


class FailureGroupSerializer(serializers.Serializer[Any]):
    """One reason: what to do about it, and whom it met."""

    code = serializers.CharField()
    detail = serializers.CharField()
    count = serializers.IntegerField()
    documents = FailedDocumentSerializer(many=True, help_text="At most 200 of them.")


class WorkersSerializer(serializers.Serializer[Any]):
    """`code` is `no_worker`, `broker_unreachable`, or null while all is well."""

    running = serializers.BooleanField()
    code = serializers.CharField(allow_null=True)
    detail = serializers.CharField(allow_null=True)
    last_sign_seconds = serializers.DictField(
        child=serializers.FloatField(allow_null=True),
        help_text="By queue: how long ago a worker last proved that it works.",
    )


class BatchSerializer(serializers.Serializer[Any]):
    id = serializers.UUIDField()
    totals = TotalsSerializer()
    eta_seconds = serializers.IntegerField(
        allow_null=True, help_text="Until the last one is ready; null when that cannot be told."
    )
    failures = FailureGroupSerializer(many=True)
    workers = WorkersSerializer()


class BatchChangeBody(BodySerializer):
    code = serializers.CharField(
        required=False, max_length=40, help_text="Only those that failed for this reason."
    )


class ChangedSerializer(serializers.Serializer[Any]):
    changed = serializers.IntegerField()


class ChosenBody(BodySerializer):
    documents = serializers.ListField(
        child=serializers.UUIDField(), min_length=1, max_length=MAX_BATCH
    )


class ChosenResult(serializers.Serializer[Any]):
    """`status` of what was changed, `problem` of what was not."""

    id = serializers.UUIDField()
    status = StatusField(required=False)
    problem = ProblemSerializer(required=False)


class ChosenResults(serializers.Serializer[Any]):
    results = ChosenResult(many=True)


class BatchViewSet(ScopedViewSet):
    """A batch is seen by the contributors of its collections; what else it holds is not."""

    queryset = IngestionJob.objects.all()
    serializer_class = BatchSerializer
    basename = "batch"
    roles: ClassVar[dict[str, Role]] = {
        "retrieve": Role.CONTRIBUTOR,
        "retry": Role.CONTRIBUTOR,
        "cancel": Role.CONTRIBUTOR,
    }

    @operation(
        "get_batch",
        parameters=[ID_PARAMETER, _COLLECTION],
        responses={200: BatchSerializer},
        errors=[400, 404],
        tags=_TAGS,
    )
    def retrieve(self, request: Request, pk: UUID) -> Response:
        """How far the files are that were sent together, and why some of them failed."""
        jobs = self._jobs(request, pk)
        return Response(
            {
                "id": str(pk),
                "totals": _totals_json(batches.totals_of(jobs)),
                "eta_seconds": batches.eta_of(jobs),
                "failures": [_failures_json(group) for group in batches.failures_of(jobs)],
                "workers": workers_json(),
            }
        )

    @operation(
        "retry_batch",
        parameters=[ID_PARAMETER, _COLLECTION],
        request=BatchChangeBody,
        responses={202: ChangedSerializer},
        errors=[400, 404],
        tags=_TAGS,
    )
    def retry(self, request: Request, pk: UUID) -> Response:
        """Try again what failed: all of it, or what failed for one reason."""
        body = BatchChangeBody(data=request.data)
        body.is_valid(raise_exception=True)
        failed = self._jobs(request, pk).filter(status=JobStatus.FAILED)
        if code := body.validated_data.get("code"):
            failed = failed.filter(error_code=code)
        changed = actions.retry_jobs(failed, actor=self.person)
        return Response({"changed": changed}, status=status.HTTP_202_ACCEPTED)

    @operation(
        "cancel_batch",
        parameters=[ID_PARAMETER, _COLLECTION],
        request=None,
        responses={200: ChangedSerializer},
        errors=[400, 404],
        tags=_TAGS,
    )
    def cancel(self, request: Request, pk: UUID) -> Response:
        """Stop everything that is not ready yet."""
        unfinished = self._jobs(request, pk).filter(status__in=OPEN_STATUSES)
        return Response({"changed": actions.cancel_jobs(unfinished, actor=self.person)})

    def _jobs(self, request: Request, batch: UUID) -> QuerySet[Any]:
        """Those of collections to which the caller contributes; 404 for none that is visible."""
        lookup: dict[str, Any] = {"batch": batch}
        if asked := request.query_params.get("collection"):
            lookup["version__document__collection"] = _CollectionField.run_validation(asked)
        visible = batches.latest_jobs(self.person, Role.READER, **lookup)
        collections = visible.order_by().values_list("version__document__collection", flat=True)
        first = collections.first()
        if first is None:
            self.refuse_hidden(batch)
        jobs = batches.latest_jobs(self.person, **lookup)
        if not jobs.exists():
            require_role(self.person, self.role, first, action=self.audit_name)
        return jobs


_CollectionField: Final = serializers.UUIDField()


class ChosenDocumentsView(ApiView):
    """Changes the jobs of chosen documents, each under the caller's right on that document."""

    action: ClassVar[str]
    refusal: ClassVar[str]
    change: ClassVar[Callable[..., int]]

    def results(self, request: Request) -> list[dict[str, Any]]:
        body = ChosenBody(data=request.data)
        body.is_valid(raise_exception=True)
        ids = list(dict.fromkeys(body.validated_data["documents"]))
        visible = with_versions(Document.objects.for_user(self.person)).in_bulk(ids)
        return [self._one(key, visible.get(key)) for key in ids]

    def _one(self, key: UUID, document: Any) -> dict[str, Any]:
        result: dict[str, Any] = {"id": str(key)}
        if document is None:
            audit.record(self.person, self.action, denied=True, object=str(key))
            return {**result, "problem": NOT_FOUND.body()}
        try:
            require_role(self.person, Role.CONTRIBUTOR, document.collection_id, action=self.action)
        except Exception as error:  # noqa: BLE001 - one document's refusal is not the others'
            return {**result, "problem": problem_of(error).body()}
        job = document.latest_version.job
        if not type(self).change([job], actor=self.person):
            return {**result, "problem": Problem(409, self.refusal, code="state").body()}
        job.refresh_from_db(fields=["status"])
        return {**result, "status": job.status}


class RetryDocumentsView(ChosenDocumentsView):
    action = "api.document.retry"
    refusal = "Only a failed or cancelled document can be retried."
    change = actions.retry_jobs

    @operation(
        "retry_documents",
        request=ChosenBody,
        responses={202: ChosenResults},
        errors=[400],
        tags=_TAGS,
    )
    def post(self, request: Request) -> Response:
        """Try chosen documents again, each by itself, in order."""
        results = {"results": self.results(request)}
        return Response(results, status=status.HTTP_202_ACCEPTED)


class CancelDocumentsView(ChosenDocumentsView):
    action = "api.document.cancel"
    refusal = "There is nothing left to cancel."
    change = actions.cancel_jobs

    @operation(
        "cancel_documents",
        request=ChosenBody,
        responses={200: ChosenResults},
        errors=[400],
        tags=_TAGS,
    )
    def post(self, request: Request) -> Response:
        """Stop chosen documents that are not ready yet, each by itself, in order."""
        return Response({"results": self.results(request)})


def workers_json() -> dict[str, Any]:
    blocked = next(iter(blocked_queues().values()), None)
    return {
        "running": blocked is None,
        "code": blocked.code if blocked else None,
        "detail": blocked.detail if blocked else None,
        "last_sign_seconds": workers.workers_alive(),
    }


def _totals_json(totals: batches.Totals) -> dict[str, int]:
    return {"all": totals.all, **{name: getattr(totals, name) for name in JobStatus.values}}


def _failures_json(group: batches.FailureGroup) -> dict[str, Any]:
    return {
        "code": group.code,
        "detail": group.detail,
        "count": group.count,
        "documents": [
            {
                "id": str(file.document.pk),
                "title": file.document.title,
                "path": file.document.path,
                "detail": file.detail or group.detail,
            }
            for file in group.files
        ],
    }
