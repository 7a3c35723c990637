"""What a view behind ``login_required`` receives."""

from __future__ import annotations

from django.http import HttpRequest, QueryDict
from django_htmx.middleware import HtmxDetails

from assistant.users.models import User


class SignedInRequest(HttpRequest):
    user: User
    htmx: HtmxDetails


def text_of(given: QueryDict, name: str, *, limit: int = 200) -> str:
    """What was sent under ``name``, without NUL, which PostgreSQL cannot store; at most ``limit``
    characters.
    """
    return given.get(name, "").replace("\0", "").strip()[:limit]
