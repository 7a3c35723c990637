"""The only module that imports ``unstructured``: its settings, patches and element mapping.

Import it only in the sandboxed child's parent (the zygote): it takes seconds. Two defects of
0.27.32 are dealt with here, and the version is pinned because the second touches a private name:

- telemetry is on unless the environment says otherwise before the import;
- classifying text loads a spaCy model and, when it is missing, downloads and installs it at run
  time. The roles it guesses from grammar (narrative or not) are not used here: headings, lists,
  tables and code come from the markup. So the pipeline is replaced by one that finds no verbs.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

os.environ["DO_NOT_TRACK"] = "1"
os.environ["SCARF_NO_ANALYTICS"] = "1"
os.environ["UNSTRUCTURED_DISABLE_NOTICE"] = "1"
os.environ["HF_HUB_OFFLINE"] = "1"

from unstructured.documents.elements import Element as UnstructuredElement
from unstructured.nlp import tokenize
from unstructured.partition.pptx import partition_pptx

__all__ = [
    "NO_LANGUAGES",
    "UnstructuredElement",
    "partition_pptx",
]

NO_LANGUAGES: Final = [""]
"""Passed as ``languages`` to switch unstructured's language detection off."""


@dataclass(frozen=True, slots=True)
class _OneSentence:
    """What unstructured asks of a spaCy Doc: here one sentence, no tagged tokens."""

    text: str

    @property
    def sents(self) -> Iterator[_OneSentence]:
        return iter((self,))

    def __iter__(self) -> Iterator[Any]:
        return iter(())


class _NoGrammar:
    max_length: Final = 1 << 62

    def __call__(self, text: str) -> _OneSentence:
        return _OneSentence(text)


_PIPELINE: Final = _NoGrammar()


def _no_grammar() -> _NoGrammar:
    return _PIPELINE


def _patch(module: Any) -> None:
    if not hasattr(module, "_get_nlp"):
        raise ImportError("unstructured has moved its spaCy loader; review this patch")
    module._get_nlp = _no_grammar


_patch(tokenize)
