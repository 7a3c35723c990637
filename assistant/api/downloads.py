"""Originals on their way out. A person's file must never run in this site's origin."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from typing import IO, Any

from asgiref.sync import sync_to_async
from django.http import HttpRequest, StreamingHttpResponse
from django.http.response import HttpResponseBase
from django.utils.http import content_disposition_header

from assistant.documents import storage
from assistant.documents.models import DocumentVersion

_BLOCK = 256 * 1024
_UNSAFE = re.compile(r"[\x00-\x1f\x7f/\\]|[\u202a-\u202e\u2066-\u2069]")


def original_response(request: HttpRequest, version: DocumentVersion) -> HttpResponseBase:
    """The bytes of one version as an attachment, streamed. Raises OSError when they are gone."""
    file = storage.open_original(version.storage_key)
    response = StreamingHttpResponse(
        _blocks(file) if _is_async(request) else iter(lambda: file.read(_BLOCK), b""),
        content_type="application/octet-stream",
    )
    response._resource_closers.append(file.close)  # type: ignore[attr-defined]
    name = _UNSAFE.sub("_", version.filename) or "document"
    response["Content-Disposition"] = content_disposition_header(True, name)
    response["Content-Length"] = str(version.size)
    response["X-Content-Type-Options"] = "nosniff"
    response["Content-Security-Policy"] = "sandbox; default-src 'none'"
    response["Cache-Control"] = "private, no-store"
    return response


def _is_async(request: Any) -> bool:
    """Under ASGI a plain iterator would be read into memory as a whole."""
    return hasattr(getattr(request, "_request", request), "scope")


async def _blocks(file: IO[bytes]) -> AsyncIterator[bytes]:
    while block := await sync_to_async(file.read, thread_sensitive=False)(_BLOCK):
        yield block
