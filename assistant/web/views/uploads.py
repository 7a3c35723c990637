"""Taking files, one per request when the page sends them, several from a plain form."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from django.contrib import messages
from django.contrib.auth.decorators import login_required
from django.core.files.uploadedfile import UploadedFile
from django.http import HttpResponse, JsonResponse
from django.shortcuts import redirect
from django.views.decorators.http import require_POST

from assistant.documents.actions import Upload
from assistant.documents.models import Collection
from assistant.permissions.roles import Role
from assistant.web.access import collection_for
from assistant.web.requests import SignedInRequest
from ingestion.actions import accept_upload
from ingestion.errors import FailureCode, IngestionError

_STATUS = {FailureCode.TOO_LARGE: 413}
_FULL = "The server could not store the file: its disk may be full. Tell an administrator."


@login_required
@require_POST
def upload(request: SignedInRequest, pk: UUID) -> HttpResponse:
    """A file's path within a dropped folder is its external id: dropped again, it is a new version.

    JSON for the page's script: 202 ``{id, title}``, else ``{code, detail}`` with 4xx or 507.
    """
    target = collection_for(request.user, pk, Role.CONTRIBUTOR, action="document.upload")
    files = request.FILES.getlist("file")
    wants_json = "application/json" in request.headers.get("Accept", "")
    if wants_json and len(files) == 1:
        status, body = _accept(request, target, files[0], request.POST.get("path", ""))
        return JsonResponse(body, status=status)
    if wants_json:
        detail = "Send exactly one file in each request."
        return JsonResponse({"code": "one_file", "detail": detail}, status=400)
    if not files:
        messages.error(request, "Choose at least one file first.")
    for file in files:
        status, body = _accept(request, target, file, "")
        if status != 202:
            messages.error(request, f"{file.name}: {body['detail']}")
    return redirect("collection", pk=pk)


def _accept(
    request: SignedInRequest, target: Collection, file: UploadedFile[bytes], path: str
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
            ),
            actor=request.user,
        )
    except IngestionError as error:
        return _STATUS.get(error.code, 422), {"code": error.code, "detail": error.detail}
    except OSError:
        return 507, {"code": "storage", "detail": _FULL}
    return 202, {"id": str(version.document_id), "title": version.filename}
