"""A backup file: a tar with `database.dump`, `media/…` and, last, `manifest.json`.

The manifest lists size and SHA-256 of every other member, so a file that was cut short or changed
is noticed before anything is restored. Members are already compressed; the tar is not.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import tarfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import IO, Any

FORMAT = 1
MANIFEST = "manifest.json"
DATABASE = "database.dump"
MEDIA = "media"
_BLOCK = 1 << 20


class ArchiveError(Exception):
    """The file is not a whole backup of ours; the message says what is wrong."""


class Writer:
    """Adds members to a new backup file and remembers their checksums."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._tar = tarfile.open(fileobj=stream, mode="w|", format=tarfile.PAX_FORMAT)  # noqa: SIM115 - closed by finish
        self.members: dict[str, dict[str, Any]] = {}

    def add(self, name: str, file: Path) -> None:
        """Raises FileNotFoundError when the file is gone, OSError when it shrinks meanwhile."""
        with file.open("rb") as source:
            info = tarfile.TarInfo(name)
            info.size = os.fstat(source.fileno()).st_size
            info.mode = 0o600
            hashing = _Hashing(source)
            self._tar.addfile(info, hashing)
        self.members[name] = {"size": info.size, "sha256": hashing.sha256.hexdigest()}

    def finish(self, about: dict[str, Any]) -> None:
        """Write the manifest and close. Without it a file is no backup."""
        manifest = {"format": FORMAT, **about, "members": self.members}
        content = json.dumps(manifest, indent=1, sort_keys=True).encode()
        info = tarfile.TarInfo(MANIFEST)
        info.size = len(content)
        info.mode = 0o600
        self._tar.addfile(info, io.BytesIO(content))
        self._tar.close()


class _Hashing(io.RawIOBase):
    """Reads through and hashes what was read."""

    def __init__(self, source: IO[bytes]) -> None:
        self._source = source
        self.sha256 = hashlib.sha256()

    def read(self, size: int = -1) -> bytes:
        block = self._source.read(size)
        self.sha256.update(block)
        return block


def unpack(file: Path, target: Path) -> dict[str, Any]:
    """Unpack a backup into the empty directory ``target`` and return its manifest.

    Raises ArchiveError unless every member of the manifest is there, with its checksum, and
    nothing else is. Only plain files at expected names are written.
    """
    found: dict[str, dict[str, Any]] = {}
    manifest: dict[str, Any] | None = None
    try:
        with tarfile.open(file, mode="r|") as tar:
            for member, content in _plain_files(tar):
                if member.name == MANIFEST:
                    manifest = json.loads(content.read())
                elif member.name in found:
                    raise ArchiveError(f"{member.name} occurs twice")
                else:
                    found[member.name] = _write(content, target / _safe(member.name))
    except (tarfile.TarError, EOFError, ValueError) as error:
        raise ArchiveError(f"not a readable backup: {error}") from error
    if manifest is None:
        raise ArchiveError("incomplete: the list of its contents, which comes last, is missing")
    if manifest.get("format") != FORMAT:
        raise ArchiveError(f"of format {manifest.get('format')!r}; this version reads {FORMAT}")
    expected = manifest.get("members", {})
    for name in sorted(expected.keys() | found.keys()):
        if found.get(name) != expected.get(name):
            raise ArchiveError(f"{name} is missing or is not what was backed up")
    if DATABASE not in found:
        raise ArchiveError("there is no database in it")
    return manifest


def _plain_files(tar: tarfile.TarFile) -> Iterator[tuple[tarfile.TarInfo, IO[bytes]]]:
    for member in tar:
        content = tar.extractfile(member) if member.isfile() else None
        if content is None:
            raise ArchiveError(f"{member.name} is not a plain file")
        yield member, content


def _safe(name: str) -> PurePosixPath:
    path = PurePosixPath(name)
    inside = path.parts[:1] == (MEDIA,) and len(path.parts) > 1 and ".." not in path.parts
    if name != DATABASE and not inside:
        raise ArchiveError(f"unexpected content: {name}")
    return path


def _write(content: IO[bytes], file: Path) -> dict[str, Any]:
    file.parent.mkdir(parents=True, exist_ok=True)
    sha256 = hashlib.sha256()
    size = 0
    with file.open("xb") as target:
        while block := content.read(_BLOCK):
            target.write(block)
            sha256.update(block)
            size += len(block)
    file.chmod(0o640)
    return {"size": size, "sha256": sha256.hexdigest()}
