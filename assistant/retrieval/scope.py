"""What one search may see, as SQL that stands inside the statement that ranks.

Ranking sees permitted rows only: nothing is fetched first and dropped afterwards.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from uuid import UUID

from django.core.exceptions import EmptyResultSet, ValidationError
from django.utils.dateparse import parse_date, parse_datetime
from django.utils.timezone import is_aware, make_aware

from assistant.documents.models import Collection
from assistant.permissions.policy import AnyUser, collections_with_role
from assistant.permissions.roles import Role

Params = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Scope:
    """Conditions on ``c`` (chunk), ``d`` (document) and ``v`` (version), and their parameters.

    ``collections`` is a condition on a collection id column, to be formatted with its name.
    """

    collections: str
    documents: str
    params: Params = field(default_factory=dict)

    def on(self, column: str) -> str:
        return self.collections.format(column=column)

    @property
    def live(self) -> str:
        """Joins chunk ``c`` to its document, current version only, filters applied."""
        return (
            " JOIN documents_document d ON d.id = c.document_id"
            " AND d.current_version_id = c.version_id"
            " AND d.deleted_at IS NULL AND d.disabled_at IS NULL"
            " JOIN documents_documentversion v ON v.id = c.version_id" + self.documents
        )


def scope_of(
    user: AnyUser,
    *,
    collections: Sequence[UUID] | None = None,
    filters: Mapping[str, Any] | None = None,
) -> Scope:
    """The scope of ``user``, narrowed to ``collections`` and ``filters``.

    Raises Collection.DoesNotExist when one of ``collections`` is absent or hidden, and
    ValidationError for a filter that is unknown or malformed. Filters only ever narrow.
    """
    if collections is not None:
        wanted = set(collections)
        if Collection.objects.for_user(user).filter(pk__in=wanted).count() != len(wanted):
            raise Collection.DoesNotExist
    try:
        sql, values = collections_with_role(user, Role.READER).query.sql_with_params()
    except EmptyResultSet:  # nobody who is signed in: Django refuses to write a statement
        return Scope("FALSE", "")
    params: Params = {f"scope_{i}": value for i, value in enumerate(values)}
    # Braces would be read by Scope.on; policy statements have none, and this keeps it so.
    condition = "{column} IN (" + (sql % tuple(f"%({name})s" for name in params)) + ")"
    if collections is not None:
        condition += " AND {column} = ANY(%(collections)s)"
        params["collections"] = list(set(collections))
    documents = _filters(filters or {}, params)
    return Scope(condition, documents, params)


def _filters(filters: Mapping[str, Any], params: Params) -> str:
    conditions: list[str] = []
    for name, value in filters.items():
        if name == "document_ids":
            params["document_ids"] = [_uuid(item) for item in _strings(name, value)]
            conditions.append("d.id = ANY(%(document_ids)s)")
        elif name == "media_types":
            params["media_types"] = _strings(name, value)
            conditions.append("v.media_type = ANY(%(media_types)s)")
        elif name == "created_after":
            params["created_after"] = _time(name, value)
            conditions.append("v.created_at >= %(created_after)s")
        elif name == "created_before":
            params["created_before"] = _time(name, value)
            conditions.append("v.created_at < %(created_before)s")
        elif name == "metadata" and isinstance(value, Mapping):
            for i, (key, wanted) in enumerate(value.items()):
                params[f"meta_key_{i}"], params[f"meta_value_{i}"] = str(key), str(wanted)
                conditions.append(f"d.metadata ->> %(meta_key_{i})s = %(meta_value_{i})s")
        else:
            raise ValidationError(
                f"There is no filter {name!r} of that form. Filters are document_ids, media_types,"
                " created_after, created_before and metadata."
            )
    return "".join(f" AND {condition}" for condition in conditions)


def _strings(name: str, value: object) -> list[str]:
    if not isinstance(value, Sequence) or isinstance(value, str):
        raise ValidationError(f"The filter {name} takes a list.")
    return [str(item) for item in value]


def _uuid(text: str) -> UUID:
    try:
        return UUID(text)
    except ValueError:
        raise ValidationError(f"{text!r} is not a document id.") from None


def _time(name: str, value: object) -> datetime:
    text = str(value)
    try:
        moment = parse_datetime(text)
        if moment is None and (day := parse_date(text)) is not None:
            moment = datetime(day.year, day.month, day.day)  # noqa: DTZ001  made aware below
    except ValueError:
        moment = None
    if moment is None:
        raise ValidationError(f"The filter {name} takes a date or time such as 2026-01-31.")
    return moment if is_aware(moment) else make_aware(moment)
