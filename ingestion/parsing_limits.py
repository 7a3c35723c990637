"""What one document may cost. Built from the settings by the caller; no Django here."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds on one document, checked at admission, in the parser and around the child.

    Sizes in bytes, times in seconds. ``memory`` is address space above what the parser process
    has mapped when the document arrives. ``archive_*`` bound zip containers (OOXML, ODF, EPUB) by
    their directory, before anything is unpacked; ``archive_ratio`` is unpacked over packed size
    and counts only for archives that unpack to more than 32 MiB. ``max_attachment*`` bound what is
    handed on of the files inside a document; each of them is also bound by ``max_bytes``.

    ``ocr_languages`` are Tesseract's names joined by "+"; "" switches text recognition off.
    ``max_image_pixels`` bounds one image before it is decoded. Of a document with more than
    ``max_ocr_pages`` pages without text the first so many are read, and none after ``ocr_seconds``
    in all. Time spent recognising comes on top of ``wall_seconds``.
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
    max_attachments: int = 10_000
    max_attachment_bytes: int = 1 << 30
    max_image_pixels: int = 200_000_000
    ocr_languages: str = "eng"
    ocr_dpi: int = 200
    max_ocr_pages: int = 500
    ocr_page_seconds: float = 60.0
    ocr_seconds: float = 3_600.0
