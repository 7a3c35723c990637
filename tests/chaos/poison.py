"""A parser that does what no parser should when a document tells it to; else the real one."""

from __future__ import annotations

import ctypes
from typing import Any

from ingestion.elements import ParsedDocument
from ingestion.parsing import parse_document

MEMORY = b"CHAOS-EAT-ALL-MEMORY"
LOOP = b"CHAOS-LOOP-FOR-EVER"
SEGFAULT = b"CHAOS-SEGFAULT"


def parse(data: bytes, **options: Any) -> ParsedDocument:
    if MEMORY in data:
        hog: list[bytearray] = []
        while True:
            hog.append(bytearray(16 << 20))
    if LOOP in data:
        while True:
            pass
    if SEGFAULT in data:
        ctypes.string_at(0)
    return parse_document(data, **options)
