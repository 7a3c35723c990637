"""HTML (and what other formats convert to it) to Blocks, through unstructured's partition_html.

partition_html drops or flattens things that matter here, so the tree is prepared first: figures,
details and forms become plain containers, list items are numbered so that their depth survives,
cells are flattened to one text, tables used for layout are unwrapped, images give their
alternative text.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import lxml.html
from lxml import etree

from ingestion.elements import ElementKind
from ingestion.parsers import unstructured_engine as engine
from ingestion.parsers.blocks import Block, clean

_DROPPED: Final = frozenset(
    [
        "script",
        "style",
        "noscript",
        "template",
        "nav",
        "svg",
        "canvas",
        "iframe",
        "object",
        "embed",
        "applet",
        "button",
        "select",
        "textarea",
        "input",
        "audio",
        "video",
        "map",
        "head",
        "del",
        "dialog",
        "datalist",
        "noframes",
    ]
)
_CONTAINERS: Final = frozenset(["details", "figure", "form", "fieldset", "menu", "dir", "picture"])
_PARAGRAPHS: Final = frozenset({"summary", "figcaption", "legend"})
_INLINE: Final = frozenset({"label", "font", "nobr", "ins", "acronym", "output"})
_BLOCKS: Final = frozenset(
    [
        "address",
        "article",
        "aside",
        "blockquote",
        "body",
        "center",
        "div",
        "dl",
        "dt",
        "dd",
        "h1",
        "h2",
        "h3",
        "h4",
        "h5",
        "h6",
        "hr",
        "li",
        "main",
        "ol",
        "p",
        "pre",
        "section",
        "table",
        "tr",
        "td",
        "th",
        "ul",
        "br",
        "caption",
        "tbody",
        "thead",
        "tfoot",
    ]
)
_LAYOUT_SIGNS: Final = frozenset(
    ["table", "h1", "h2", "h3", "h4", "h5", "h6", "ul", "ol", "pre", "blockquote"]
)
_NUMBER: Final = "data-page-number"  # partition_html hands it through as metadata.page_number
_MAX_SPAN: Final = 50


def blocks_from_html(html: str) -> tuple[str, list[Block]]:
    """Title of the page ("" when it has none) and its Blocks in order."""
    root = _parse(html)
    if root is None:
        return "", []
    title = clean(root.findtext(".//head/title") or "")
    depths = _prepare(root)
    elements = engine.partition_html(
        text=etree.tostring(root, encoding="unicode", method="html"), languages=engine.NO_LANGUAGES
    )
    return title, list(_blocks(elements, depths))


def rows_of_table(html: str) -> tuple[tuple[str, ...], ...]:
    """Cells of the sanitised table that unstructured puts in ``metadata.text_as_html``."""
    root = _parse(html)
    if root is None:
        return ()
    return tuple(
        tuple(cell.text_content() for cell in row.iterchildren("td", "th"))
        for row in root.iter("tr", "caption")
        if row.tag == "tr"
    )


def _parse(html: str) -> Any:
    parser = lxml.html.HTMLParser(
        encoding="utf-8", remove_comments=True, remove_pis=True, huge_tree=False
    )
    data = html.encode("utf-8", "replace")
    try:
        return lxml.html.document_fromstring(data, parser=parser) if data.strip() else None
    except etree.ParserError:  # nothing but comments
        return None


def _prepare(root: Any) -> list[int]:
    """Change the tree in place; returns the depth of each numbered list item, from 0."""
    depths: list[int] = []
    for node in list(root.iter(etree.Element)):
        if node.getparent() is None or not isinstance(node.tag, str):
            continue
        tag = node.tag
        node.attrib.pop(_NUMBER, None)
        if tag in _DROPPED or _is_hidden(node) or _is_page_footer(node):
            node.drop_tree()
        elif tag == "img":
            _replace_image(node)
        elif tag in _CONTAINERS:
            node.tag = "div"
        elif tag in _PARAGRAPHS:
            node.tag = "p"
        elif tag in _INLINE:
            node.tag = "span"
    for table in list(root.iter("table")):
        if _is_layout(table):
            _unwrap(table)
    for table in root.iter("table"):
        if next(table.iterancestors("table"), None) is None:
            _flatten_cells(table)
    for item in root.iter("li"):
        ancestors = list(item.iterancestors("ul", "ol"))
        depths.append(max(0, len(ancestors) - 1))
        item.set(_NUMBER, str(len(depths)))
        if ancestors and ancestors[0].tag == "ol" and item.getparent() is ancestors[0]:
            _number_item(item, ancestors[0])
    return depths


def _is_hidden(node: Any) -> bool:
    if "hidden" in node.attrib or node.get("role") in ("navigation", "search"):
        return True
    return "display:none" in (node.get("style") or "").replace(" ", "").lower()


def _is_page_footer(node: Any) -> bool:
    return node.tag == "footer" and not any(
        True for _ in node.iterancestors("main", "article", "section", "blockquote")
    )


def _replace_image(node: Any) -> None:
    alt = clean(node.get("alt") or "")
    tail = node.tail
    node.clear()
    node.tag = "span"
    node.text, node.tail = alt, tail


def _number_item(item: Any, parent: Any) -> None:
    """Write the number a browser would show in front of an ordered list's item."""
    start = parent.get("start", "1")
    first = int(start) if start.lstrip("-").isdigit() and len(start) < 8 else 1
    index = first + sum(1 for _ in item.itersiblings("li", preceding=True))
    target = item
    # A loose list wraps its text in a paragraph; the number belongs in front of that text.
    while not (target.text or "").strip() and len(target) and target[0].tag in ("p", "div"):
        target = target[0]
    target.text = f"{index}. {(target.text or '').lstrip()}"


