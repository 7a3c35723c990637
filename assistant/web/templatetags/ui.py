"""Icons and words for templates."""

from __future__ import annotations

from django import template
from django.templatetags.static import static
from django.utils.html import format_html
from django.utils.safestring import SafeString

register = template.Library()

_KINDS = {
    "application/pdf": "PDF",
    "application/vnd.openxmlformats-officedocument.wordprocessingml.document": "Word",
    "application/vnd.openxmlformats-officedocument.presentationml.presentation": "PowerPoint",
    "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet": "Excel",
    "application/msword": "Word",
    "application/vnd.ms-powerpoint": "PowerPoint",
    "application/vnd.ms-excel": "Excel",
    "application/vnd.ms-excel.sheet.binary.macroenabled.12": "Excel",
    "application/vnd.ms-outlook": "Outlook",
    "application/vnd.oasis.opendocument.text": "OpenDocument",
    "application/vnd.oasis.opendocument.spreadsheet": "OpenDocument table",
    "application/vnd.oasis.opendocument.presentation": "OpenDocument slides",
    "application/mbox": "Mailbox",
    "application/zip": "ZIP",
    "application/octet-stream": "Unknown",
    "application/epub+zip": "EPUB",
    "application/rtf": "RTF",
    "application/json": "JSON",
    "application/xml": "XML",
    "application/yaml": "YAML",
    "text/markdown": "Markdown",
    "text/plain": "Text",
    "text/html": "HTML",
    "text/csv": "CSV",
    "text/tab-separated-values": "TSV",
    "text/x-rst": "reStructuredText",
    "text/x-org": "Org",
    "message/rfc822": "E-mail",
    "image/png": "PNG",
    "image/jpeg": "JPEG",
    "image/tiff": "TIFF",
    "image/bmp": "BMP",
    "image/gif": "GIF",
    "image/webp": "WebP",
    "image/heic": "HEIC",
}


@register.simple_tag
def icon(name: str, extra: str = "") -> SafeString:
    """One symbol of static/icons.svg; decoration only, the words stand beside it."""
    return format_html(
        '<svg class="icon {}" aria-hidden="true"><use href="{}#{}"></use></svg>',
        extra,
        static("icons.svg"),
        name,
    )


@register.filter
def kind_of_file(media_type: str) -> str:
    """``application/pdf`` as ``PDF``."""
    return _KINDS.get(media_type, media_type)


@register.filter
def counted(number: int, noun: str) -> str:
    """``3|counted:"document"`` as ``3 documents``."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
