"""Rights during an answer: they are read again while it is written, not only before."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Sequence
from typing import cast
from uuid import UUID

from django.conf import settings

from assistant.database import in_database
from assistant.documents.models import Collection, Document
from assistant.permissions.policy import AnyUser
from assistant.retrieval import Passage
from assistant.users.models import User

# A withdrawn right ends a running answer within this time and one poll.
RECHECK_SECONDS = 3.0


@in_database
def still_allowed(user: AnyUser, passages: Sequence[Passage]) -> bool:
    """Whether the account is active and every source is still there for it."""
    fresh = User.objects.filter(pk=cast("User", user).pk, is_active=True).first()
    if fresh is None:
        return False
    wanted = {passage.document_id for passage in passages}
    visible: int = Document.objects.for_user(fresh).filter(pk__in=wanted, disabled_at=None).count()
    return visible == len(wanted)


@in_database
def nothing_found(user: AnyUser, collections: Sequence[UUID] | None) -> str:
    """What to say when no passage came back: how much was searched, and what could be done."""
    documents = Document.objects.for_user(user).filter(
        current_version__isnull=False, disabled_at=None
    )
    visible = Collection.objects.for_user(user)
    if collections is not None:
        documents = documents.filter(collection__in=collections)
        visible = visible.filter(pk__in=collections)
    count = documents.count()
    if not visible.exists():
        return "There is no collection that you can read yet. Ask a colleague to share one."
    if not count:
        return "The collections that you can read have no ready documents yet."
    plural = "document" if count == 1 else "documents"
    return f"I found nothing about this in the {count} {plural} that you can read."


def cache_salt(user: AnyUser) -> str:
    """Separates the model server's prefix caches by person: a hit would tell by its speed."""
    return hmac.new(settings.SECRET_KEY.encode(), str(user.pk).encode(), hashlib.sha256).hexdigest()