def _is_layout(table: Any) -> bool:
    if table.get("role") in ("presentation", "none"):
        return True
    if next(table.iter("th"), None) is not None:
        return False
    return any(node.tag in _LAYOUT_SIGNS for node in table.iterdescendants())


def _unwrap(table: Any) -> None:
    for node in table.iter("table", "thead", "tbody", "tfoot", "tr", "td", "caption", "colgroup"):
        if next(node.iterancestors("table"), None) in (table, None):
            node.tag = "div"


def _flatten_cells(table: Any) -> None:
    for node in list(table.iter("td", "th", "caption")):
        if node.getparent() is None:
            continue
        text, tail, span = _text_of(node), node.tail, node.get("colspan", "1")
        tag = node.tag
        node.clear()
        node.text, node.tail = text, tail
        if tag != "caption" and span.isdigit():
            for _ in range(min(int(span), _MAX_SPAN) - 1):
                node.addnext(node.makeelement(tag))


def _text_of(node: Any) -> str:
    """Text with a space where a browser would break the line, and none elsewhere."""
    parts: list[str] = []
    for event, child in etree.iterwalk(node, events=("start", "end")):
        if child.tag in _BLOCKS:
            parts.append(" ")
        if event == "start":
            parts.append(child.text or "")
        elif child is not node:
            parts.append(child.tail or "")
    return clean("".join(parts))


def _blocks(elements: list[Any], depths: list[int]) -> Iterator[Block]:
    begun: set[int] = set()
    for element in elements:
        metadata = element.metadata
        number = metadata.page_number or 0
        category = element.category
        if category == "Title":
            yield Block(ElementKind.HEADING, element.text, level=(metadata.category_depth or 0) + 1)
        elif category == "Table":
            yield Block(ElementKind.TABLE, rows=rows_of_table(metadata.text_as_html or ""))
        elif category == "CodeSnippet":
            yield Block(ElementKind.CODE, element.text)
        elif 0 < number <= len(depths) and number not in begun:
            begun.add(number)
            yield Block(ElementKind.LIST_ITEM, element.text, level=depths[number - 1])
        elif category == "ListItem" and not number:
            yield Block(ElementKind.LIST_ITEM, element.text)
        else:
            yield Block(ElementKind.PARAGRAPH, element.text)
