"""Bytes of one document to a ParsedDocument. Runs in the sandboxed child; start reading here.

To add a format, add its ending in admission.SUPPORTED and its parser in ``_PARSERS``.
"""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Callable
from dataclasses import replace
from importlib import import_module
from typing import Final

from ingestion import admission
from ingestion.attachments import (
    AttachmentSender,
    OnAttachment,
    clean_name,
    not_read_warning,
)
from ingestion.elements import ParsedDocument
from ingestion.errors import FailureCode, IngestionError
from ingestion.parsers.blocks import Extraction, lay_out
from ingestion.parsing_limits import Limits

Progress = Callable[[int, int], None]
OnRecognised = Callable[[float], None]

# Named, not imported: a PDF must not wait for the seconds that unstructured takes to load.
_PARSERS: Final[dict[str, str]] = {
    "text/markdown": "markup:parse_markdown",
    "text/html": "markup:parse_html",
    "message/rfc822": "mail:parse_email",
    "application/mbox": "mail:parse_mbox",
    admission.MSG: "outlook:parse_msg",
    admission.RTF: "pandoc:parse_rtf",
    admission.ODT: "pandoc:parse_odt",
    admission.EPUB: "pandoc:parse_epub",
    "text/x-rst": "pandoc:parse_rst",
    "text/x-org": "pandoc:parse_org",
    "text/plain": "plain:parse_text",
    "application/json": "structured:parse_json",
    "application/xml": "structured:parse_xml",
    "application/yaml": "plain:parse_verbatim",
    "text/csv": "delimited:parse_csv",
    "text/tab-separated-values": "delimited:parse_tsv",
    admission.XLSX: "sheets:parse_xlsx",
    admission.XLSB: "workbooks:parse_xlsb",
    admission.XLS: "workbooks:parse_xls",
    admission.ODS: "workbooks:parse_ods",
    admission.DOCX: "word:parse_docx",
    admission.PPTX: "office:parse_pptx",
    admission.DOC: "legacy_word:parse_doc",
    admission.PPT: "legacy_powerpoint:parse_ppt",
    admission.ODP: "opendocument:parse_odp",
    admission.ZIP: "archive:parse_zip",
}
# These read page by page, within the limits and with progress, and recognise text in pictures.
_PAGED: Final[dict[str, str]] = {
    admission.PDF: "pdf:parse_pdf",
    **dict.fromkeys(admission.IMAGES, "images:parse_image"),
}
# These need only small libraries and start no programs: their process has 30 MB, not 400, and the
# sandbox lets it start none. Everything that is mostly text belongs here.
_TEXT: Final = frozenset(
    {
        *("text/markdown", "text/html", "text/plain", "text/csv", "text/tab-separated-values"),
        *("application/json", "application/xml", "application/yaml"),
        *("message/rfc822", "application/mbox", admission.ZIP),
        *(admission.DOCX, admission.DOC, admission.PPT, admission.ODP),
    }
)
FAMILIES: Final = ("text", "pdf", "documents")
"""Of formats; each has a process that has imported what it needs."""
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
        "PandocError",
        "CalamineError",
        "OleFileError",
    }
)
_DAMAGE_TYPES: Final = (
    zipfile.BadZipFile,
    zlib.error,
    EOFError,
    LookupError,
    ValueError,
    RecursionError,
    SyntaxError,  # Pillow's word for a broken picture
    AttributeError,
    TypeError,
    NotImplementedError,
)


def parse_document(
    data: bytes,
    *,
    media_type: str,
    limits: Limits,
    on_progress: Progress | None = None,
    on_attachment: OnAttachment | None = None,
    on_recognised: OnRecognised | None = None,
) -> ParsedDocument:
    """Text and structure of a document whose ``media_type`` admission has found.

    ``on_progress(pages done, pages in all)`` is called where a format has pages to count,
    ``on_attachment(name, bytes)`` once for each file inside an e-mail, an archive or a PDF; names
    are clean (ingestion.attachments) and unique, ``on_recognised(seconds)`` after text recognition
    in each picture. Raises IngestionError: no_text, password_protected, corrupt_file,
    too_many_pages, too_much_text, archive_bomb, image_too_large, ocr_unavailable, parse_memory,
    unsupported_type.
    """
    if media_type not in _PAGED and media_type not in _PARSERS:
        raise IngestionError(
            FailureCode.UNSUPPORTED_TYPE, found=media_type, supported=admission.SUPPORTED_IN_WORDS
        )
    try:
        extraction = _extract(data, media_type, limits, on_progress, on_recognised)
        document = lay_out(extraction, media_type=media_type, max_characters=limits.max_characters)
        if on_attachment is None:
            names = [clean_name(attachment.name) for attachment in extraction.attachments]
            return _with_warnings(document, [not_read_warning(names)] if names else [])
        sender = AttachmentSender(on_attachment, limits)
        for attachment in extraction.attachments:
            sender.send(attachment)
        return _with_warnings(document, sender.warnings())
    except (IngestionError, MemoryError):
        raise
    except Exception as error:
        raise _failure(error) from error


def _with_warnings(document: ParsedDocument, more: list[str]) -> ParsedDocument:
    return replace(document, warnings=(*document.warnings, *filter(None, more)))


def preload(family: str) -> None:
    """Import what parsing a family of formats (``FAMILIES``) needs."""
    targets = (target for kind, target in (_PARSERS | _PAGED).items() if family_of(kind) == family)
    for name in sorted({target.partition(":")[0] for target in targets}):
        import_module(f"ingestion.parsers.{name}")


def family_of(media_type: str) -> str:
    """Which warm process parses a media type: the smaller it is, the cheaper is its fork."""
    if media_type in _PAGED:
        return "pdf"
    return "text" if media_type in _TEXT else "documents"


def _extract(
    data: bytes,
    media_type: str,
    limits: Limits,
    on_progress: Progress | None,
    on_recognised: OnRecognised | None,
) -> Extraction:
    if target := _PAGED.get(media_type):
        paged: Callable[..., Extraction] = _load(target)
        return paged(data, limits=limits, on_page=on_progress, on_seconds=on_recognised)
    extraction: Extraction = _load(_PARSERS[media_type])(data)
    if extraction.page_count is not None and extraction.page_count > limits.max_pages:
        raise IngestionError(
            FailureCode.TOO_MANY_PAGES,
            pages=f"{extraction.page_count:,}",
            limit=f"{limits.max_pages:,}",
        )
    return extraction


def _load(target: str) -> Callable[..., Extraction]:
    module, _, name = target.partition(":")
    function: Callable[..., Extraction] = getattr(
        import_module(f"ingestion.parsers.{module}"), name
    )
    return function


def _failure(error: Exception) -> IngestionError:
    """Libraries meet damaged files with nearly any exception; the rest is a crash of the parser."""
    cause = f"{type(error).__name__}: {error}"[:500]
    if "heap exhausted" in cause.lower() or 'exitcode "251"' in cause.lower():
        return IngestionError(FailureCode.PARSE_MEMORY, cause=cause)  # pandoc at its limit
    names = {base.__name__ for base in type(error).__mro__}
    if isinstance(error, _DAMAGE_TYPES) or names & _DAMAGE or "pandoc" in cause.lower():
        return IngestionError(FailureCode.CORRUPT_FILE, cause=cause)
    return IngestionError(FailureCode.PARSE_CRASHED, cause=cause)
