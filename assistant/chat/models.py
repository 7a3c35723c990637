from __future__ import annotations

import uuid
from typing import ClassVar

from django.db import models
from django.db.models import Exists, OuterRef, Q
from django.utils import timezone

from assistant.documents.models import Collection, Document, DocumentVersion
from assistant.permissions.policy import AnyUser, collections_with_role
from assistant.permissions.querysets import OwnedQuerySet
from assistant.permissions.roles import Role
from assistant.users.models import User


class Conversation(models.Model):
    """A thread of one person. Without ``collections`` it asks all that person may read.

    ``filters`` narrow its next questions; ``retrieval.filters`` says which there are.
    ``attachments`` is the private collection of the files that were attached to it.
    ``leaf`` is the end of the branch that is shown, see ``branching``; None: nothing was asked.
    """

    class TitleBy(models.TextChoices):
        QUESTION = "question", "question"  # the first question, cut off
        MODEL = "model", "model"
        PERSON = "person", "person"  # never written over

    owner_path: ClassVar[str] = "user"

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    user = models.ForeignKey(User, on_delete=models.CASCADE, related_name="conversations")
    title = models.CharField(max_length=200, blank=True)
    title_by = models.CharField(max_length=10, choices=TitleBy.choices, default=TitleBy.QUESTION)
    leaf = models.ForeignKey("Message", on_delete=models.SET_NULL, null=True, related_name="+")
    collections = models.ManyToManyField(Collection, blank=True, related_name="+")
    filters = models.JSONField(default=dict, blank=True)
    attachments = models.OneToOneField(
        Collection, on_delete=models.SET_NULL, null=True, editable=False, related_name="+"
    )
    created_at = models.DateTimeField(default=timezone.now)
    updated_at = models.DateTimeField(default=timezone.now)

    objects = OwnedQuerySet.as_manager()

    class Meta:
        ordering: ClassVar[list[str]] = ["-updated_at", "id"]
        indexes = [models.Index(fields=["user", "-updated_at", "id"], name="conversation_list")]

    def __str__(self) -> str:
        return self.title or "New chat"


class AnswerStatus(models.TextChoices):
    """PENDING or STREAMING -> DONE | STOPPED | INTERRUPTED | FAILED; the last four are final."""

    PENDING = "pending", "pending"  # stored where nobody writes answers
    STREAMING = "streaming", "streaming"  # a web process is producing it
    DONE = "done", "done"
    STOPPED = "stopped", "stopped"  # by its reader, or because a right was withdrawn
    INTERRUPTED = "interrupted", "interrupted"  # the process or the model server went away
    FAILED = "failed", "failed"  # error_code and error_detail say why and what to do


UNFINISHED = (AnswerStatus.PENDING, AnswerStatus.STREAMING)


class Message(models.Model):
    """One turn: a Question or an Answer.

    ``parent`` of an Answer is its Question; of a Question the Answer that it follows, None when it
    begins the conversation. ``ordinal`` counts the messages of all branches as they came.

    ``sources`` are the numbered passages offered to the model, as locators without their text:
    the text is read again, under the reader's rights of that moment, when it is shown.

    ``narrowing`` of an Answer: the ``filters`` that were chosen, the fields of the question's own
    words that are ``ignored``, and what was ``understood`` from them.

    ``support`` of an Answer says what its sentences stand on, see ``support.support_of``;
    ``searched`` what was looked through when nothing was found, see ``abstaining.Searched``.
    ``follow_ups`` are the questions proposed after it; None until ``suggesting`` is done with it.
    """

    owner_path: ClassVar[str] = "conversation__user"

    class Role(models.TextChoices):
        QUESTION = "question", "question"
        ANSWER = "answer", "answer"

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    conversation = models.ForeignKey(
        Conversation, on_delete=models.CASCADE, related_name="messages"
    )
    parent = models.ForeignKey("self", on_delete=models.CASCADE, null=True, related_name="children")
    role = models.CharField(max_length=10, choices=Role.choices)
    ordinal = models.PositiveIntegerField()
    text = models.TextField(blank=True)
    status = models.CharField(
        max_length=12, choices=AnswerStatus.choices, default=AnswerStatus.DONE
    )
    query = models.TextField(blank=True)
    effort = models.CharField(max_length=10, blank=True)
    narrowing = models.JSONField(default=dict)
    model = models.CharField(max_length=200, blank=True)
    prompt_digest = models.CharField(max_length=64, blank=True)
    finish_reason = models.CharField(max_length=20, blank=True)
    abstained = models.BooleanField(default=False)
    sources = models.JSONField(default=list)
    support = models.JSONField(default=dict)
    searched = models.JSONField(default=dict)
    follow_ups = models.JSONField(null=True)
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


class Bundle(models.Model):
    """What an Answer was made from, so that it can be looked into and made again.

    ``queries`` are the texts searched for. ``rights_hash`` identifies the collections that the
    asker could read. ``sampling`` is what the model was told besides the prompt. ``prompt`` are
    its messages, kept for PROMPT_RETENTION_DAYS; the digest in the Answer stays. ``instructions``
    say which ones were in it, see ``instructing.Instructions``. The passages with
    their scores are the Answer's ``sources``. The model's reasoning is nowhere.
    """

    owner_path: ClassVar[str] = "answer__conversation__user"

    answer = models.OneToOneField(Message, on_delete=models.CASCADE, related_name="bundle")
    queries = models.JSONField(default=list)
    rights_hash = models.CharField(max_length=64)
    sampling = models.JSONField(default=dict)
    prompt = models.JSONField(null=True)
    instructions = models.JSONField(default=dict)
    created_at = models.DateTimeField(default=timezone.now, db_index=True)

    objects = OwnedQuerySet.as_manager()

    def __str__(self) -> str:
        return f"bundle of {self.answer_id}"


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


class OpenQuestionQuerySet(models.QuerySet["OpenQuestion"]):
    """Questions for the managers of the collections that were searched; nobody else sees them."""

    def for_user(self, user: AnyUser) -> OpenQuestionQuerySet:
        managed = collections_with_role(user, Role.MANAGER)
        searched = OpenQuestion.collections.through._base_manager.filter(
            openquestion_id=OuterRef("pk"), collection_id__in=managed
        )
        return self.filter(Exists(searched))


class OpenQuestion(models.Model):
    """A question that the documents did not answer, sent to those who could add what is missing.

    OPEN -> ANSWERED | DISMISSED and back. Holds the question and who asked, nothing of the answer.
    """

    class Status(models.TextChoices):
        OPEN = "open", "open"
        ANSWERED = "answered", "answered"
        DISMISSED = "dismissed", "dismissed"

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    answer = models.OneToOneField(
        Message, on_delete=models.SET_NULL, null=True, related_name="open_question"
    )
    text = models.TextField()
    asker = models.ForeignKey(User, on_delete=models.CASCADE, related_name="+")
    collections = models.ManyToManyField(Collection, related_name="+")
    status = models.CharField(max_length=10, choices=Status.choices, default=Status.OPEN)
    created_at = models.DateTimeField(default=timezone.now)
    closed_at = models.DateTimeField(null=True)
    closed_by = models.ForeignKey(User, on_delete=models.SET_NULL, null=True, related_name="+")

    objects = OpenQuestionQuerySet.as_manager()

    class Meta:
        ordering: ClassVar[list[str]] = ["-created_at", "id"]
        indexes = [
            models.Index(fields=["status", "-created_at"], name="openquestion_list"),
            models.Index(fields=["asker", "-created_at"], name="openquestion_asker"),
        ]

    def __str__(self) -> str:
        return self.text[:60]
