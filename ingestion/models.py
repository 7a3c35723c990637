"""Job state lives here, in PostgreSQL; the broker only carries ids and may lose or repeat them."""

from __future__ import annotations

import uuid
from typing import ClassVar

from django.db import models
from django.db.models import Q
from django.utils import timezone

from assistant.permissions.querysets import ScopedQuerySet


class JobStatus(models.TextChoices):
    """QUEUED -> PARSING -> EMBEDDING -> READY; FAILED or CANCELLED from any of the first three.

    A retry moves FAILED or CANCELLED back to QUEUED. Waiting for a worker inside a stage is
    ``lease_owner == ""``.
    """

    QUEUED = "queued", "queued"  # accepted, waiting for a parser
    PARSING = "parsing", "parsing"  # text and chunks are being made
    EMBEDDING = "embedding", "embedding"  # vectors are being made
    READY = "ready", "ready"  # searchable
    FAILED = "failed", "failed"  # error_code and error_detail say why and what to do
    CANCELLED = "cancelled", "cancelled"  # stopped by a person


OPEN_STATUSES = (JobStatus.QUEUED, JobStatus.PARSING, JobStatus.EMBEDDING)


class Lane(models.IntegerChoices):
    """What a file was sent for; the lower goes first in a round. See ``ingestion.line``."""

    ATTACHED = 0, "attached"  # to a chat: somebody waits for the answer
    UPLOADED = 1, "uploaded"  # into a collection


class IngestionJob(models.Model):
    """Making one version searchable.

    A worker claims a stage by compare-and-set: it takes a lease and raises ``fence``; whoever
    wrote with an older fence writes nothing. ``attempts`` is counted in the row when a stage is
    claimed, so that a document that kills its worker runs out of attempts. Files that were sent
    together share ``batch``, an id the sender chose. ``round``, ``lane`` and ``created_at`` are its
    place in the line; jobs of one ``share`` have places one after the other.
    """

    collection_path: ClassVar[str] = "version__document__collection"

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    version = models.OneToOneField(
        "documents.DocumentVersion", on_delete=models.CASCADE, related_name="job"
    )
    status = models.CharField(max_length=10, choices=JobStatus.choices, default=JobStatus.QUEUED)
    batch = models.UUIDField(null=True)
    round = models.PositiveIntegerField(default=0, db_default=0)
    lane = models.PositiveSmallIntegerField(
        choices=Lane.choices, default=Lane.UPLOADED, db_default=Lane.UPLOADED
    )
    share = models.UUIDField(null=True)
    attempts = models.PositiveSmallIntegerField(default=0)
    fence = models.PositiveIntegerField(default=0)
    lease_owner = models.CharField(max_length=100, blank=True)
    lease_until = models.DateTimeField(null=True)
    stage_done = models.PositiveIntegerField(default=0)
    stage_total = models.PositiveIntegerField(default=0)
    error_code = models.CharField(max_length=40, blank=True)
    error_detail = models.TextField(blank=True)
    created_at = models.DateTimeField(default=timezone.now)
    started_at = models.DateTimeField(null=True)
    finished_at = models.DateTimeField(null=True)

    objects = ScopedQuerySet.as_manager()

    class Meta:
        indexes = [
            models.Index(
                fields=["status", "error_code", "round", "lane", "created_at"],
                name="job_line",
                condition=Q(status__in=["queued", "parsing", "embedding"]),
            ),
            models.Index(
                fields=["share", "lane", "round"],
                name="job_share",
                condition=Q(status__in=["queued", "parsing", "embedding"], lease_owner=""),
            ),
            models.Index(fields=["lease_until"], name="job_leased", condition=~Q(lease_owner="")),
            models.Index(fields=["batch"], name="job_batch", condition=Q(batch__isnull=False)),
            models.Index(fields=["finished_at"], name="job_finished", condition=Q(status="ready")),
        ]

    def __str__(self) -> str:
        return f"{self.status} {self.version_id}"


class OutboxEntry(models.Model):
    """A task message that must reach the broker because its job was committed.

    Written in the job's transaction, sent after the commit, and sent again by the relay until
    ``sent_at`` is set.
    """

    id = models.BigAutoField(primary_key=True)
    job = models.ForeignKey(IngestionJob, on_delete=models.CASCADE, related_name="outbox")
    task = models.CharField(max_length=100)
    created_at = models.DateTimeField(default=timezone.now)
    not_before = models.DateTimeField(default=timezone.now)
    sent_at = models.DateTimeField(null=True)

    class Meta:
        indexes = [
            models.Index(fields=["not_before"], name="outbox_unsent", condition=Q(sent_at=None))
        ]

    def __str__(self) -> str:
        return f"{self.task} {self.job_id}"


class WorkerSign(models.Model):
    """When a worker last proved that it takes messages from a queue; see ``ingestion.workers``."""

    id = models.BigAutoField(primary_key=True)
    queue = models.CharField(max_length=100)
    node = models.CharField(max_length=200)
    seen_at = models.DateTimeField()

    class Meta:
        constraints = [models.UniqueConstraint(fields=["queue", "node"], name="sign_of_worker")]

    def __str__(self) -> str:
        return f"{self.node} on {self.queue}"
