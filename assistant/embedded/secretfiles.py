"""Secrets of the embedded services: made once, one file each, readable by the owner alone."""

from __future__ import annotations

import os
import secrets
from pathlib import Path


def read_or_make(directory: Path, name: str) -> str:
    """The secret in ``directory/name``; a new one of 256 random bits when there is none."""
    file = directory / name
    try:
        if stored := file.read_text(encoding="ascii").strip():
            return stored
    except FileNotFoundError:
        pass
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    value = secrets.token_urlsafe(32)
    write_private(file, value + "\n")
    return value


def write_private(file: Path, text: str) -> None:
    """Replace the file in one step, mode 0600 from its first byte on."""
    new = file.with_name(f".{file.name}.{os.getpid()}")
    descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
        stream.write(text)
        stream.flush()
        os.fsync(stream.fileno())
    new.replace(file)
