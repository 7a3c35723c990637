"""What a model may link to: addresses that stand in its passages, word for word, and nothing else.

A document can steer the model, and a link or a picture with the reader's words in its address
would carry them away. The pages render no link but citations; other clients of the API render
Markdown, so the text itself must be harmless before it leaves.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final

REMOVED: Final = "(link removed)"
# Longer is no address; what is held back must end.
MAX_ADDRESS_CHARACTERS: Final = 2_000

_SCHEMES: Final = (
    *("http", "https", "ws", "wss", "ftp", "ftps", "file", "data", "javascript", "vbscript"),
    *("blob", "mailto", "tel", "sms", "intent"),
)
_DOMAIN: Final = r"(?:[a-z0-9-]{1,63}\.){1,5}[a-z]{2,24}(?::\d{1,5})?"
_START: Final = re.compile(
    rf"(?<![a-z0-9])(?:(?:{'|'.join(_SCHEMES)})[:：](?=\S)|[a-z][a-z0-9+.-]{{1,20}}://)"
    rf"|(?<![\w.])www\.(?=\w)|(?<![\w@./:-]){_DOMAIN}/(?=\S)",
    re.IGNORECASE,
)
_END: Final = re.compile(r"[\s<>\"'`|\\^{}）」』]|\]\(")
_TRAILING: Final = ".,;:!?)*_~]'\"。，"
_DESTINATION: Final = re.compile(r"\]\(\s*")
_TAG: Final = re.compile(r"<(?=\s{0,2}/?\s{0,2}[a-z!])", re.IGNORECASE)
# A definition gives "[text][id]" and "![text][id]" an address on another line.
_DEFINITION: Final = re.compile(r"^([ ]{0,3}\[[^\]\n]{1,99}\]):", re.MULTILINE)
# Text without any of these is harmless, unless its end is the beginning of a scheme.
_SUSPECT: Final = re.compile(r"[:：!\[\]()<\\/]|\.(?!\s)")
_LONGEST_SCHEME: Final = max(map(len, _SCHEMES))
_BEGINNINGS: Final = frozenset(
    name[:n] for name in (*_SCHEMES, "www") for n in range(1, _LONGEST_SCHEME + 1)
)
_BEGINNING: Final = "|".join(sorted(_BEGINNINGS))
_LAST_WORD: Final = re.compile(r"(?<![a-z0-9])[a-z0-9]+\Z", re.IGNORECASE)
# Half of what could become an address, a picture, a tag or a definition with the next delta.
_OPEN: Final = re.compile(
    rf"(?:{_START.pattern})[^\s<>\"`]{{0,{MAX_ADDRESS_CHARACTERS}}}\Z"
    rf"|(?<![a-z0-9+.-])[a-z][a-z0-9+.-]{{0,20}}[:：]/{{0,2}}\Z"
    rf"|(?<![a-z0-9])(?:{_BEGINNING})\Z"
    r"|(?<![\w@./:-])(?:[a-z0-9-]{1,63}\.){1,6}[a-z0-9-]{0,24}(?::\d{0,5})?/?\Z"
    rf"|\](?:\([^)\n]{{0,{MAX_ADDRESS_CHARACTERS}}})?\Z"
    r"|!\Z|<[\s/]{0,5}\Z|(?:\A|\n)[ ]{0,3}\[[^\]\n]{0,99}\Z",
    re.IGNORECASE,
)
# The names in code such as ``handlers[0](event)``, and places within the answer.
_HARMLESS: Final = re.compile(r"[\w#.-]*")


def addresses_of(texts: Iterable[str]) -> frozenset[str]:
    """The addresses that stand in ``texts``, also as the destination of a link."""
    found: set[str] = set()
    for text in texts:
        found |= {text[match.start() : _end_of(text, match)] for match in _START.finditer(text)}
        found |= {given for *_, given in _links(text)}
    return frozenset(found)


def _links(text: str) -> Iterator[tuple[int, int, str]]:
    """Where ``](address)`` starts and ends, and the address."""
    for match in _DESTINATION.finditer(text):
        limit = min(len(text), match.end() + MAX_ADDRESS_CHARACTERS)
        end = next((i for i in range(match.end(), limit) if text[i] in ")\n"), limit)
        given = text[match.end() : end].strip().strip("<>")
        yield match.start(), end + text.startswith(")", end), given


def _end_of(text: str, begun: re.Match[str]) -> int:
    start = begun.start()
    limit = min(len(text), start + MAX_ADDRESS_CHARACTERS)
    end = _END.search(text, begun.end(), limit)
    stop = end.start() if end else limit
    while stop > begun.end() and text[stop - 1] in _TRAILING:
        # A bracket that was opened within belongs to the address.
        if text[stop - 1] == ")" and text.count("(", start, stop) >= text.count(")", start, stop):
            break
        stop -= 1
    return stop


def _begins_scheme(text: str) -> bool:
    last = _LAST_WORD.search(text, max(0, len(text) - _LONGEST_SCHEME))
    return last is not None and last[0].casefold() in _BEGINNINGS


@dataclass(slots=True)
class LinkGuard:
    """Lets text through in which every address is one of ``known``; pictures become text.

    An address that goes on after a known one (a query with other content) ends where the known one
    does. What may be half an address is held back until it is whole.
    """

    known: frozenset[str]
    removed: int = 0
    _held: str = ""
    _is_within_line: bool = False

    def feed(self, text: str) -> str:
        if not self._held and not _SUSPECT.search(text) and not _begins_scheme(text):
            if text:
                self._is_within_line = not text.endswith("\n")
            return text
        buffer = self._held + text
        at = len(buffer)
        while opened := _OPEN.search(buffer[:at]):
            at = opened.start()
        self._held = buffer[at:]
        return self._clean(buffer[:at])

    def finish(self) -> str:
        rest, self._held = self._held, ""
        return self._clean(rest)

    def _clean(self, text: str) -> str:
        if not text:
            return ""
        within, self._is_within_line = self._is_within_line, not text.endswith("\n")
        text = _TAG.sub("‹", text.replace("![", "! ["))
        # The first line may go on from before, and a definition begins a line.
        first = text.find("\n") + 1 if within else 0
        if not within or first:
            text = text[:first] + _DEFINITION.sub(r"\1", text[first:])
        return self._addresses(self._destinations(text))

    def _destinations(self, text: str) -> str:
        """``[text](address)`` with an address that is none of ours becomes ``[text] address``."""
        out, at = [], 0
        for start, end, given in _links(text):
            if start < at or given in self.known or _HARMLESS.fullmatch(given):
                continue
            self.removed += 1
            out += [text[at:start], "] ", self._allowed(given)]
            at = end
        return "".join([*out, text[at:]])

    def _addresses(self, text: str) -> str:
        out, at = [], 0
        for match in _START.finditer(text):
            if match.start() < at:
                continue
            end = _end_of(text, match)
            if (found := text[match.start() : end]) in self.known:
                continue
            self.removed += 1
            out += [text[at : match.start()], self._allowed(found)]
            at = end
        return "".join([*out, text[at:]])

    def _allowed(self, given: str) -> str:
        """The longest known address that ``given`` begins with, at a border of its parts."""
        begun = (
            each
            for each in self.known
            if given.startswith(each)
            and (each[-1] in "/?#=&" or given[len(each) : len(each) + 1] in {"?", "#", "&"})
        )
        return max(begun, key=len, default=REMOVED)
