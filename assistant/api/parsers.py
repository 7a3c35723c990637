"""Request bodies, read strictly: what two readers could understand differently is refused."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import IO, Any, ClassVar, Final, NoReturn

from rest_framework import parsers
from rest_framework.exceptions import ParseError

from assistant.api.problems import Problem, ProblemError

# Questions and settings are small; the batch upload says its own limit.
DEFAULT_MAX_BYTES: Final = 1024 * 1024


def loads(text: str, *, may_be_unstorable: bool = False) -> Any:
    """JSON without NaN, duplicate keys and, unless they may be in it, NUL and lone surrogates.

    Raises ParseError in words. PostgreSQL cannot store NUL, and UTF-8 has no lone surrogates.
    """
    try:
        value = json.loads(
            text, parse_constant=_no_constant, object_pairs_hook=_object_without_duplicates
        )
    except RecursionError:
        raise ParseError("The JSON is nested too deeply.") from None
    except ValueError as error:
        raise ParseError(f"This is not valid JSON: {error}") from None
    if not may_be_unstorable and ("\\u" in text or "\0" in text):
        _refuse_unstorable(value)
    return value


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a JSON number")


def _object_without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        raise ValueError("an object names the same key twice")
    return result


def _refuse_unstorable(value: Any) -> None:
    pending = [value]
    while pending:
        item = pending.pop()
        if isinstance(item, str):
            if "\0" in item:
                raise ParseError("Text must not contain the NUL character (\\u0000).")
            if not item.isascii() and any("\ud800" <= letter <= "\udfff" for letter in item):
                raise ParseError(
                    "Text contains half of a character (a lone surrogate, \\ud800 to \\udfff)."
                )
        elif isinstance(item, dict):
            pending.extend(item.keys())
            pending.extend(item.values())
        elif isinstance(item, list):
            pending.extend(item)


class StrictJSONParser(parsers.JSONParser):
    """An object in UTF-8, at most ``view.max_body_bytes`` long."""

    may_be_unstorable: ClassVar[bool] = False

    def parse(
        self,
        stream: IO[Any],
        media_type: str | None = None,
        parser_context: Mapping[str, Any] | None = None,
    ) -> dict[str, Any]:
        view = (parser_context or {}).get("view")
        limit: int = getattr(view, "max_body_bytes", DEFAULT_MAX_BYTES)
        raw = stream.read(limit + 1)
        if len(raw) > limit:
            raise ProblemError(
                Problem(
                    413,
                    f"The request is larger than the {limit // 1024} KiB allowed here.",
                    code="too_large",
                )
            )
        try:
            text = raw.decode("utf-8")
        except UnicodeDecodeError:
            raise ParseError("The body must be JSON in UTF-8.") from None
        value = loads(text, may_be_unstorable=self.may_be_unstorable) if text.strip() else {}
        if not isinstance(value, dict):
            raise ParseError("The body must be a JSON object.")
        return value


class TolerantJSONParser(StrictJSONParser):
    """For a view that takes NUL and lone surrogates out of texts, see ``storable``."""

    may_be_unstorable = True


def storable(text: str) -> str:
    """The text without NUL and lone surrogates."""
    return text.replace("\0", "").encode("utf-8", "ignore").decode("utf-8")


class MultiPartParser(parsers.MultiPartParser):
    """``multipart/form-data``; the upload handlers bound the file, ``settings`` the rest."""
