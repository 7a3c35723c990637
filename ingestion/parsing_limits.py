"""What one document may cost. Built from the settings by the caller; no Django here."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds on one document, checked at admission, in the parser and around the child.

    Sizes in bytes, times in seconds. ``memory`` is address space above what the parser process
    has mapped when the document arrives. ``archive_*`` bound zip containers (OOXML, ODF, EPUB) by
    their directory, before anything is unpacked; ``archive_ratio`` is unpacked over packed size
    and counts only for archives that unpack to more than 32 MiB.
    """

    max_bytes: int = 100 << 20
    max_pages: int = 5_000
    max_characters: int = 20_000_000
    wall_seconds: float = 300.0
    cpu_seconds: int = 300
    memory: int = 2 << 30
    max_output_bytes: int = 512 << 20
    max_open_files: int = 256
    max_temporary_bytes: int = 1 << 30
    archive_members: int = 10_000
    archive_bytes: int = 1 << 30
    archive_ratio: int = 200
