"""What a person in front of ``manage.py up`` reads."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

_WIDTH = 240
_PLAIN_ERROR = re.compile(r"\b(?:ERROR|CRITICAL|FATAL|PANIC)\b|^Traceback")
# A statement that fails in PostgreSQL is reported by the part that sent it, and asking whether it
# is ready makes it say that it is not.
_DATABASE_ERROR = re.compile(r"\b(?:FATAL|PANIC)\b(?!: +the database system is starting up)")


def say(text: str = "") -> None:
    """One line for the operator, at once."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


class LogFollower:
    """Finds the error lines that a program appends to its log."""

    def __init__(self, name: str, log: Path) -> None:
        self._name = name
        self._log = log
        self._position = log.stat().st_size if log.exists() else 0

    def errors(self, *, limit: int = 5) -> list[str]:
        """New error lines since the last call, shortened, at most ``limit`` and a count."""
        found = [message for line in self._new_lines() if (message := self._error(line))]
        if len(found) > limit:
            found = [*found[:limit], f"and {len(found) - limit} more lines, see {self._log}"]
        return [_short(f"{self._name} | {message}") for message in found]

    def _new_lines(self) -> list[str]:
        try:
            size = self._log.stat().st_size
            if size < self._position:  # cut by keep_log_small
                self._position = 0
            if size == self._position:
                return []
            with self._log.open("rb") as stream:
                stream.seek(self._position)
                new = stream.read(256 * 1024)
        except OSError:
            return []
        whole, newline, _ = new.rpartition(b"\n")
        self._position += len(whole) + len(newline)
        return whole.decode("utf-8", "replace").splitlines()

    def _error(self, line: str) -> str | None:
        if line.startswith("{"):
            try:
                record = json.loads(line)
            except ValueError:
                return None
            if str(record.get("level", "")).lower() not in {"error", "critical"}:
                return None
            return str(record.get("event") or record.get("message") or line)
        pattern = _DATABASE_ERROR if self._name == "postgres" else _PLAIN_ERROR
        return line if pattern.search(line) else None


def _short(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= _WIDTH else line[: _WIDTH - 1] + "…"
