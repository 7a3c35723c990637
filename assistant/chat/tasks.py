"""Doors for Celery beat."""

from __future__ import annotations

from datetime import timedelta

from celery import shared_task
from django.db.models import Q
from django.utils import timezone

from assistant.chat import bundling, stream
from assistant.chat.models import UNFINISHED, Citation, Message


@shared_task(name="assistant.chat.tasks.mark_interrupted")
def mark_interrupted() -> None:
    """End answers whose process died, so that they can be asked again."""
    old = timezone.now() - timedelta(seconds=10)
    unfinished = Message.objects.filter(status__in=UNFINISHED, created_at__lt=old)
    for answer_id in unfinished.values_list("pk", flat=True):
        if not stream.is_being_written(answer_id):
            stream.end_orphan(answer_id)


@shared_task(name="assistant.chat.tasks.forget_deleted_quotes")
def forget_deleted_quotes() -> None:
    """Deleted documents take their quotes along: they are text of the document."""
    gone = Q(version__isnull=True) & ~Q(quote="")
    Citation.objects.filter(gone).update(quote="")


@shared_task(name="assistant.chat.tasks.forget_old_prompts")
def forget_old_prompts() -> None:
    """Prompts hold text of documents: they are kept no longer than the site says."""
    bundling.forget_old_prompts()
