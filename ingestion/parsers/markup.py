"""Markdown and web pages."""

from __future__ import annotations

import re
from typing import Final

import pyromark

from ingestion.parsers.blocks import Extraction
from ingestion.parsers.decoding import decode
from ingestion.parsers.html import blocks_from_html

# CommonMark by pulldown-cmark, which is linear in the length of the text and takes a hundredth of
# the time of markdown-it-py. Not Python-Markdown (behind partition_md), which flattens lists
# indented by two spaces and joins a list to the paragraph above it.
_MARKDOWN: Final = pyromark.Options.ENABLE_TABLES | pyromark.Options.ENABLE_STRIKETHROUGH
_FRONT_MATTER: Final = re.compile(r"\A---[ \t]*\n(.*?\n)?(?:---|\.\.\.)[ \t]*(?:\n|\Z)", re.DOTALL)
_FRONT_TITLE: Final = re.compile(r"^title:[ \t]*(.+?)[ \t]*$", re.MULTILINE)
_KRAMDOWN_ATTRIBUTES: Final = re.compile(r"^[ \t]*\{:[^}\n]*\}[ \t]*$", re.MULTILINE)
# Static site generators put template tags where a link's address goes, with spaces in them.
_LIQUID_LINK: Final = re.compile(r"\]\([ \t]*\{[%{][^\n]{0,300}?[%}]\}[^)\s]{0,300}\)")
_LIQUID_TAG: Final = re.compile(r"\{%-?[ \t]*[^%{}\n]{0,300}%\}")


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
    html = pyromark.html(_LIQUID_TAG.sub("", text), options=_MARKDOWN)
    _, blocks = blocks_from_html(html)
    return Extraction(blocks, "pyromark+lxml", title=title, metadata={"encoding": encoding})


def parse_html(data: bytes) -> Extraction:
    """A web page without scripts, styles, navigation and page footers."""
    text, encoding = decode(data)
    title, blocks = blocks_from_html(text)
    return Extraction(blocks, "lxml", title=title, metadata={"encoding": encoding})
