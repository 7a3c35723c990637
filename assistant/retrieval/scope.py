"""What one search may see, as SQL that stands inside the statement that ranks.

Ranking sees permitted rows only: nothing is fetched first and dropped afterwards.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Final
from uuid import UUID

from assistant.documents.models import Collection
from assistant.permissions.policy import (
    AnyUser,
    collections_with_role,
    is_person,
    private_collections,
)
from assistant.permissions.roles import Role
from assistant.retrieval.filters import narrowing
from assistant.users.models import User

Params = dict[str, Any]
# A document ``d`` that may answer.
_ANSWERS: Final = "d.deleted_at IS NULL AND d.disabled_at IS NULL"


@dataclass(frozen=True, slots=True)
class Scope:
    """Conditions on ``c`` (chunk), ``d`` (document) and ``v`` (version), and their parameters.

    ``readable`` is a SELECT of the ids of the collections that may be seen; ``documents`` are the
    filters, each led by AND.
    """

    readable: str
    documents: str
    params: Params = field(default_factory=dict)

    def on(self, column: str) -> str:
        """The condition on a collection id column."""
        return f"{column} IN ({self.readable})"

    def filtering(self, column: str) -> str:
        """The same, checked row by row against a hash table.

        IS TRUE keeps the planner from making a join of it, which would lose the order of an index.
        """
        return f"({self.on(column)}) IS TRUE"

    def seeking(self, column: str) -> str:
        """The same, for an index on the column: the ids are gathered first, then looked up."""
        return f"{column} = ANY(ARRAY({self.readable}))"

    @property
    def live(self) -> str:
        """Joins chunk ``c`` to its document, current version only, filters applied."""
        return (
            " JOIN documents_document d ON d.id = c.document_id"
            " AND d.current_version_id = c.version_id"
            f" AND {_ANSWERS} JOIN documents_documentversion v ON v.id = c.version_id"
            + self.documents
        )

    @property
    def current(self) -> str:
        """The condition that chunk ``c`` is of a version that answers, filters apart.

        The scope's documents are gathered once, whatever the planner believes of their number: a
        look-up for each chunk is slower, and before the first ANALYZE after an upload far slower.
        """
        return (
            "(c.version_id IN (SELECT d.current_version_id FROM documents_document d"
            f" WHERE {self.seeking('d.collection_id')}"
            f" AND {_ANSWERS})) IS TRUE"
        )

    @property
    def ranked(self) -> str:
        """As ``live``, without the version where no filter asks for it: for the arms."""
        if re.search(r"\bv\.", self.documents):
            return self.live
        return self.live.replace(" JOIN documents_documentversion v ON v.id = c.version_id", "")


def scope_of(
    user: AnyUser,
    *,
    collections: Sequence[UUID] | None = None,
    filters: Mapping[str, Any] | None = None,
    private: UUID | None = None,
) -> Scope:
    """The scope of ``user``, narrowed to ``collections`` and ``filters``.

    ``private`` is a collection of the person's own, which is the whole scope then.

    Raises Collection.DoesNotExist when one of ``collections`` is absent or hidden, and
    ValidationError for a filter that is unknown or malformed. Filters only ever narrow.
    """
    if private is not None:
        return _private(user, private)
    if collections is not None:
        wanted = set(collections)
        if Collection.objects.for_user(user).filter(pk__in=wanted).count() != len(wanted):
            raise Collection.DoesNotExist
    if not is_person(user):
        return Scope("SELECT id FROM documents_collection WHERE FALSE", "")
    readable, params = _named(*_statement(user.pk, user.is_superuser))
    if collections is not None:
        readable = f"SELECT id FROM ({readable}) AS of_user(id) WHERE id = ANY(%(collections)s)"
        params["collections"] = list(set(collections))
    documents = narrowing(filters or {}, user=user, params=params)
    return Scope(readable, documents, params)


@lru_cache(maxsize=4096)
def _statement(user_id: UUID, is_superuser: bool) -> tuple[str, tuple[Any, ...]]:
    """The policy's question for one person: kept, because composing it costs more than asking it.

    It holds no right, only whose rights are looked up.
    """
    person = User(pk=user_id, is_superuser=is_superuser, is_active=True)
    return collections_with_role(person, Role.READER).query.sql_with_params()


def _private(user: AnyUser, collection: UUID) -> Scope:
    """Raises Collection.DoesNotExist when it is not private to ``user``."""
    own = private_collections(user).filter(pk=collection)
    if not own.exists():
        raise Collection.DoesNotExist
    readable, params = _named(*own.query.sql_with_params())
    return Scope(readable, "", params)


def _named(sql: str, values: Sequence[Any]) -> tuple[str, Params]:
    """The statement with names for its parameters, which stand beside those of the search."""
    params = {f"scope_{i}": value for i, value in enumerate(values)}
    return sql % tuple(f"%({name})s" for name in params), params
