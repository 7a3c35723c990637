"""Refusing before Django is asked: in a storm of questions, saying no must cost next to nothing."""

from __future__ import annotations

import re
from typing import Any, Final

from django.template.loader import render_to_string
from rest_framework.renderers import JSONRenderer

from assistant.api.openai import error_json
from assistant.api.problems import CONTENT_TYPE, problem_of
from assistant.chat import queueing
from assistant.web.thread import REFUSED_HEADERS, REFUSED_STATUS, REFUSED_TEMPLATE
from inference.types import EngineError

_ID: Final = "[0-9a-f-]{36}"
_ASKING: Final = re.compile(
    f"(?P<api>/api/v1/(answers/|answers/{_ID}/again|conversations/{_ID}/messages/))"
    "|(?P<openai>/v1/chat/completions/?)"
    f"|(?P<page>/|/c/{_ID}/|/messages/{_ID}/edit/|/answers/{_ID}/again/)"
)

Headers = list[tuple[bytes, bytes]]


def asks(scope: dict[str, Any]) -> str | None:
    """Which of the ways to ask a request is: ``api``, ``openai`` or ``page``."""
    found = _ASKING.fullmatch(scope["path"]) if scope["method"] == "POST" else None
    return found and found.lastgroup


async def refusal(scope: dict[str, Any]) -> tuple[int, Headers, bytes] | None:
    """Status, headers and body for a question that finds the line full, None for all others.

    The same words as from the view, which would find it full as well, a hundred times dearer. Who
    asks is not known yet, so limits of persons are not looked at.
    """
    way = asks(scope)
    if way is None or (error := await queueing.overload()) is None:
        return None
    status, headers, body = _for_page(error) if way == "page" else _for_program(error, way)
    headers |= {
        "content-length": str(len(body)),
        "cache-control": "no-store",
        "x-content-type-options": "nosniff",
    }
    return status, [(k.lower().encode(), v.encode()) for k, v in headers.items()], body


def _for_program(error: EngineError, way: str) -> tuple[int, dict[str, str], bytes]:
    problem, is_openai = problem_of(error), way == "openai"
    body = JSONRenderer().render(error_json(problem) if is_openai else problem.body())
    kind = "application/json" if is_openai else CONTENT_TYPE
    return problem.status, {"content-type": kind, **problem.headers}, body


def _for_page(error: EngineError) -> tuple[int, dict[str, str], bytes]:
    body = render_to_string(REFUSED_TEMPLATE, {"words": error.detail}).encode()
    kind = {"content-type": "text/html; charset=utf-8", "x-frame-options": "DENY"}
    wait = {"retry-after": str(error.retry_after)}
    return REFUSED_STATUS, {**kind, **wait, **REFUSED_HEADERS}, body
