"""Every way an upload can fail, in words for the person who uploaded it. The only list of them."""

from __future__ import annotations

from enum import StrEnum
from typing import Final, NamedTuple


class FailureCode(StrEnum):
    """Why a file did not become searchable. The values are part of the API and never change."""

    EMPTY_FILE = "empty_file"
    NO_TEXT = "no_text"
    UNSUPPORTED_TYPE = "unsupported_type"
    TYPE_MISMATCH = "type_mismatch"
    PASSWORD_PROTECTED = "password_protected"  # noqa: S105 - a failure code, not a secret
    CORRUPT_FILE = "corrupt_file"
    IMAGE_TOO_LARGE = "image_too_large"
    OCR_UNAVAILABLE = "ocr_unavailable"
    TOO_LARGE = "too_large"
    ARCHIVE_BOMB = "archive_bomb"
    TOO_MANY_PAGES = "too_many_pages"
    TOO_MUCH_TEXT = "too_much_text"
    PARSE_TIMEOUT = "parse_timeout"
    PARSE_MEMORY = "parse_memory"
    PARSE_CRASHED = "parse_crashed"
    SANDBOX_LOST = "sandbox_lost"
    EMBEDDER_UNAVAILABLE = "embedder_unavailable"
    EMBEDDER_MISCONFIGURED = "embedder_misconfigured"
    STORAGE = "storage"
    INTERNAL = "internal"
    CANCELLED = "cancelled"


class _Failure(NamedTuple):
    detail: str
    retryable: bool = False


_FAILURES: Final[dict[FailureCode, _Failure]] = {
    FailureCode.EMPTY_FILE: _Failure(
        "The file is empty. Check that it was saved completely and upload it again."
    ),
    FailureCode.NO_TEXT: _Failure(
        "No text was found in the file{scanned}, so there is nothing to search. {hint}"
    ),
    FailureCode.UNSUPPORTED_TYPE: _Failure(
        "Files of this kind ({found}) cannot be read. Save the document as one of: {supported}."
    ),
    FailureCode.TYPE_MISMATCH: _Failure(
        "The name ends in {extension}, but the content looks like {found}. Rename the file with "
        "the right ending or save it again in the format its name says."
    ),
    FailureCode.PASSWORD_PROTECTED: _Failure(
        "The file is protected by {protection}. Save a copy without {guard} and upload that."
    ),
    FailureCode.CORRUPT_FILE: _Failure(
        "The file is damaged or incomplete and could not be read. Open it in the program that "
        "made it, save it again and upload the new copy."
    ),
    FailureCode.IMAGE_TOO_LARGE: _Failure(
        "The image has {pixels} million pixels; at most {limit} million are allowed here. Save it "
        "at a lower resolution."
    ),
    FailureCode.OCR_UNAVAILABLE: _Failure(
        "The text is in pictures only, and it cannot be recognised here because {reason}. Ask an "
        "administrator to set this up, then retry the file; or upload a version with text."
    ),
    FailureCode.TOO_LARGE: _Failure(
        "The file is larger than the {limit} allowed here. Split it, or ask an administrator to "
        "raise the limit."
    ),
    FailureCode.ARCHIVE_BOMB: _Failure(
        "The file unpacks to far more data than a document should ({reason}), so it was not "
        "opened. Save the document again in its own program, or split it."
    ),
    FailureCode.TOO_MANY_PAGES: _Failure(
        "The document has {pages} pages; at most {limit} are allowed here. Split it into parts."
    ),
    FailureCode.TOO_MUCH_TEXT: _Failure(
        "The document holds more text than the {limit} allowed here. Split it into parts."
    ),
    FailureCode.PARSE_TIMEOUT: _Failure(
        "Reading the file took longer than the {limit} allowed, so it was stopped. Split the "
        "document, or save it again in a simpler format."
    ),
    FailureCode.PARSE_MEMORY: _Failure(
        "Reading the file needed more memory than allowed, so it was stopped. Split the document, "
        "or save it again in a simpler format."
    ),
    FailureCode.PARSE_CRASHED: _Failure(
        "The file made the reader fail. It may be damaged: save it again in its own program, or "
        "in another format, and upload the new copy."
    ),
    FailureCode.SANDBOX_LOST: _Failure(
        "Reading the file was interrupted. It will be tried again; nothing is wrong with the file.",
        retryable=True,
    ),
    FailureCode.EMBEDDER_UNAVAILABLE: _Failure(
        "The embedding service cannot be reached, so the document is not searchable yet. It will "
        "be tried again; if this lasts, tell an administrator.",
        retryable=True,
    ),
    FailureCode.EMBEDDER_MISCONFIGURED: _Failure(
        "The embedding service refused the text: it serves another model, wants another key, or "
        "cannot read it. Nothing is wrong with the file. An administrator finds the reason with "
        "`manage.py doctor`; then retry."
    ),
    FailureCode.STORAGE: _Failure(
        "The server's disk is full or does not answer. Nothing is lost: it will be tried again. "
        "Tell an administrator.",
        retryable=True,
    ),
    FailureCode.INTERNAL: _Failure(
        "Something went wrong on our side. It will be tried again; if this lasts, tell an "
        "administrator.",
        retryable=True,
    ),
    FailureCode.CANCELLED: _Failure("The upload was cancelled before it was finished."),
}

_DEFAULTS: Final[dict[str, str]] = {
    "extension": "another type",
    "found": "unknown",
    "limit": "limit",
    "pages": "too many",
    "pixels": "too many",
    "protection": "a password",
    "guard": "the password",
    "reason": "too large",
    "scanned": "",
    "hint": "It may hold only pictures, links or settings; open it in its own program to see.",
    "supported": "PDF, Word, text",
}
MAX_PARAMETER_CHARACTERS: Final = 200


class IngestionError(Exception):
    """A file could not be made searchable.

    ``code`` is stable and machine readable, ``detail`` is a sentence for a person that says what
    is wrong and what to do, ``retryable`` says whether the same file may succeed later.
    ``parameters`` fill the gaps of the sentence; each is cut to 200 characters because some come
    from the sandboxed child. ``cause`` is for logs only and is never shown.
    """

    def __init__(self, code: FailureCode, *, cause: str = "", **parameters: str) -> None:
        failure = _FAILURES[code]
        self.code = code
        self.parameters = {
            name: value[:MAX_PARAMETER_CHARACTERS]
            for name, value in parameters.items()
            if name in _DEFAULTS
        }
        self.detail = failure.detail.format(**(_DEFAULTS | self.parameters))
        self.retryable = failure.retryable
        self.cause = cause
        super().__init__(f"{code}: {self.detail}")


def readable_bytes(count: int) -> str:
    """``5242880`` as ``5 MiB``."""
    for unit, size in (("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)):
        if count >= size:
            return f"{count / size:.3g} {unit}"
    return f"{count} bytes"
