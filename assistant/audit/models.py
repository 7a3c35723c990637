from __future__ import annotations

from typing import Any, ClassVar

from django.core.serializers.json import DjangoJSONEncoder
from django.db import models
from django.utils import timezone

from assistant.users.models import User


class AuditEvent(models.Model):
    """One thing somebody did or was refused. A trigger in the database refuses changes.

    Holds ids, never text of documents or questions, and no foreign key: the record outlives
    what it speaks of.
    """

    class Result(models.TextChoices):
        DONE = "done", "done"
        DENIED = "denied", "denied"

    id = models.BigAutoField(primary_key=True)
    at = models.DateTimeField(default=timezone.now, db_index=True)
    actor_id = models.UUIDField(null=True, db_index=True)
    action = models.CharField(max_length=60, db_index=True)
    object_type = models.CharField(max_length=60, blank=True)
    object_id = models.CharField(max_length=64, blank=True)
    collection_id = models.UUIDField(null=True, db_index=True)
    result = models.CharField(max_length=10, choices=Result.choices, default=Result.DONE)
    detail = models.JSONField(default=dict, encoder=DjangoJSONEncoder)

    class Meta:
        ordering: ClassVar[list[str]] = ["-id"]

    def __str__(self) -> str:
        return f"{self.action} {self.object_type} {self.object_id}"


def record(
    actor: User | None,
    action: str,
    target: models.Model | None = None,
    *,
    collection_id: Any = None,
    denied: bool = False,
    **detail: Any,
) -> None:
    """Write one event in the caller's transaction. ``actor`` None is the system itself."""
    AuditEvent.objects.create(
        actor_id=actor.pk if actor is not None else None,
        action=action,
        object_type=target._meta.label if target is not None else "",
        object_id=str(target.pk) if target is not None else "",
        collection_id=collection_id or getattr(target, "collection_id", None),
        result=AuditEvent.Result.DENIED if denied else AuditEvent.Result.DONE,
        detail=detail,
    )
