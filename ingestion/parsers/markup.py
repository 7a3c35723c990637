"""Formats that become HTML first: Markdown, web pages, RTF, ODT, EPUB, and e-mail bodies."""

from __future__ import annotations

import email
import email.message
import email.policy
import io
import re
from typing import Final

from markdown_it import MarkdownIt

from ingestion.elements import ElementKind
from ingestion.parsers import unstructured_engine as engine
from ingestion.parsers.blocks import Block, Extraction, clean
from ingestion.parsers.decoding import decode
from ingestion.parsers.html import blocks_from_html
from ingestion.parsers.plain import blocks_from_text

# CommonMark, because Python-Markdown (behind partition_md) flattens lists indented by two spaces
# and joins a list to the paragraph above it.
_MARKDOWN: Final = MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"])
_FRONT_MATTER: Final = re.compile(r"\A---[ \t]*\n(.*?\n)?(?:---|\.\.\.)[ \t]*(?:\n|\Z)", re.DOTALL)
_FRONT_TITLE: Final = re.compile(r"^title:[ \t]*(.+?)[ \t]*$", re.MULTILINE)
_KRAMDOWN_ATTRIBUTES: Final = re.compile(r"^[ \t]*\{:[^}\n]*\}[ \t]*$", re.MULTILINE)
# Static site generators put template tags where a link's address goes, with spaces in them.
_LIQUID_LINK: Final = re.compile(r"\]\([ \t]*\{[%{][^\n]{0,300}?[%}]\}[^)\s]{0,300}\)")
_LIQUID_TAG: Final = re.compile(r"\{%-?[ \t]*[^%{}\n]{0,300}%\}")
_MAIL_HEADERS: Final = ("From", "To", "Cc", "Date")


def parse_markdown(data: bytes) -> Extraction:
    """CommonMark with tables; YAML front matter gives the title and is not text."""
    text, encoding = decode(data)
    text = text.replace("\r\n", "\n").replace("\r", "\n").lstrip("\n")
    title = ""
    if match := _FRONT_MATTER.match(text):
        if found := _FRONT_TITLE.search(match[1] or ""):
            title = found[1].strip("\"'")
        text = text[match.end() :]
    text = _KRAMDOWN_ATTRIBUTES.sub("", _LIQUID_LINK.sub("](#)", text))
    _, blocks = blocks_from_html(_MARKDOWN.render(_LIQUID_TAG.sub("", text)))
    return Extraction(
        blocks, "markdown-it+unstructured", title=title, metadata={"encoding": encoding}
    )


def parse_html(data: bytes) -> Extraction:
    """A web page without scripts, styles, navigation and page footers."""
    text, encoding = decode(data)
    title, blocks = blocks_from_html(text)
    return Extraction(blocks, "unstructured", title=title, metadata={"encoding": encoding})


def parse_rtf(data: bytes) -> Extraction:
    return _through_pandoc(data, "rtf")


def parse_odt(data: bytes) -> Extraction:
    return _through_pandoc(data, "odt")


def parse_epub(data: bytes) -> Extraction:
    return _through_pandoc(data, "epub")


def _through_pandoc(data: bytes, source_format: str) -> Extraction:
    html = engine.convert_file_to_html_text_using_pandoc(source_format, file=io.BytesIO(data))
    _, blocks = blocks_from_html(html)
    return Extraction(blocks, "pandoc+unstructured")


def parse_email(data: bytes) -> Extraction:
    """Subject as title and heading, the people and the date, then the body; no attachments."""
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        data = decode(data)[0].encode()
    message = email.message_from_bytes(data, policy=email.policy.default)
    subject = _header(message, "Subject")
    blocks = [Block(ElementKind.HEADING, subject, level=1)] if subject else []
    blocks += [
        Block(ElementKind.PARAGRAPH, f"{name}: {value}")
        for name in _MAIL_HEADERS
        if (value := _header(message, name))
    ]
    body = message.get_body(preferencelist=("html", "plain"))
    body_blocks: list[Block] = []
    if body is not None:
        text = _content(body)
        if body.get_content_type() == "text/html":
            body_blocks = blocks_from_html(text)[1]
        else:
            body_blocks = blocks_from_text(text)
    names = [clean(part.get_filename() or "unnamed") for part in message.iter_attachments()]
    warnings = []
    if names:
        listed = ", ".join(names[:10])
        warnings.append(f"{len(names)} attachment(s) were not read: {listed}.")
    # Without body and subject this is not a message but text that happens to have the ending.
    if not body_blocks and not subject:
        blocks = []
    return Extraction(blocks + body_blocks, "email+unstructured", title=subject, warnings=warnings)


def _header(message: email.message.EmailMessage, name: str) -> str:
    try:
        return clean(str(message.get(name) or ""))
    except (ValueError, LookupError, AttributeError, IndexError, TypeError):
        # The header parser of the standard library still raises on some malformed addresses.
        return next((clean(str(value)) for key, value in message.raw_items() if key == name), "")


def _content(part: email.message.MIMEPart) -> str:
    payload = part.get_payload(decode=True)
    if not isinstance(payload, bytes):
        return str(payload or "")
    charset = part.get_content_charset()
    if charset:
        try:
            return payload.decode(charset)
        except (LookupError, UnicodeDecodeError):
            pass
    return decode(payload)[0]
