"""Bytes of one document to a ParsedDocument. Runs in the sandboxed child; start reading here.

To add a format, add its ending in admission.SUPPORTED and its parser in ``_PARSERS``.
"""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Callable
from importlib import import_module
from typing import Final

from ingestion import admission
from ingestion.elements import ParsedDocument
from ingestion.errors import FailureCode, IngestionError
from ingestion.parsers.blocks import Extraction, lay_out
from ingestion.parsing_limits import Limits

Progress = Callable[[int, int], None]

# Named, not imported: a PDF must not wait for the seconds that unstructured takes to load.
_PARSERS: Final[dict[str, str]] = {
    "text/markdown": "markup:parse_markdown",
    "text/html": "markup:parse_html",
    "message/rfc822": "markup:parse_email",
    admission.RTF: "markup:parse_rtf",
    admission.ODT: "markup:parse_odt",
    admission.EPUB: "markup:parse_epub",
    "text/plain": "plain:parse_text",
    "application/json": "plain:parse_verbatim",
    "application/xml": "plain:parse_verbatim",
    "application/yaml": "plain:parse_verbatim",
    "text/csv": "sheets:parse_csv",
    "text/tab-separated-values": "sheets:parse_tsv",
    admission.XLSX: "sheets:parse_xlsx",
    admission.DOCX: "office:parse_docx",
    admission.PPTX: "office:parse_pptx",
}
# What the libraries raise on files that are not what they should be, by name because importing
# their modules here would load them for every format.
_DAMAGE: Final = frozenset(
    {
        "PackageNotFoundError",
        "UnprocessableEntityError",
        "InvalidFileException",
        "XMLSyntaxError",
        "ParserError",
        "ParseError",
        "InvalidXmlError",
        "OpcError",
    }
)
_DAMAGE_TYPES: Final = (
    zipfile.BadZipFile,
    zlib.error,
    EOFError,
    LookupError,
    ValueError,
    RecursionError,
    AttributeError,
    TypeError,
    NotImplementedError,
)


def parse_document(
    data: bytes, *, media_type: str, limits: Limits, on_progress: Progress | None = None
) -> ParsedDocument:
    """Text and structure of a document whose ``media_type`` admission has found.

    ``on_progress(pages done, pages in all)`` is called where a format has pages to count. Raises
    IngestionError: no_text, password_protected, corrupt_file, too_many_pages, too_much_text,
    parse_memory, unsupported_type.
    """
    if media_type != admission.PDF and media_type not in _PARSERS:
        raise IngestionError(
            FailureCode.UNSUPPORTED_TYPE, found=media_type, supported=admission.SUPPORTED_IN_WORDS
        )
    try:
        extraction = _extract(data, media_type, limits, on_progress)
        return lay_out(extraction, media_type=media_type, max_characters=limits.max_characters)
    except (IngestionError, MemoryError):
        raise
    except Exception as error:
        raise _failure(error) from error


def preload(family: str) -> None:
    """Import what parsing a family of formats ("pdf" or "documents") needs."""
    if family == "pdf":
        import_module("ingestion.parsers.pdf")
        return
    for name in sorted({target.partition(":")[0] for target in _PARSERS.values()}):
        import_module(f"ingestion.parsers.{name}")


def family_of(media_type: str) -> str:
    """Which warm process parses a media type."""
    return "pdf" if media_type == admission.PDF else "documents"


def _extract(
    data: bytes, media_type: str, limits: Limits, on_progress: Progress | None
) -> Extraction:
    if media_type == admission.PDF:
        from ingestion.parsers.pdf import parse_pdf

        return parse_pdf(data, max_pages=limits.max_pages, on_page=on_progress)
    module, _, function = _PARSERS[media_type].partition(":")
    parse: Callable[[bytes], Extraction] = getattr(
        import_module(f"ingestion.parsers.{module}"), function
    )
    extraction = parse(data)
    if extraction.page_count is not None and extraction.page_count > limits.max_pages:
        raise IngestionError(
            FailureCode.TOO_MANY_PAGES,
            pages=f"{extraction.page_count:,}",
            limit=f"{limits.max_pages:,}",
        )
    return extraction


def _failure(error: Exception) -> IngestionError:
    """Libraries meet damaged files with nearly any exception; the rest is a crash of the parser."""
    cause = f"{type(error).__name__}: {error}"[:500]
    if "heap exhausted" in cause.lower() or 'exitcode "251"' in cause.lower():
        return IngestionError(FailureCode.PARSE_MEMORY, cause=cause)  # pandoc at its limit
    names = {base.__name__ for base in type(error).__mro__}
    if isinstance(error, _DAMAGE_TYPES) or names & _DAMAGE or "pandoc" in cause.lower():
        return IngestionError(FailureCode.CORRUPT_FILE, cause=cause)
    return IngestionError(FailureCode.PARSE_CRASHED, cause=cause)
