"""The environment of this installation: the process's own, over the `.env` file beside manage.py.

Read by ``assistant.settings`` and, before Django is set up, by ``manage.py up``.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

_LINE = re.compile(r"(?:export\s+)?(?P<name>[A-Za-z_][A-Za-z0-9_]*)\s*=\s*(?P<value>.*)")
_ESCAPES = {"n": "\n", "t": "\t", '"': '"', "\\": "\\", "$": "$"}


def load_env(base_dir: Path) -> dict[str, str]:
    """Variables from ``base_dir/.env``, overridden by those of the process.

    Raises ValueError naming file and line when `.env` has a line that is not ``NAME=value``.
    """
    file = base_dir / ".env"
    try:
        text = file.read_text(encoding="utf-8")
    except FileNotFoundError:
        return dict(os.environ)
    return {**parse_env(text, source=str(file)), **os.environ}


def parse_env(text: str, *, source: str = ".env") -> dict[str, str]:
    """``NAME=value`` lines: ``'literal'``, ``"with \\n escapes"`` or bare up to ``" #"``."""
    values: dict[str, str] = {}
    for number, raw in enumerate(text.splitlines(), start=1):
        line = raw.strip()
        if not line or line.startswith("#"):
            continue
        match = _LINE.fullmatch(line)
        value = _value(match["value"]) if match else None
        if match is None or value is None:
            raise ValueError(f"{source}, line {number}: expected NAME=value")
        values[match["name"]] = value
    return values


def _value(text: str) -> str | None:
    """The value as written after ``=``; None when a quote is not closed properly."""
    if text.startswith("'"):
        match = re.fullmatch(r"'([^']*)'\s*(?:#.*)?", text)
        return match[1] if match else None
    if text.startswith('"'):
        match = re.fullmatch(r'"((?:[^"\\]|\\.)*)"\s*(?:#.*)?', text)
        if not match:
            return None
        return re.sub(r"\\(.)", lambda found: _ESCAPES.get(found[1], found[0]), match[1])
    return re.sub(r"(?:^|\s+)#.*$", "", text).rstrip()
