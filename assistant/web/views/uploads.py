"""Taking files, one per request when the page sends them, several from a plain form."""

from __future__ import annotations

from typing import Any
from uuid import UUID, uuid4

from django.contrib import messages
from django.contrib.auth.decorators import login_required
from django.core.files.uploadedfile import UploadedFile
from django.http import HttpResponse, JsonResponse
from django.shortcuts import redirect
from django.urls import reverse
from django.views.decorators.http import require_POST

from assistant.documents.actions import Upload
from assistant.documents.duplicates import twin_of
from assistant.documents.models import Collection, DocumentVersion
from assistant.permissions.roles import Role
from assistant.users.models import User
from assistant.web.access import collection_for
from assistant.web.requests import SignedInRequest, text_of
from ingestion.actions import accept_upload
from ingestion.attachments import clean_name
from ingestion.errors import FailureCode, IngestionError

_STATUS = {FailureCode.TOO_LARGE: 413}
STORAGE_FULL = "The server could not store the file: its disk may be full. Tell an administrator."


@login_required
@require_POST
def upload(request: SignedInRequest, pk: UUID) -> HttpResponse:
    """A file's path within a dropped folder is its external id: dropped again, it is a new version.

    Files with the same ``batch``, a UUID that the page chose, are counted together. JSON for the
    page's script: 202 ``{id, title, twin}``, else ``{code, detail}`` with 4xx or 507; ``twin`` is
    ``{words, url}`` when the person may read the same file elsewhere.
    """
    target = collection_for(request.user, pk, Role.CONTRIBUTOR, action="document.upload")
    files = request.FILES.getlist("file")
    wants_json = "application/json" in request.headers.get("Accept", "")
    if wants_json and len(files) == 1:
        path, batch = text_of(request.POST, "path", limit=4000), _batch(request)
        status, body = _accept(request, target, files[0], path=path, batch=batch)
        return JsonResponse(body, status=status)
    if wants_json:
        detail = "Send exactly one file in each request."
        return JsonResponse({"code": "one_file", "detail": detail}, status=400)
    if not files:
        messages.error(request, "Choose at least one file first.")
    batch = _batch(request)
    for file in files:
        status, body = _accept(request, target, file, path="", batch=batch)
        if status != 202:
            messages.error(request, f"{file.name}: {body['detail']}")
        elif body["twin"]:
            messages.success(request, f"{file.name}: {body['twin']['words']}")
    return redirect("collection", pk=pk)


def _batch(request: SignedInRequest) -> UUID:
    """The one that the page chose, so that its files are counted together, else a new one."""
    try:
        return UUID(request.POST.get("batch", ""))
    except ValueError:
        return uuid4()


def _accept(
    request: SignedInRequest,
    target: Collection,
    file: UploadedFile[bytes],
    *,
    path: str,
    batch: UUID,
) -> tuple[int, dict[str, Any]]:
    name = file.name or "file"
    assert file.file is not None
    try:
        version = accept_upload(
            target.pk,
            Upload(
                content=file.file,
                filename=name,
                media_type="",
                external_id=(path or name).lstrip("/")[-500:],
                path=clean_name(path) if "/" in path else "",
            ),
            actor=request.user,
            batch=batch,
        )
    except IngestionError as error:
        return _STATUS.get(error.code, 422), {"code": error.code, "detail": error.detail}
    except OSError:
        return 507, {"code": "storage", "detail": STORAGE_FULL}
    return 202, {
        "id": str(version.document_id),
        "title": version.filename,
        "twin": _twin(version, request.user),
    }


def _twin(version: DocumentVersion, user: User) -> dict[str, str] | None:
    twin = twin_of(version, user=user)
    if twin is None:
        return None
    return {
        "words": f"The same file is in “{twin.collection.name}” as “{twin.title}”.",
        "url": reverse("document", args=[twin.pk]),
    }
