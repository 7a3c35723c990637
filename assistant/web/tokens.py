"""Making and revoking one's own API tokens."""

from __future__ import annotations

from datetime import timedelta

from django.db import transaction
from django.utils import timezone

from assistant.audit.models import record
from assistant.users.models import ApiToken, TokenScope, User


def create_token(*, user: User, name: str, can_write: bool, days: int | None) -> str:
    """The token itself, which nobody can read again. ``days`` None: it does not expire."""
    scopes = [TokenScope.READ.value] + ([TokenScope.WRITE.value] if can_write else [])
    expires_at = timezone.now() + timedelta(days=days) if days else None
    with transaction.atomic():
        row, token = ApiToken.generate(user, scopes=scopes, name=name, expires_at=expires_at)
        record(user, "token.create", row, scopes=scopes)
    return token


def revoke_token(token: ApiToken, *, user: User) -> None:
    """It stops working with the commit; the row stays for the record."""
    with transaction.atomic():
        if ApiToken.objects.filter(pk=token.pk, revoked_at=None).update(revoked_at=timezone.now()):
            record(user, "token.revoke", token)
