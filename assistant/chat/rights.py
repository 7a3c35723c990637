"""Rights during an answer: they are read again while it is written, not only before."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Sequence
from typing import cast
from uuid import UUID

from django.conf import settings

from assistant.chat.turn import Turn
from assistant.database import in_database
from assistant.documents.models import Collection, Document
from assistant.permissions.policy import AnyUser
from assistant.users.models import User

# A withdrawn right ends a running answer within this time and one poll.
RECHECK_SECONDS = 3.0


@in_database
def withdrawn(turns: Sequence[Turn]) -> list[Turn]:
    """Those whose account is no longer active, or one of whose sources is no longer there for it.

    The answers of one person share a query.
    """
    # Read once: this runs in a thread, and retrieval may end in between on the event loop.
    needed = [{passage.document_id for passage in turn.passages} for turn in turns]
    people = {cast("User", turn.user).pk for turn in turns}
    fresh = {user.pk: user for user in User.objects.filter(pk__in=people, is_active=True)}
    wanted: dict[UUID, set[UUID]] = {key: set() for key in fresh}
    for turn, documents in zip(turns, needed, strict=True):
        if (key := cast("User", turn.user).pk) in fresh:
            wanted[key] |= documents
    visible = {key: _visible(fresh[key], documents) for key, documents in wanted.items()}
    return [
        turn
        for turn, documents in zip(turns, needed, strict=True)
        if (key := cast("User", turn.user).pk) not in fresh or not documents <= visible[key]
    ]


def _visible(user: User, documents: set[UUID]) -> set[UUID]:
    if not documents:
        return set()
    rows = Document.objects.readable_by(user).filter(pk__in=documents, disabled_at=None)
    return set(rows.values_list("pk", flat=True))


def snapshot_hash(user: AnyUser, collections: Sequence[UUID] | None) -> str:
    """SHA-256 over the collections that a question of ``user`` reads now, hexadecimal."""
    readable = Collection.objects.for_user(user)
    if collections is not None:
        readable = readable.filter(pk__in=collections)
    ids = sorted(map(str, readable.values_list("pk", flat=True)))
    return hashlib.sha256("\n".join(ids).encode()).hexdigest()


@in_database
def note_snapshot(turn: Turn) -> None:
    """Keep what the question may read now, for its bundle."""
    turn.rights_hash = snapshot_hash(turn.user, turn.collections)


def cache_salt(user: AnyUser) -> str:
    """Separates the model server's prefix caches by person: a hit would tell by its speed."""
    return hmac.new(settings.SECRET_KEY.encode(), str(user.pk).encode(), hashlib.sha256).hexdigest()
