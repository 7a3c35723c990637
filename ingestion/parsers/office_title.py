"""The title in the properties of an Office document."""

from __future__ import annotations

import io
import zipfile
from typing import Final

from lxml import etree

from ingestion.parsers.blocks import clean

_TITLE: Final = "{http://purl.org/dc/elements/1.1/}title"
# Titles that Office templates and converters leave behind say nothing about the document.
_PLACEHOLDERS: Final = frozenset(
    {"powerpoint presentation", "slide 1", "untitled", "microsoft word document", "word document"}
)


def core_title(data: bytes) -> str:
    """Title in the document's properties, unless it is a template's."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            core = archive.read("docProps/core.xml")
        parser = etree.XMLParser(resolve_entities=False, no_network=True, load_dtd=False)
        title = clean(etree.fromstring(core, parser).findtext(_TITLE) or "")
    except (KeyError, zipfile.BadZipFile, etree.XMLSyntaxError):
        return ""
    return "" if title.lower() in _PLACEHOLDERS else title
