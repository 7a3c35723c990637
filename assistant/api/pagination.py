"""Lists by keyset: pages neither repeat nor miss rows while others are added or removed."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, ClassVar
from urllib.parse import urlencode
from uuid import UUID

from django.db.models import Q, QuerySet
from rest_framework.exceptions import ValidationError
from rest_framework.pagination import BasePagination
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView


class NewestFirst(BasePagination):
    """``{"next": url | null, "results": [...]}`` in the order of ``created_at``, newest first.

    The cursor holds the position, not rights: each page is scoped again.
    """

    default_limit: ClassVar[int] = 50
    max_limit: ClassVar[int] = 200

    def paginate_queryset(
        self,
        queryset: QuerySet[Any] | Sequence[Any],
        request: Request,
        view: APIView | None = None,
    ) -> list[Any]:
        """Raises ValidationError for a limit or cursor that this API did not make."""
        assert isinstance(queryset, QuerySet)
        self._request = request
        self._limit = self._read_limit(request.query_params.get("limit"))
        if cursor := request.query_params.get("cursor"):
            at, key = self._decode(cursor)
            queryset = queryset.filter(Q(created_at__lt=at) | Q(created_at=at, pk__gt=key))
        rows = list(queryset.order_by("-created_at", "pk")[: self._limit + 1])
        self._next = self._encode(rows[self._limit - 1]) if len(rows) > self._limit else None
        return rows[: self._limit]

    def get_paginated_response(self, data: Any) -> Response:
        return Response({"next": self._next_url(), "results": data})

    def get_paginated_response_schema(self, schema: dict[str, Any]) -> dict[str, Any]:
        return {
            "type": "object",
            "required": ["next", "results"],
            "properties": {
                "next": {
                    "type": "string",
                    "nullable": True,
                    "format": "uri",
                    "description": "The next page; null on the last one.",
                },
                "results": schema,
            },
        }

    def get_schema_operation_parameters(self, view: APIView) -> list[Any]:
        return [
            {
                "name": "cursor",
                "in": "query",
                "required": False,
                "description": "Where to go on; take it from `next`.",
                "schema": {"type": "string"},
            },
            {
                "name": "limit",
                "in": "query",
                "required": False,
                "description": "Rows on a page.",
                "schema": {
                    "type": "integer",
                    "minimum": 1,
                    "maximum": self.max_limit,
                    "default": self.default_limit,
                },
            },
        ]

    def _read_limit(self, text: str | None) -> int:
        if text is None:
            return self.default_limit
        if not (text.isascii() and text.isdigit() and len(text) < 6):
            raise ValidationError({"limit": ["This must be a whole number."]})
        number = int(text)
        if not 1 <= number <= self.max_limit:
            raise ValidationError({"limit": [f"Choose a number from 1 to {self.max_limit}."]})
        return number

    def _next_url(self) -> str | None:
        if self._next is None:
            return None
        query = self._request.query_params.copy()
        query["cursor"] = self._next
        path = self._request.build_absolute_uri(self._request.path)
        return f"{path}?{urlencode(list(query.items()))}"

    @staticmethod
    def _encode(row: Any) -> str:
        position = json.dumps([row.created_at.isoformat(), str(row.pk)])
        return base64.urlsafe_b64encode(position.encode()).decode().rstrip("=")

    @staticmethod
    def _decode(cursor: str) -> tuple[datetime, UUID]:
        try:
            padded = cursor + "=" * (-len(cursor) % 4)
            at, key = json.loads(base64.urlsafe_b64decode(padded.encode("ascii")))
            moment = datetime.fromisoformat(at)
            if moment.tzinfo is None:
                raise ValueError("no time zone")
            return moment, UUID(key)
        except (ValueError, TypeError, AttributeError, binascii.Error, RecursionError):
            raise ValidationError(
                {"cursor": ["This is no cursor of this list. Start again without it."]}
            ) from None


class ByOrdinal:
    """``{"next": url | null, "results": [...]}`` over what is numbered from 0 without gaps."""

    default_limit: ClassVar[int] = 50
    max_limit: ClassVar[int] = 200

    def __init__(self, request: Request) -> None:
        """Raises ValidationError for a ``start`` or ``limit`` that is no sensible number."""
        self._request = request
        self.start = self._number("start", default=0, least=0, most=10**9)
        self.limit = self._number("limit", default=self.default_limit, least=1, most=self.max_limit)

    def response(self, rows: Sequence[Mapping[str, Any]]) -> Response:
        """``rows`` start at ``start`` and hold one more than ``limit`` when there are more."""
        following = None
        if len(rows) > self.limit:
            query = self._request.query_params.copy()
            query["start"] = str(rows[self.limit]["ordinal"])
            path = self._request.build_absolute_uri(self._request.path)
            following = f"{path}?{urlencode(list(query.items()))}"
        return Response({"next": following, "results": list(rows[: self.limit])})

    def _number(self, name: str, *, default: int, least: int, most: int) -> int:
        text = self._request.query_params.get(name)
        if text is None:
            return default
        if not (text.isascii() and text.isdigit() and len(text) < 11):
            raise ValidationError({name: ["This must be a whole number."]})
        if not least <= int(text) <= most:
            raise ValidationError({name: [f"Choose a number from {least} to {most}."]})
        return int(text)
