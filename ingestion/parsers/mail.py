"""E-mail: single messages and mboxes. Attachments are handed on as files of their own."""

from __future__ import annotations

import email
import email.message
import email.policy
import mimetypes
import re
from collections.abc import Iterator
from functools import partial
from typing import Final

from ingestion.attachments import Attachment
from ingestion.elements import ElementKind
from ingestion.parsers.blocks import Block, Extraction, attach, clean
from ingestion.parsers.decoding import decode
from ingestion.parsers.html import blocks_from_html
from ingestion.parsers.plain import blocks_from_text

_HEADERS: Final = ("From", "To", "Cc", "Date")
_MBOX_BORDER: Final = re.compile(rb"(?:\A|(?<=\n)\r?\n)(?=From [^\n]*\d{4})")
_QUOTED_FROM: Final = re.compile(rb"^>(>*From )", re.MULTILINE)
_MAX_NAME: Final = 80


def parse_email(data: bytes) -> Extraction:
    """Subject as title and heading, the people and the date, the body, the attachments' names."""
    message = _message(data)
    subject = header(message, "Subject")
    body = _body_blocks(message)
    attachments = list(_attachments(message))
    # Without body and subject this is not a message but text that happens to have the ending.
    if not body and not subject and not attachments:
        return Extraction([], "email")
    people = [(name, header(message, name)) for name in _HEADERS]
    return mail_extraction("email", subject, people, body, attachments)


def parse_mbox(data: bytes) -> Extraction:
    """A listing of the messages; each is an attachment ending in .eml."""
    attachments = []
    rows = [("Date", "From", "Subject")]
    for number, raw in enumerate(_split_mbox(data), start=1):
        message = _message(raw)
        subject = header(message, "Subject")
        rows.append((header(message, "Date"), header(message, "From"), subject))
        name = f"{number:05d} {file_stem(subject)}.eml"
        attachments.append(Attachment(name, partial(bytes, raw), len(raw)))
    if not attachments:
        return Extraction([], "mbox")
    blocks = [
        Block(ElementKind.PARAGRAPH, f"A mailbox of {len(attachments):,} messages."),
        Block(ElementKind.TABLE, rows=tuple(rows)),
    ]
    return Extraction(blocks, "mbox", attachments=attachments)


def mail_extraction(
    parser: str,
    subject: str,
    people: list[tuple[str, str]],
    body: list[Block],
    attachments: list[Attachment],
) -> Extraction:
    """The same layout for every kind of message."""
    blocks = [Block(ElementKind.HEADING, subject, level=1)] if subject else []
    blocks += [Block(ElementKind.PARAGRAPH, f"{name}: {value}") for name, value in people if value]
    return attach(Extraction(blocks + body, parser, title=subject), attachments)


def body_blocks(data: bytes) -> list[Block]:
    """The body of a message alone; a saved web page (.mht) is one."""
    return _body_blocks(_message(data))


def file_stem(subject: str) -> str:
    """What of a subject can be part of a file's name."""
    stem = " ".join(re.sub(r'[\\/:*?"<>|]+', " ", subject).split())
    return stem[:_MAX_NAME].strip(" .") or "message"


def header(message: email.message.EmailMessage, name: str) -> str:
    try:
        return clean(str(message.get(name) or ""))
    except (ValueError, LookupError, AttributeError, IndexError, TypeError):
        # The header parser of the standard library still raises on some malformed addresses.
        return next((clean(str(value)) for key, value in message.raw_items() if key == name), "")


def _message(data: bytes) -> email.message.EmailMessage:
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        data = decode(data)[0].encode()
    message = email.message_from_bytes(data, policy=email.policy.default)
    assert isinstance(message, email.message.EmailMessage)
    return message


def _body_blocks(message: email.message.EmailMessage) -> list[Block]:
    body = message.get_body(preferencelist=("html", "plain"))
    if body is None:
        return []
    text = _content(body)
    if body.get_content_type() == "text/html":
        return blocks_from_html(text)[1]
    return blocks_from_text(text)


def _attachments(message: email.message.EmailMessage) -> Iterator[Attachment]:
    """Parts that are not the body. Pictures that only the HTML body shows are left out."""
    body = message.get_body(preferencelist=("html", "plain"))
    for number, part in enumerate(_leaves(message), start=1):
        kind = part.get_content_type()
        if part is body or (kind.startswith("text/") and not _is_file(part)):
            continue
        if part.get("Content-ID") and kind.startswith("image/"):
            continue
        yield Attachment(_file_name(part, number), partial(_part_bytes, part))


def _leaves(part: email.message.Message) -> Iterator[email.message.EmailMessage]:
    """Parts in order, not looking into attached messages."""
    if part.get_content_maintype() == "multipart":
        for child in part.iter_parts() if hasattr(part, "iter_parts") else ():
            yield from _leaves(child)
    elif isinstance(part, email.message.EmailMessage | email.message.MIMEPart):
        yield part  # type: ignore[misc]


def _is_file(part: email.message.EmailMessage) -> bool:
    return part.get_content_disposition() == "attachment" or bool(_raw_file_name(part))


def _file_name(part: email.message.EmailMessage, number: int) -> str:
    if name := clean(_raw_file_name(part)):
        return name
    kind = part.get_content_type()
    if kind == "message/rfc822":
        inner = part.get_payload()
        first = inner[0] if isinstance(inner, list) and inner else None
        subject = header(first, "Subject") if isinstance(first, email.message.EmailMessage) else ""
        return f"{file_stem(subject)}.eml"
    return f"attachment {number}{mimetypes.guess_extension(kind) or ''}"


def _raw_file_name(part: email.message.EmailMessage) -> str:
    try:
        return part.get_filename() or ""
    except (ValueError, LookupError, AttributeError, IndexError, TypeError):
        return ""


def _part_bytes(part: email.message.EmailMessage) -> bytes:
    payload = part.get_payload(decode=True)
    if isinstance(payload, bytes):
        return payload
    inner = part.get_payload()
    if isinstance(inner, list) and inner and isinstance(inner[0], email.message.Message):
        return inner[0].as_bytes()
    return str(inner or "").encode("utf-8", "replace")


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


def _split_mbox(data: bytes) -> Iterator[bytes]:
    """Messages without their "From " lines, unquoted (mboxrd)."""
    for part in _MBOX_BORDER.split(data):
        if part.startswith(b"From "):
            _, _, raw = part.partition(b"\n")
            if raw.strip():
                yield _QUOTED_FROM.sub(rb"\1", raw)
