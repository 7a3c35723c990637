"""A few short documents as a whole: nothing is searched for, everything is read."""

from __future__ import annotations

from typing import Final
from uuid import UUID

from django.db import connection

from assistant import engines
from assistant.database import in_database, snapshot
from assistant.permissions.policy import AnyUser
from assistant.retrieval import passages
from assistant.retrieval.passages import Passage
from assistant.retrieval.row_security import reading_as
from assistant.retrieval.scope import scope_of
from assistant.retrieval.vector import Ranked

# Beyond this, what fits into a prompt is searched for.
MOST_CHUNKS: Final = 48


@in_database
def all_passages(*, user: AnyUser, private: UUID, budget: int) -> list[Passage] | None:
    """Everything that answers in a collection that is private to ``user``, in the order of its
    texts, with score 0. None where it takes more than ``budget`` tokens.

    Raises Collection.DoesNotExist.
    """
    with snapshot():
        scope = scope_of(user, private=private)
        with reading_as(user), connection.cursor() as cursor:
            cursor.execute(
                f"""
                SELECT c.id FROM retrieval_chunk c {scope.live}
                WHERE {scope.on("c.collection_id")}
                ORDER BY v.created_at, v.id, c.ordinal LIMIT {MOST_CHUNKS + 1}
                """,
                scope.params,
            )
            ids = [row[0] for row in cursor.fetchall()]
            if len(ids) > MOST_CHUNKS:
                return None
            found = passages.load([Ranked(key, 0.0) for key in ids], scope=scope)
    counter = engines.token_counter()
    tokens = sum(counter.count(passage.text) for passage in found)
    return found if tokens <= budget else None
