"""Attachments and archive members on their way from the sandbox to documents of their own."""

from __future__ import annotations

from pathlib import Path
from uuid import UUID

from django.db import transaction

from assistant.documents.models import Document, DocumentVersion
from ingestion import actions
from ingestion.leases import Claim, LeaseLost

MAX_DEPTH = 3
"""How deep documents lie within documents: a file in an archive in an e-mail is at depth 2."""


def may_have_parts(document: Document) -> bool:
    """False for a document that already lies as deep as is allowed."""
    depth, owner = 0, document.parent
    while owner is not None:
        depth, owner = depth + 1, owner.parent
    return depth < MAX_DEPTH


class Parts:
    """Takes what the sandbox finds inside one document, in a folder, until all of it is there.

    Nothing is stored before the whole document was read: a container that turns out to be damaged
    leaves no parts.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._files: list[tuple[str, Path]] = []

    def receive(self, path: str, data: bytes) -> None:
        """Raises OSError when the disk is full."""
        file = self._folder / f"part-{len(self._files)}"
        file.write_bytes(data)
        self._files.append((path, file))

    def accept(self, version: DocumentVersion, claimed: Claim) -> set[UUID]:
        """Make or update a document for each part; returns their ids.

        One transaction each, so that neither the job's row nor the parent's is locked for long;
        repeating it after a crash changes nothing. Raises LeaseLost when the parent's job was
        lost or the parent deleted.
        """
        taken: set[UUID] = set()
        for path, file in self._files:
            with file.open("rb") as content, transaction.atomic():
                claimed.held()
                try:
                    part = actions.accept_part(version, path, content)
                except Document.DoesNotExist:
                    raise LeaseLost from None
                taken.add(part.document_id)
            file.unlink()
        return taken
