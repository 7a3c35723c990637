"""HTML, and what other formats convert to it, to Blocks: one walk over the tree of lxml.

Not through unstructured's partition_html, which takes four times as long, drops captions and
flattens nested lists: measured in benchmarks/parsing.py.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final

import lxml.html
from lxml import etree

from ingestion.elements import ElementKind
from ingestion.parsers.blocks import Block, clean

_DROPPED: Final = (
    *("script", "style", "noscript", "template", "nav", "svg", "canvas", "iframe", "object"),
    *("embed", "applet", "button", "select", "textarea", "input", "audio", "video", "map"),
    *("head", "del", "dialog", "datalist", "noframes"),
)
_BLOCKS: Final = frozenset(
    [
        *("address", "article", "aside", "blockquote", "body", "br", "caption", "center", "dd"),
        *("details", "dir", "div", "dl", "dt", "fieldset", "figcaption", "figure", "footer"),
        *("form", "h1", "h2", "h3", "h4", "h5", "h6", "header", "hgroup", "hr", "html", "legend"),
        *("li", "main", "menu", "ol", "p", "picture", "pre", "search", "section", "summary"),
        *("table", "tbody", "td", "tfoot", "th", "thead", "tr", "ul"),
    ]
)
_HEADINGS: Final = {f"h{level}": level for level in range(1, 7)}
_LISTS: Final = frozenset({"ul", "ol", "menu", "dir"})
_LAYOUT_SIGNS: Final = ("table", *_HEADINGS, "ul", "ol", "pre", "blockquote")
_ROW_GROUPS: Final = frozenset({"thead", "tbody", "tfoot"})
_MAX_SPAN: Final = 50
_LINE_BREAK: Final = "\v"  # white space to ``clean``
_PARAGRAPH_BREAK: Final = re.compile(r"\v\s*\v\s*")
_NO_WORDS: Final = " \t\n\r\v\xa0.,;:|·•-–—*_"
_HIDING: Final = etree.XPath("//*[@hidden or @role or @style] | //footer")


def blocks_from_html(html: str) -> tuple[str, list[Block]]:
    """Title of the page ("" when it has none) and its Blocks in order."""
    root = _parse(html)
    if root is None:
        return "", []
    title = clean(root.findtext(".//head/title") or "")
    _prune(root)
    return title, list(_Walk().run(root))


def rows_of_table(html: str) -> tuple[tuple[str, ...], ...]:
    """Cells of the first table in ``html``."""
    root = _parse(html)
    table = None if root is None else next(root.iter("table"), None)
    return () if table is None else tuple(_rows(table))


def _parse(html: str) -> Any:
    parser = lxml.html.HTMLParser(
        encoding="utf-8", remove_comments=True, remove_pis=True, huge_tree=False
    )
    data = html.encode("utf-8", "replace")
    try:
        return lxml.html.document_fromstring(data, parser=parser) if data.strip() else None
    except etree.ParserError:  # nothing but comments
        return None


def _prune(root: Any) -> None:
    """Takes out, in place, what a reader does not see; images become their alternative text."""
    for node in [*root.iter(*_DROPPED), *filter(_is_unseen, _HIDING(root))]:
        if node.getparent() is not None:
            node.drop_tree()
    for node in list(root.iter("img")):
        alt, tail = clean(node.get("alt") or ""), node.tail
        node.clear()
        node.tag, node.text, node.tail = "span", alt, tail


def _is_unseen(node: Any) -> bool:
    if "hidden" in node.attrib or node.get("role") in ("navigation", "search"):
        return True
    if "display:none" in (node.get("style") or "").replace(" ", "").lower():
        return True
    # The footer of the page, not that of an article.
    return node.tag == "footer" and not any(
        True for _ in node.iterancestors("main", "article", "section", "blockquote")
    )


@dataclass(slots=True)
class _List:
    node: Any
    is_ordered: bool
    number: int


@dataclass(slots=True)
class _Item:
    """A list item; its first text is the LIST_ITEM, what follows are paragraphs within it."""

    node: Any
    level: int
    prefix: str
    has_text: bool = False


@dataclass(slots=True)
class _Walk:
    """Gathers inline text until a block begins or ends, and hands it over as what it is."""

    parts: list[str] = field(default_factory=list)
    heading: int = 0
    lists: list[_List] = field(default_factory=list)
    items: list[_Item] = field(default_factory=list)

    def run(self, root: Any) -> Iterator[Block]:
        steps = etree.iterwalk(root, events=("start", "end"))
        for event, node in steps:
            tag = node.tag
            is_block = tag in _BLOCKS and tag != "br"
            if event == "end":
                if is_block:
                    yield from self._flush()
                    self._leave(node, tag)
                if node.tail:
                    self.parts.append(node.tail)
                continue
            if is_block:
                yield from self._flush()
                if tag == "pre":
                    yield Block(ElementKind.CODE, _code(node))
                    steps.skip_subtree()
                    continue
                if tag == "table" and not _is_layout(node):
                    yield from _table(node)
                    steps.skip_subtree()
                    continue
                self._enter(node, tag)
            elif tag == "br":
                self.parts.append(_LINE_BREAK)
            if node.text:
                self.parts.append(node.text)
        yield from self._flush()

    def _enter(self, node: Any, tag: str) -> None:
        if tag in _HEADINGS:
            self.heading = _HEADINGS[tag]
        elif tag in _LISTS:
            start = _number(node.get("start"), 1)
            self.lists.append(_List(node, tag == "ol", start))
        elif tag == "li":
            self.items.append(_Item(node, max(0, len(self.lists) - 1), self._prefix(node)))

    def _leave(self, node: Any, tag: str) -> None:
        if tag in _HEADINGS:
            self.heading = 0
        elif self.lists and self.lists[-1].node is node:
            self.lists.pop()
        elif self.items and self.items[-1].node is node:
            self.items.pop()

    def _prefix(self, item: Any) -> str:
        """The number that a browser shows in front of an ordered list's item."""
        if not self.lists or not self.lists[-1].is_ordered:
            return ""
        of_list = self.lists[-1]
        number = _number(item.get("value"), of_list.number)
        of_list.number = number + 1
        return f"{number}. "

    def _flush(self) -> Iterator[Block]:
        if not self.parts:
            return
        gathered = "".join(self.parts)
        self.parts.clear()
        if self.heading:
            yield Block(ElementKind.HEADING, gathered, level=self.heading)
            return
        for text in _PARAGRAPH_BREAK.split(gathered):
            item = self.items[-1] if self.items else None
            if not text.strip(_NO_WORDS):
                continue
            if item is not None and not item.has_text:
                item.has_text = True
                yield Block(ElementKind.LIST_ITEM, item.prefix + text.lstrip(), level=item.level)
            else:
                yield Block(ElementKind.PARAGRAPH, text)


