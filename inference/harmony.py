"""Takes leaked harmony markup out of an answer, across deltas, in linear time.

vLLM turns gpt-oss' channels into fields. When the model breaks its own format the raw text
arrives as content (vLLM answers 200), and with it reasoning that must never be shown. Two leaks
are known: special tokens (``<|channel|>analysis<|message|>…``), and their remains after the
tokens were dropped by a detokeniser (``analysisWe need …assistantfinalThe answer``).
"""

from __future__ import annotations

import re
from enum import Enum, auto
from typing import Final

_TOKEN: Final = re.compile(r"<\|[a-z_]{1,20}\|>")
_PARTIAL_TOKEN: Final = re.compile(r"<(?:\|(?:[a-z_]{1,20}\|?)?)?\Z")
_WORDS: Final = ("assistantfinal", "assistantcommentary", "assistantanalysis")
_MARKER: Final = re.compile("|".join((_TOKEN.pattern, *_WORDS)))
_ALL_BEGIN: Final = "assistant"
_LONGEST_WORD: Final = max(map(len, _WORDS))
_PARTIAL_WORD: Final = re.compile(
    r"a(?:" + "|".join(sorted({word[1:n] for word in _WORDS for n in range(1, len(word))})) + r")\Z"
)
# After these comes what the reader may see; any other token leaves reasoning hidden.
_ENDS: Final = frozenset(
    {"<|end|>", "<|return|>", "<|call|>", "assistantfinal", "assistantcommentary"}
)
# A bare "analysis" opens reasoning only when the next letter starts a sentence without a space.
_LEADING: Final = "analysis"
_HEADER_LIMIT: Final = 80


class _Mode(Enum):
    START = auto()  # nothing seen: a bare "analysis" may open reasoning
    VISIBLE = auto()
    HEADER = auto()  # between <|start|> or <|channel|> and <|message|>
    HIDDEN = auto()  # reasoning


class HarmonyFilter:
    """Feed content deltas, get what may be shown. ``stripped`` counts the markers taken out."""

    def __init__(self) -> None:
        self._mode = _Mode.START
        self._held = ""
        self._header = ""
        self.stripped = 0

    def feed(self, delta: str) -> str:
        text = self._held + delta
        self._held = ""
        # Nearly all text: nothing in it is a marker, and its end begins none.
        if (
            self._mode is _Mode.VISIBLE
            and "<" not in text
            and _ALL_BEGIN not in text
            and not _PARTIAL_WORD.search(text, max(0, len(text) - _LONGEST_WORD + 1))
        ):
            return text
        shown: list[str] = []
        at = 0
        if self._mode is _Mode.START:
            at = self._open(text)
            if self._mode is _Mode.START:
                self._held = text
                return ""
        for marker in _MARKER.finditer(text, at):
            self._pass_text(text[at : marker.start()], shown)
            self._pass_marker(marker.group())
            at = marker.end()
        keep = _undecided(text, at)
        self._pass_text(text[at:keep], shown)
        self._held = text[keep:]
        return "".join(shown)

    def close(self) -> str:
        """What was held back for a marker that never came."""
        held, self._held = self._held, ""
        shown: list[str] = []
        if self._mode is _Mode.START:
            self._mode = _Mode.VISIBLE
        self._pass_text(held, shown)
        if self._mode is _Mode.HEADER:
            self._leave_header(shown)
        return "".join(shown)

    def _open(self, text: str) -> int:
        """Leave START when the first characters decide; returns where the content begins."""
        lead = text.lstrip()
        if len(lead) <= len(_LEADING) and _LEADING.startswith(lead):
            return 0
        if lead.startswith(_LEADING) and lead[len(_LEADING)].isupper():
            self._mode = _Mode.HIDDEN
            self.stripped += 1
            return len(text) - len(lead) + len(_LEADING)
        self._mode = _Mode.VISIBLE
        return 0

    def _pass_text(self, text: str, shown: list[str]) -> None:
        if self._mode is _Mode.VISIBLE:
            shown.append(text)
        elif self._mode is _Mode.HEADER:
            self._header += text[: _HEADER_LIMIT + 1]
            if len(self._header) > _HEADER_LIMIT:
                rest = text[_HEADER_LIMIT + 1 :]
                self._leave_header(shown)
                self._pass_text(rest, shown)

    def _leave_header(self, shown: list[str]) -> None:
        """A header without <|message|> was no header: a text that speaks about the markup."""
        hidden = self._header.startswith(_LEADING)
        self._mode = _Mode.HIDDEN if hidden else _Mode.VISIBLE
        if not hidden:
            shown.append(self._header)
        self._header = ""

    def _pass_marker(self, marker: str) -> None:
        self.stripped += 1
        if marker in {"<|start|>", "<|channel|>"}:
            self._mode, self._header = _Mode.HEADER, ""
        elif marker == "<|message|>":
            hidden = self._mode is _Mode.HEADER and self._header.lstrip().startswith(_LEADING)
            self._mode, self._header = (_Mode.HIDDEN if hidden else _Mode.VISIBLE), ""
        elif marker == "assistantanalysis":
            self._mode = _Mode.HIDDEN
        elif marker in _ENDS:
            self._mode, self._header = _Mode.VISIBLE, ""


def _undecided(text: str, at: int) -> int:
    """Where a tail begins that may become a marker with the next delta."""
    partial = _PARTIAL_TOKEN.search(text, max(at, len(text) - 24))
    if partial is None:
        partial = _PARTIAL_WORD.search(text, max(at, len(text) - _LONGEST_WORD + 1))
    return partial.start() if partial else len(text)
