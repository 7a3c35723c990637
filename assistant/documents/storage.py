"""Originals on Django's storage. Names of people's files are data and never become paths."""

from __future__ import annotations

import hashlib
import os
from datetime import datetime
from typing import IO
from uuid import UUID

from django.core.files.base import File
from django.core.files.storage import default_storage

FOLDERS = 256
"""Into how many folders originals are spread."""


def key_for(version_id: UUID) -> str:
    """Two levels, so that no directory grows past a few thousand entries per 256."""
    name = version_id.hex
    return f"originals/{name[:2]}/{name}"


def save_original(version_id: UUID, content: IO[bytes]) -> str:
    """Store the bytes durably before the row that names them is committed; returns the key.

    Raises OSError (disk full and the like) and leaves no partial file behind.
    """
    key = key_for(version_id)
    content.seek(0)
    try:
        saved = default_storage.save(key, File(content))
    except OSError:
        default_storage.delete(key)
        raise
    _sync(saved)
    return saved


def _sync(key: str) -> None:
    """A local file survives a power cut only after fsync; object stores are durable on return."""
    try:
        path = default_storage.path(key)
    except NotImplementedError:
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def open_original(key: str) -> File[bytes]:
    """Raises FileNotFoundError when the storage lost it."""
    return default_storage.open(key, "rb")


def remove_original(key: str) -> None:
    default_storage.delete(key)


def stored_before(moment: datetime, *, folder: int) -> list[str]:
    """Keys of originals written before ``moment``, of one of the FOLDERS parts of the storage."""
    parent = f"originals/{folder:02x}"
    try:
        names = default_storage.listdir(parent)[1]
    except FileNotFoundError:
        return []
    keys = [f"{parent}/{name}" for name in names]
    return [key for key in keys if default_storage.get_modified_time(key) < moment]


def digest(content: IO[bytes]) -> tuple[str, int]:
    """SHA-256 in hex and size in bytes of the whole stream, which is rewound."""
    content.seek(0)
    sha256 = hashlib.sha256()
    size = 0
    while block := content.read(1 << 20):
        sha256.update(block)
        size += len(block)
    content.seek(0)
    return sha256.hexdigest(), size
