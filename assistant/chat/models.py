from __future__ import annotations

import uuid
from typing import ClassVar

from django.db import models
from django.db.models import Q
from django.utils import timezone

from assistant.documents.models import Collection, Document, DocumentVersion
from assistant.permissions.querysets import OwnedQuerySet
from assistant.users.models import User


class Conversation(models.Model):
    """A thread of one person. Without ``collections`` it asks all that person may read."""

    owner_path: ClassVar[str] = "user"

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    user = models.ForeignKey(User, on_delete=models.CASCADE, related_name="conversations")
    title = models.CharField(max_length=200, blank=True)
    collections = models.ManyToManyField(Collection, blank=True, related_name="+")
    created_at = models.DateTimeField(default=timezone.now)
    updated_at = models.DateTimeField(default=timezone.now)

    objects = OwnedQuerySet.as_manager()

    class Meta:
        ordering: ClassVar[list[str]] = ["-updated_at", "id"]
        indexes = [models.Index(fields=["user", "-updated_at", "id"], name="conversation_list")]

    def __str__(self) -> str:
        return self.title or "New chat"


class AnswerStatus(models.TextChoices):
    """PENDING -> STREAMING -> DONE | STOPPED | INTERRUPTED | FAILED; the last four are final."""

    PENDING = "pending", "pending"  # stored, not picked up yet
    STREAMING = "streaming", "streaming"  # a web process is producing it
    DONE = "done", "done"
    STOPPED = "stopped", "stopped"  # by its reader, or because a right was withdrawn
    INTERRUPTED = "interrupted", "interrupted"  # the process or the model server went away
    FAILED = "failed", "failed"  # error_code and error_detail say why and what to do


class Message(models.Model):
    """One turn: a Question or an Answer.

    ``sources`` are the numbered passages offered to the model, as locators without their text:
    the text is read again, under the reader's rights of that moment, when it is shown.
    """

    owner_path: ClassVar[str] = "conversation__user"

    class Role(models.TextChoices):
        QUESTION = "question", "question"
        ANSWER = "answer", "answer"

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    conversation = models.ForeignKey(
        Conversation, on_delete=models.CASCADE, related_name="messages"
    )
    role = models.CharField(max_length=10, choices=Role.choices)
    ordinal = models.PositiveIntegerField()
    text = models.TextField(blank=True)
    status = models.CharField(
        max_length=12, choices=AnswerStatus.choices, default=AnswerStatus.DONE
    )
    query = models.TextField(blank=True)
    effort = models.CharField(max_length=10, blank=True)
    model = models.CharField(max_length=200, blank=True)
    prompt_digest = models.CharField(max_length=64, blank=True)
    finish_reason = models.CharField(max_length=20, blank=True)
    abstained = models.BooleanField(default=False)
    sources = models.JSONField(default=list)
    usage = models.JSONField(default=dict)
    timings_ms = models.JSONField(default=dict)
    error_code = models.CharField(max_length=40, blank=True)
    error_detail = models.TextField(blank=True)
    idempotency_key = models.CharField(max_length=200, null=True, blank=True)  # noqa: DJ001  NULL: none given, not unique
    created_at = models.DateTimeField(default=timezone.now)
    finished_at = models.DateTimeField(null=True)

    objects = OwnedQuerySet.as_manager()

    class Meta:
        ordering: ClassVar[list[str]] = ["ordinal"]
        constraints = [
            models.UniqueConstraint(fields=["conversation", "ordinal"], name="message_ordinal"),
            models.UniqueConstraint(
                fields=["conversation", "idempotency_key"],
                name="message_once_a_key",
                condition=Q(idempotency_key__isnull=False),
            ),
        ]
        indexes = [
            models.Index(
                fields=["created_at"],
                name="message_unfinished",
                condition=Q(status__in=["pending", "streaming"]),
            )
        ]

    def __str__(self) -> str:
        return f"{self.role} {self.ordinal}"


class Citation(models.Model):
    """Numbered link from an Answer to version, locator and quote.

    ``verified`` says that the quote was found again in the stored text of the version and that
    it supports the sentence it stands behind.
    """

    owner_path: ClassVar[str] = "answer__conversation__user"

    answer = models.ForeignKey(Message, on_delete=models.CASCADE, related_name="citations")
    ordinal = models.PositiveIntegerField()
    number = models.PositiveIntegerField()
    document = models.ForeignKey(Document, on_delete=models.SET_NULL, null=True, related_name="+")
    version = models.ForeignKey(
        DocumentVersion, on_delete=models.SET_NULL, null=True, related_name="+"
    )
    quote = models.TextField()
    locator = models.JSONField()
    verified = models.BooleanField(default=False)

    objects = OwnedQuerySet.as_manager()

    class Meta:
        ordering: ClassVar[list[str]] = ["ordinal"]
        constraints = [
            models.UniqueConstraint(fields=["answer", "ordinal"], name="citation_ordinal")
        ]

    def __str__(self) -> str:
        return f"[{self.number}] {self.quote[:40]}"


class Feedback(models.Model):
    """A reader's rating and comment on an Answer; the last one counts."""

    owner_path: ClassVar[str] = "answer__conversation__user"

    class Rating(models.TextChoices):
        UP = "up", "up"
        DOWN = "down", "down"

    answer = models.OneToOneField(Message, on_delete=models.CASCADE, related_name="feedback")
    rating = models.CharField(max_length=4, choices=Rating.choices)
    reasons = models.JSONField(default=list)
    comment = models.TextField(blank=True)
    created_at = models.DateTimeField(default=timezone.now)

    objects = OwnedQuerySet.as_manager()

    def __str__(self) -> str:
        return self.rating
