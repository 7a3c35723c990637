"""What every page shows: name of the site, theme, history. Nothing here touches the network."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from django.conf import settings
from django.http import HttpRequest
from django.utils import timezone
from django.utils.functional import SimpleLazyObject

from assistant.chat.choosing import EFFORTS, models_for
from assistant.chat.models import Conversation
from assistant.users.models import User

THEMES = ("light", "dark")
HISTORY_LENGTH = 60


def site(request: HttpRequest) -> dict[str, Any]:
    """``history`` and ``models`` are asked for only by templates that print them."""
    user = getattr(request, "user", None)
    theme = request.COOKIES.get("theme", "")
    return {
        "product_name": settings.SITE_NAME,
        "theme": theme if theme in THEMES else "",
        "has_language_model": bool(settings.LLM_BASE_URL),
        "efforts": EFFORTS,
        "models": SimpleLazyObject(lambda: models_for(user)) if user else (),
        "max_question": settings.MAX_QUESTION_CHARACTERS,
        "history": SimpleLazyObject(lambda: history_of(user)) if user else [],
    }


def history_of(user: Any, *, now: datetime | None = None) -> list[tuple[str, list[Conversation]]]:
    """The newest conversations of one person, grouped by when they were last used."""
    if not isinstance(user, User) and not getattr(user, "is_authenticated", False):
        return []
    now = now or timezone.now()
    today = timezone.localtime(now).replace(hour=0, minute=0, second=0, microsecond=0)
    since = (
        ("Today", today),
        ("Yesterday", today - timedelta(days=1)),
        ("Last seven days", today - timedelta(days=7)),
    )
    groups: dict[str, list[Conversation]] = {}
    for conversation in Conversation.objects.for_user(user)[:HISTORY_LENGTH]:
        name = next((name for name, at in since if conversation.updated_at >= at), "Earlier")
        groups.setdefault(name, []).append(conversation)
    return list(groups.items())
