"""Refusing before Django is asked: in a storm of questions, saying no must cost next to nothing."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

from rest_framework.renderers import JSONRenderer

from assistant.api.openai import error_json
from assistant.api.problems import CONTENT_TYPE, problem_of
from assistant.chat import queueing

_ASKING: Final = re.compile(
    r"/api/v1/answers/|/api/v1/conversations/[0-9a-f-]{36}/messages/|(/v1/chat/completions)/?"
)

Headers = list[tuple[bytes, bytes]]
_asking = 0


@contextmanager
def counted(scope: dict[str, Any]) -> Iterator[None]:
    """Around a request that is let through: it may need a place in the line until it ends."""
    global _asking
    asks = _asks(scope) is not None
    _asking += asks
    try:
        yield
    finally:
        _asking -= asks


def _asks(scope: dict[str, Any]) -> re.Match[str] | None:
    return _ASKING.fullmatch(scope["path"]) if scope["method"] == "POST" else None


def refusal(scope: dict[str, Any]) -> tuple[int, Headers, bytes] | None:
    """Status, headers and body for a question that finds the line full, None for all others.

    The same words as from the view, which would find it full as well, a hundred times dearer. Who
    asks is not known yet, so limits of persons are not looked at.
    """
    asks = _asks(scope)
    if asks is None or (error := queueing.overload(_asking)) is None:
        return None
    problem = problem_of(error)
    body = JSONRenderer().render(error_json(problem) if asks[1] else problem.body())
    kind = "application/json" if asks[1] else CONTENT_TYPE
    headers = {"content-type": kind, "content-length": str(len(body)), **problem.headers}
    headers |= {"cache-control": "no-store", "x-content-type-options": "nosniff"}
    return problem.status, [(k.lower().encode(), v.encode()) for k, v in headers.items()], body
