"""Markdown of a model to HTML that is safe to show. The only place that marks a string as safe.

A model's text is hostile input: documents can steer it. Its HTML is escaped, its images become
their alternative text, its links become text with the address in brackets, and only ``[n]`` of a
source that the reader may open becomes a link, to an address made here. nh3 has the last word.
``static/js/markdown.js`` builds the same structure while an answer streams.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

import nh3
from django.utils.safestring import SafeString, mark_safe
from markdown_it import MarkdownIt
from markdown_it.token import Token

CITATION = re.compile(r"\[(\d{1,3}(?:[ ]?,[ ]?\d{1,3}){0,9})\]")

# Reference definitions would let a text redefine what [1] means.
_PARSER = MarkdownIt("commonmark", {"html": False, "linkify": False, "maxNesting": 20})
_PARSER.enable(["table", "strikethrough"]).disable(["reference", "html_block", "html_inline"])

# Stands behind a sentence that no source was found for; in no text that people write.
UNSUPPORTED = "\ue000"
_UNSUPPORTED_WORDS = "No source found for this sentence"

_TAGS = {
    "p", "br", "hr", "em", "strong", "s", "code", "pre", "blockquote", "ul", "ol", "li",
    "h1", "h2", "h3", "h4", "h5", "h6", "table", "thead", "tbody", "tr", "th", "td", "a", "div",
    "span",
}  # fmt: skip
_ATTRIBUTES = {"a": {"href", "data-number"}, "ol": {"start"}, "span": {"title"}}
_CLASSES = {"a": {"cite"}, "div": {"table-wrap"}, "span": {"no-source"}}


def render_answer(
    text: str, links: Mapping[int, Sequence[str]], *, unsupported: Sequence[int] = ()
) -> SafeString:
    """Safe HTML of an answer; ``links`` maps source numbers to addresses on this site.

    ``unsupported`` are offsets in ``text`` where sentences without a source end.

    The first marker of a number gets its first address, the next one the next, and so on with the
    last. A number without an address stays as it was written.
    """
    tokens = _PARSER.parse(_marked(text, unsupported))
    markers = _Markers(links)
    for token in tokens:
        if token.type == "inline":
            token.children = list(_harmless(token.children or [], markers))
    html = _PARSER.renderer.render(_wrapped(tokens), _PARSER.options, {})
    clean = nh3.clean(
        html,
        tags=_TAGS,
        attributes=_ATTRIBUTES,
        allowed_classes=_CLASSES,
        url_schemes=set(),
        link_rel=None,
    )
    # Those that fell into code.
    return mark_safe(clean.replace(UNSUPPORTED, ""))  # noqa: S308 - sanitised in the statement before


def _marked(text: str, ends: Sequence[int]) -> str:
    text = text.replace(UNSUPPORTED, " ")
    for end in sorted(ends, reverse=True):
        text = f"{text[:end]}{UNSUPPORTED}{text[end:]}"
    return text


def _with_marks(content: str) -> Iterator[Token]:
    first, *rest = content.split(UNSUPPORTED)
    yield _text(first)
    for part in rest:
        attributes: dict[str, str | int | float] = {
            "class": "no-source",
            "title": _UNSUPPORTED_WORDS,
        }
        yield Token("mark_open", "span", 1, attrs=attributes)
        yield _text("no source found")
        yield Token("mark_close", "span", -1)
        yield _text(part)


class _Markers:
    """Turns ``[n]`` and ``[n, m]`` of known numbers into links, in the order of the text."""

    def __init__(self, links: Mapping[int, Sequence[str]]) -> None:
        self._links = links
        self._seen: Counter[int] = Counter()

    def cited(self, content: str) -> Iterator[Token]:
        at = 0
        for match in CITATION.finditer(content):
            numbers = [int(part) for part in match[1].split(",")]
            if not all(self._links.get(number) for number in numbers):
                continue
            yield from _with_marks(content[at : match.start()])
            for number in numbers:
                yield from self._link(number)
            at = match.end()
        yield from _with_marks(content[at:])

    def _link(self, number: int) -> Iterator[Token]:
        urls = self._links[number]
        url = urls[min(self._seen[number], len(urls) - 1)]
        self._seen[number] += 1
        attributes: dict[str, str | int | float] = {
            "href": url,
            "class": "cite",
            "data-number": str(number),
        }
        yield Token("link_open", "a", 1, attrs=attributes)
        yield _text(str(number))
        yield Token("link_close", "a", -1)


def _harmless(children: list[Token], markers: _Markers) -> Iterator[Token]:
    """Inline tokens without images and foreign links, with citations."""
    targets: list[tuple[str, list[str]]] = []
    for token in children:
        if token.type == "image":
            alternative = _plain(token.children or []) or "image"
            if targets:
                targets[-1][1].append(alternative)
            yield _text(alternative)
        elif token.type == "link_open":
            targets.append((str(token.attrGet("href") or ""), []))
        elif token.type == "link_close":
            href, label = targets.pop()
            if href and href.removeprefix("mailto:") != "".join(label):
                yield _text(f" ({href})")
        elif token.type == "text":
            if targets:
                targets[-1][1].append(token.content)
                yield token
            else:
                yield from markers.cited(token.content)
        else:
            if targets and token.content:
                targets[-1][1].append(token.content)
            yield token


def _wrapped(tokens: list[Token]) -> list[Token]:
    """Tables in a box that scrolls sideways, so that a wide one does not widen the page."""
    wrapped: list[Token] = []
    for token in tokens:
        if token.type == "table_open":
            wrapped.append(Token("box_open", "div", 1, attrs={"class": "table-wrap"}, block=True))
        wrapped.append(token)
        if token.type == "table_close":
            wrapped.append(Token("box_close", "div", -1, block=True))
    return wrapped


def _plain(children: list[Token]) -> str:
    return "".join(
        _plain(child.children or []) if child.type == "image" else child.content
        for child in children
    )


def _text(content: str) -> Token:
    return Token("text", "", 0, content=content)
