"""What a PDF holds beside its pages' text: values of form fields and embedded files."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from functools import partial
from typing import Any, Final

import pypdfium2
import pypdfium2.raw as pdfium

from ingestion.attachments import Attachment, UnreadableAttachmentError
from ingestion.parsers.blocks import clean

_MAX_FILES: Final = 10_000
_MAX_FIELDS_ON_PAGE: Final = 5_000
_CHOSEN: Final = "yes"
_TEXT_FIELDS: Final = (
    pdfium.FPDF_FORMFIELD_TEXTFIELD,
    pdfium.FPDF_FORMFIELD_COMBOBOX,
    pdfium.FPDF_FORMFIELD_LISTBOX,
)
_CHECKED_FIELDS: Final = (pdfium.FPDF_FORMFIELD_CHECKBOX, pdfium.FPDF_FORMFIELD_RADIOBUTTON)


def field_values(document: Any, page: Any) -> Iterator[str]:
    """``name: value`` for every field of the page that is filled in.

    The caller has called ``document.init_forms()``; without a form nothing is found.
    """
    form = document.formenv
    if form is None:
        return
    seen: set[str] = set()
    for index in range(min(pdfium.FPDFPage_GetAnnotCount(page), _MAX_FIELDS_ON_PAGE)):
        annotation = pdfium.FPDFPage_GetAnnot(page, index)
        if not annotation:
            continue
        try:
            found = _field(form, annotation)
        finally:
            pdfium.FPDFPage_CloseAnnot(annotation)
        if found and found not in seen:
            seen.add(found)
            yield found


def embedded_files(document: Any) -> list[Attachment]:
    """The files attached to the document. It must stay open until they are read."""
    try:
        count = min(document.count_attachments(), _MAX_FILES)
        found = [document.get_attachment(index) for index in range(count)]
        return [Attachment(file.get_name(), partial(_content, file)) for file in found]
    except (pypdfium2.PdfiumError, UnicodeError):
        return []  # a broken list of attachments costs these, not the document


def _content(file: Any) -> bytes:
    try:
        return bytes(file.get_data())
    except (pypdfium2.PdfiumError, ValueError) as error:
        raise UnreadableAttachmentError(str(error)) from error


def _field(form: Any, annotation: Any) -> str:
    kind = pdfium.FPDFAnnot_GetFormFieldType(form, annotation)
    if kind in _CHECKED_FIELDS:
        value = _CHOSEN if pdfium.FPDFAnnot_IsChecked(form, annotation) else ""
        if value and kind == pdfium.FPDF_FORMFIELD_RADIOBUTTON:
            value = _string(pdfium.FPDFAnnot_GetFormFieldExportValue, form, annotation) or value
    elif kind in _TEXT_FIELDS:
        value = _string(pdfium.FPDFAnnot_GetFormFieldValue, form, annotation)
    else:
        return ""
    if not value:
        return ""
    label = _string(pdfium.FPDFAnnot_GetFormFieldAlternateName, form, annotation)
    label = label or _string(pdfium.FPDFAnnot_GetFormFieldName, form, annotation)
    return f"{label}: {value}" if label else value


def _string(function: Any, form: Any, annotation: Any) -> str:
    size = function(form, annotation, None, 0)
    if size <= 2:
        return ""
    buffer = ctypes.create_string_buffer(size)
    function(form, annotation, ctypes.cast(buffer, ctypes.POINTER(pdfium.FPDF_WCHAR)), size)
    return clean(buffer.raw[: size - 2].decode("utf-16-le", "replace"))
