"""Counting tokens as the embedding model does, without loading the model.

With the model's ``tokenizer.json`` the count is exact. Without it (the model runs on another
machine) a character rule counts on the high side, so that chunks still fit the window.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from tokenizers import Tokenizer

from inference.embedding_models import EmbeddingModel

# Latin words cost about a token per four letters, other alphabets up to one per two letters,
# ideographs and marks one each, and byte-level vocabularies spell an emoji in three.
_PIECE: Final = re.compile(r"[A-Za-z]{1,3}|\d|\w{1,2}|\S")
_WIDE: Final = re.compile(r"[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u2e80-\ud7ff\uf900-\ufaff]")


def estimated_tokens(text: str) -> int:
    """What a language model may count, on the high side without its tokeniser.

    Three bytes of UTF-8 a token.
    """
    return len(text.encode("utf-8", errors="surrogatepass")) // 3


class TokenizerCounter:
    """Exact counts from a ``tokenizer.json``."""

    def __init__(self, tokenizer_file: Path) -> None:
        self._tokenizer = Tokenizer.from_file(str(tokenizer_file))
        # The file may ask for truncation to the window, which would hide what is too long.
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()

    def count(self, text: str) -> int:
        return len(self._tokenizer.encode(text, add_special_tokens=False))

    def count_many(self, texts: Sequence[str]) -> list[int]:
        """One count per text, in order; runs outside the interpreter lock."""
        encodings = self._tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)
        return [len(encoding) for encoding in encodings]

    def offsets(self, text: str) -> list[tuple[int, int]]:
        return list(self._tokenizer.encode(text, add_special_tokens=False).offsets)


class CharacterCounter:
    """Counts on the high side from the characters alone."""

    def count(self, text: str) -> int:
        return len(self.offsets(text))

    def count_many(self, texts: Sequence[str]) -> list[int]:
        return [self.count(text) for text in texts]

    def offsets(self, text: str) -> list[tuple[int, int]]:
        spans: list[tuple[int, int]] = []
        for match in _PIECE.finditer(text):
            piece, (start, end) = match.group(), match.span()
            if len(piece) > 1 and _WIDE.search(piece):
                spans.extend((at, at + 1) for at in range(start, end))
            elif ord(piece[0]) > 0xFFFF:
                spans.extend([(start, end)] * 3)
            else:
                spans.append((start, end))
        return spans


def load_token_counter(model: EmbeddingModel) -> TokenizerCounter | CharacterCounter:
    """The exact counter when the tokenizer is on this machine, else the character rule."""
    tokenizer_file = model.tokenizer_file()
    return TokenizerCounter(tokenizer_file) if tokenizer_file else CharacterCounter()
