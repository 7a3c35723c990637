"""Files attached to a chat: taken with a question, listed above the composer, removed there."""

from __future__ import annotations

from collections import Counter
from functools import partial
from typing import Any
from uuid import UUID

from django.contrib.auth.decorators import login_required
from django.core.exceptions import ValidationError
from django.http import HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.views.decorators.http import require_GET, require_POST

from assistant.chat import attaching
from assistant.chat.models import Conversation
from assistant.documents.actions import Upload
from assistant.users.models import User
from assistant.web.access import own_conversation
from assistant.web.library import rows_of
from assistant.web.requests import SignedInRequest
from assistant.web.views.uploads import STORAGE_FULL
from ingestion.actions import accept_upload
from ingestion.errors import IngestionError

ATTACHMENTS_CHANGED = "attachments-changed"


@login_required
@require_GET
def attachments(request: SignedInRequest, pk: UUID) -> HttpResponse:
    """The list alone: fetched while files are being read."""
    thread = own_conversation(request.user, pk)
    context = {"conversation": thread} | attached_rows(thread, user=request.user)
    return render(request, "web/_attachments.html", context)


@login_required
@require_POST
def detach(request: SignedInRequest, pk: UUID, document: UUID) -> HttpResponse:
    thread = own_conversation(request.user, pk)
    files = attaching.attached_to(thread, user=request.user)
    attaching.detach(thread, get_object_or_404(files, pk=document), user=request.user)
    if not request.htmx:
        return redirect("conversation", pk=pk)
    context = {"conversation": thread} | attached_rows(thread, user=request.user)
    return render(request, "web/_attachments.html", context)


def attached_rows(thread: Conversation, *, user: User) -> dict[str, Any]:
    """Context of ``web/_attachments.html``."""
    files = attaching.attached_to(thread, user=user).select_related(
        "latest_version__job", "current_version", "parent"
    )
    rows = rows_of(files)
    return {"attachments": rows, "is_reading": any(row.is_open for row in rows)}


def attach_files(thread: Conversation, request: SignedInRequest) -> None:
    """Take the files that came with a question. Raises ValidationError naming the refused one."""
    sent: Counter[str] = Counter()
    for file in request.FILES.getlist("files"):
        name = file.name or "file"
        sent[name] += 1
        # Two files of one name that come together are two; one that comes again is a new version.
        key = name if sent[name] == 1 else f"{name} ({sent[name]})"
        assert file.file is not None
        upload = Upload(content=file.file, filename=name, media_type="", external_id=key[-500:])
        take = partial(accept_upload, upload=upload, actor=request.user)
        try:
            attaching.attach(thread, user=request.user, accept=take)
        except IngestionError as error:
            raise ValidationError(f"{name}: {error.detail}") from error
        except OSError as error:
            raise ValidationError(STORAGE_FULL) from error
