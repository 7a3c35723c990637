"""What contributors do with one document: replace, restore, rest, delete, look into its chunks."""

from __future__ import annotations

from uuid import UUID

from django.contrib import messages
from django.contrib.auth.decorators import login_required
from django.http import Http404, HttpResponse
from django.shortcuts import redirect, render
from django.views.decorators.http import require_GET, require_POST

from assistant.documents import actions
from assistant.documents.actions import Upload
from assistant.documents.models import Document, DocumentVersion
from assistant.permissions.policy import has_role
from assistant.permissions.roles import Role
from assistant.retrieval import inspection
from assistant.web.access import document_for, readable_document
from assistant.web.requests import SignedInRequest, text_of
from assistant.web.views.uploads import STORAGE_FULL
from ingestion.actions import accept_upload, cancel_jobs, restore_version, retry_jobs
from ingestion.errors import IngestionError

CHUNKS_ON_PAGE = 50


@login_required
@require_POST
def change(request: SignedInRequest, pk: UUID) -> HttpResponse:
    """``disable``, ``enable``, ``retry``, ``cancel``, ``restore`` with a ``number``, ``delete``."""
    action = text_of(request.POST, "action", limit=20)
    target = document_for(request.user, pk, Role.CONTRIBUTOR, action=f"document.{action}")
    if action in ("disable", "enable"):
        actions.set_disabled(target, disabled=action == "disable", actor=request.user)
        words = "It answers nothing from now on." if action == "disable" else "It answers again."
    elif action in ("retry", "cancel"):
        job = target.latest_version.job if target.latest_version else None
        act = retry_jobs if action == "retry" else cancel_jobs
        done = act([job] if job else [], actor=request.user)
        words = ("Trying it again." if action == "retry" else "Cancelled.") if done else ""
    elif action == "restore":
        return _restore(request, target)
    elif action == "delete":
        actions.delete_document(target, actor=request.user)
        messages.success(request, f"“{target.title}” was deleted.")
        return redirect("collection", pk=target.collection_id)
    else:
        return HttpResponse("Unknown action.", status=400, content_type="text/plain")
    if words:
        messages.success(request, words)
    return redirect("document", pk=pk)


def _restore(request: SignedInRequest, target: Document) -> HttpResponse:
    version = _version(request, target, request.POST.get("number", ""))
    try:
        restored = restore_version(version, actor=request.user)
    except FileNotFoundError:
        messages.error(
            request,
            f"The original of version {version.number} is lost, so it cannot be restored. Upload"
            " the file again.",
        )
    except OSError:
        messages.error(request, STORAGE_FULL)
    else:
        messages.success(
            request,
            f"Version {version.number} is being restored as version {restored.number}."
            " Until it is ready, nothing changes.",
        )
    return redirect("document", pk=target.pk)


@login_required
@require_POST
def replace(request: SignedInRequest, pk: UUID) -> HttpResponse:
    """Take a file as the next version of this document, whatever it is called."""
    target = document_for(request.user, pk, Role.CONTRIBUTOR, action="document.replace")
    file = request.FILES.get("file")
    if file is None or file.file is None:
        messages.error(request, "Choose a file first.")
        return redirect("document", pk=pk)
    upload = Upload(
        content=file.file, filename=file.name or "file", media_type="", document_id=target.pk
    )
    try:
        version = accept_upload(target.collection_id, upload, actor=request.user)
    except IngestionError as error:
        messages.error(request, error.detail)
    except OSError:
        messages.error(request, STORAGE_FULL)
    else:
        is_same = version.pk == target.latest_version_id
        words = (
            "This is the file that is here already. Nothing was changed."
            if is_same
            else f"Taken as version {version.number}. Until it is ready, nothing changes."
        )
        messages.success(request, words)
    return redirect("document", pk=pk)


@login_required
@require_GET
def chunks(request: SignedInRequest, pk: UUID) -> HttpResponse:
    """What the index holds of it. Nobody but contributors is told that there is such a page."""
    target = readable_document(request.user, pk)
    if not has_role(request.user, Role.CONTRIBUTOR, collection_id=target.collection_id):
        raise Http404
    version = _version(request, target, request.GET.get("v", ""))
    asked = request.GET.get("start", "")
    start = int(asked[:9]) if asked.isdecimal() else 0
    rows = inspection.chunks_of(
        version.pk, user=request.user, start=start, limit=CHUNKS_ON_PAGE + 1
    )
    return render(
        request,
        "web/chunks.html",
        {
            "document": target,
            "collection": target.collection,
            "version": version,
            "chunks": rows[:CHUNKS_ON_PAGE],
            "total": inspection.count_chunks(version.pk, user=request.user),
            "previous": max(0, start - CHUNKS_ON_PAGE) if start else None,
            "following": rows[CHUNKS_ON_PAGE].ordinal if len(rows) > CHUNKS_ON_PAGE else None,
        },
    )


def _version(request: SignedInRequest, target: Document, number: str) -> DocumentVersion:
    """The one with this number; without one, the version that answers, else the newest."""
    if not number and (present := target.current_version or target.latest_version):
        return present
    found = (
        DocumentVersion.objects.for_user(request.user)
        .filter(document=target, number=int(number[:9]) if number.isdecimal() else 0)
        .select_related("document")
        .first()
    )
    if found is None:
        raise Http404
    return found