def _number(text: str | None, otherwise: int) -> int:
    text = (text or "").strip()
    return int(text) if text.lstrip("-").isdecimal() and len(text) < 8 else otherwise


def _code(node: Any) -> str:
    for line_break in list(node.iter("br")):
        line_break.text = "\n"
    return str(node.text_content())


def _is_layout(table: Any) -> bool:
    """A table that arranges a page rather than data: it is read as the blocks in it."""
    if table.get("role") in ("presentation", "none"):
        return True
    if next(table.iter("th"), None) is not None:
        return False
    if all(len(row) < 2 for row in _row_nodes(table)):
        return True
    return any(node is not table for node in table.iter(*_LAYOUT_SIGNS))


def _table(table: Any) -> Iterator[Block]:
    caption = table.find("caption")
    if caption is not None and (text := _text_of(caption)):
        yield Block(ElementKind.PARAGRAPH, text)
    yield Block(ElementKind.TABLE, rows=tuple(_rows(table)))


def _rows(table: Any) -> Iterator[tuple[str, ...]]:
    """Cells in their columns: what spans rows is repeated in each, what spans columns is not."""
    spanning: dict[int, tuple[int, str]] = {}  # column: rows still to come, text
    for row in _row_nodes(table):
        cells: list[str] = []
        for cell in (child for child in row if child.tag in ("td", "th")):
            _fill_spans(cells, spanning)
            text = _text_of(cell)
            height = min(_number(cell.get("rowspan"), 1), _MAX_SPAN)
            width = min(max(1, _number(cell.get("colspan"), 1)), _MAX_SPAN)
            for part in (text, *[""] * (width - 1)):
                if height > 1:
                    spanning[len(cells)] = height - 1, part
                cells.append(part)
        _fill_spans(cells, spanning)
        yield tuple(cells)


def _row_nodes(table: Any) -> Iterator[Any]:
    """The table's own rows, not those of a table in one of its cells."""
    for child in table:
        if child.tag == "tr":
            yield child
        elif child.tag in _ROW_GROUPS:
            yield from child.iterchildren("tr")


def _fill_spans(cells: list[str], spanning: dict[int, tuple[int, str]]) -> None:
    while len(cells) in spanning:
        column = len(cells)
        left, text = spanning.pop(column)
        if left > 1:
            spanning[column] = left - 1, text
        cells.append(text)


def _text_of(node: Any) -> str:
    """Text with a space where a browser would break the line, and none elsewhere."""
    if not len(node):
        return clean(node.text or "")
    parts: list[str] = []
    for event, child in etree.iterwalk(node, events=("start", "end")):
        if child.tag in _BLOCKS:
            parts.append(" ")
        if event == "start":
            parts.append(child.text or "")
        elif child is not node:
            parts.append(child.tail or "")
    return clean("".join(parts))
