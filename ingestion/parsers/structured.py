"""JSON and XML as readable lines: names and values without braces, quotes and tags."""

from __future__ import annotations

import base64
import io
import json
import re
import zipfile
from collections.abc import Iterator
from typing import Any, Final

from lxml import etree

from ingestion.elements import ElementKind
from ingestion.parsers.blocks import Block, Extraction, clean
from ingestion.parsers.decoding import decode
from ingestion.parsers.plain import parse_verbatim
from ingestion.parsers.word import parse_docx

_INDENT: Final = "  "
_MAX_DEPTH: Final = 40
_MIN_TABLE_ROWS: Final = 2
_LINES_PER_BLOCK: Final = 40
_FLAT_PACKAGE: Final = "{http://schemas.microsoft.com/office/2006/xmlPackage}"
_XML_DECLARATION: Final = re.compile(r"\A\s*<\?xml[^>]{0,300}\?>")


def parse_json(data: bytes) -> Extraction:
    """``name: value`` lines; lists of flat objects become tables. What is not JSON stays as it is.

    Several values, one a line (JSON Lines), are a list.
    """
    text, encoding = decode(data)
    try:
        value = _json_value(text)
    except (ValueError, RecursionError):
        return parse_verbatim(data)
    return Extraction(list(_blocks_of(value)), "json", metadata={"encoding": encoding})


def parse_xml(data: bytes) -> Extraction:
    """``name: text`` lines, indented like the elements. What is not XML stays as it is.

    A Word document saved as one XML file is read as a Word document.
    """
    text, encoding = decode(data)
    parser = etree.XMLParser(
        resolve_entities=False,
        no_network=True,
        load_dtd=False,
        remove_comments=True,
        remove_pis=True,
    )
    try:
        root = etree.fromstring(_XML_DECLARATION.sub("", text).encode(), parser)
    except etree.XMLSyntaxError:
        return parse_verbatim(data)
    if root.tag == _FLAT_PACKAGE + "package":
        return parse_docx(_zipped(root))
    lines = list(_element_lines(root, 0))
    return Extraction(list(_code_blocks(lines)), "xml", metadata={"encoding": encoding})


def _json_value(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        lines = [line for line in text.splitlines() if line.strip()]
        if len(lines) < _MIN_TABLE_ROWS:
            raise
        return [json.loads(line) for line in lines]


def _blocks_of(value: Any) -> Iterator[Block]:
    if rows := _table(value):
        yield Block(ElementKind.TABLE, rows=rows)
    elif isinstance(value, dict):
        lines: list[str] = []
        for name, item in value.items():
            if rows := _table(item):
                yield from _code_blocks(lines)
                lines = []
                yield Block(ElementKind.HEADING, str(name), level=2)
                yield Block(ElementKind.TABLE, rows=rows)
            else:
                lines += _value_lines(str(name), item, 0)
        yield from _code_blocks(lines)
    elif isinstance(value, list):
        for item in value:
            yield from _blocks_of(item)
    else:
        yield from _code_blocks([_scalar(value)])


def _table(value: Any) -> tuple[tuple[str, ...], ...]:
    """A list of objects with simple values as rows under their names; else nothing."""
    if not isinstance(value, list) or len(value) < _MIN_TABLE_ROWS:
        return ()
    names: dict[str, None] = {}
    for item in value:
        if not isinstance(item, dict) or any(
            isinstance(part, dict | list) for part in item.values()
        ):
            return ()
        names.update(dict.fromkeys(map(str, item)))
    if not names:
        return ()
    rows = [tuple(_scalar(item.get(name)) for name in names) for item in value]
    return (tuple(names), *rows)


def _value_lines(name: str, value: Any, depth: int) -> Iterator[str]:
    if depth > _MAX_DEPTH:
        raise RecursionError("nested too deeply")
    indent = _INDENT * depth
    if isinstance(value, dict):
        yield f"{indent}{name}:"
        for key, item in value.items():
            yield from _value_lines(str(key), item, depth + 1)
    elif isinstance(value, list) and any(isinstance(item, dict | list) for item in value):
        yield f"{indent}{name}:"
        for number, item in enumerate(value, start=1):
            yield from _value_lines(str(number), item, depth + 1)
    elif isinstance(value, list):
        yield f"{indent}{name}: {', '.join(map(_scalar, value))}"
    else:
        yield f"{indent}{name}: {_scalar(value)}"


def _scalar(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value)


def _element_lines(node: Any, depth: int) -> Iterator[str]:
    if depth > _MAX_DEPTH:
        raise RecursionError("nested too deeply")
    name = etree.QName(node).localname
    attributes = [f"{etree.QName(key).localname}={value}" for key, value in node.attrib.items()]
    label = _INDENT * depth + " ".join([name, *attributes])
    children = [child for child in node if isinstance(child.tag, str)]
    if not children or _is_mixed(node):
        text = clean("".join(node.itertext()))
        yield f"{label}: {text}" if text else label
        return
    yield f"{label}:"
    for child in children:
        yield from _element_lines(child, depth + 1)


def _is_mixed(node: Any) -> bool:
    """Text between child elements: a sentence with marks in it, not a record."""
    return bool((node.text or "").strip()) or any((child.tail or "").strip() for child in node)


def _code_blocks(lines: list[str]) -> Iterator[Block]:
    """Pieces that begin where the indentation is least, so that records stay whole."""
    block: list[str] = []
    for line in lines:
        is_start = not line.startswith(_INDENT * 2)
        if block and is_start and len(block) >= _LINES_PER_BLOCK:
            yield Block(ElementKind.CODE, "\n".join(block))
            block = []
        block.append(line)
    if block:
        yield Block(ElementKind.CODE, "\n".join(block))


def _zipped(root: Any) -> bytes:
    """The parts of a flat Office document as the zip container that they usually come in."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for part in root.iter(_FLAT_PACKAGE + "part"):
            name = part.get(_FLAT_PACKAGE + "name", "").lstrip("/")
            content = part.find(_FLAT_PACKAGE + "xmlData")
            binary = part.findtext(_FLAT_PACKAGE + "binaryData")
            if name and content is not None and len(content):
                archive.writestr(name, etree.tostring(content[0]))
            elif name and binary:
                archive.writestr(name, base64.b64decode(binary))
    return buffer.getvalue()
