"""What the API tests share: how a body is sent and what a problem looks like."""

from __future__ import annotations

from typing import Any

from assistant.api.problems import CONTENT_TYPE

JSON: dict[str, Any] = {"content_type": "application/json"}


def problem(answer: Any, status: int) -> dict[str, Any]:
    """The problem in ``answer``, checked for the shape that every one has."""
    assert answer.status_code == status, answer.content
    assert answer["Content-Type"] == CONTENT_TYPE
    body: dict[str, Any] = answer.json()
    assert body["status"] == status
    assert body["title"] and body["detail"] and body["type"]
    assert "Traceback" not in answer.content.decode()
    return body
