"""Stops reading an upload at the limit, whatever length the client declared."""

from __future__ import annotations

from typing import Any

from django.conf import settings
from django.core.files.uploadhandler import FileUploadHandler


class LimitedUploadHandler(FileUploadHandler):
    """Cuts a file that is larger than MAX_UPLOAD_MB one byte past the limit.

    The rest of the body is read and dropped; ``ingestion.admission`` then sees a file that is too
    large and says so in words. Memory and disk use stay bounded (CVE-2026-5766 class).
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._left = 0

    def new_file(self, *args: Any, **kwargs: Any) -> None:
        super().new_file(*args, **kwargs)
        self._left = settings.MAX_UPLOAD_MB * 1024 * 1024 + 1

    def receive_data_chunk(self, raw_data: bytes, start: int) -> bytes | None:
        piece = raw_data[: self._left]
        self._left -= len(piece)
        return piece or None

    def file_complete(self, file_size: int) -> None:
        return None
