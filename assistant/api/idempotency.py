"""The header that makes a request that is sent twice one question."""

from __future__ import annotations

from typing import Final

from drf_spectacular.utils import OpenApiParameter
from rest_framework import exceptions
from rest_framework.request import Request

_CHARACTERS: Final = 200

IDEMPOTENCY_KEY: Final = OpenApiParameter(
    "Idempotency-Key",
    str,
    OpenApiParameter.HEADER,
    description="A name of yours for this question. Sent again, the same question and answer come"
    " back and nothing is asked twice.",
)


def idempotency_key(request: Request) -> str | None:
    key: str = request.headers.get("Idempotency-Key", "").strip()
    if len(key) > _CHARACTERS or not key.isprintable():
        raise exceptions.ValidationError(
            {"Idempotency-Key": [f"At most {_CHARACTERS} printable characters."]}
        )
    return key or None
