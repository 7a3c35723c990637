"""``Model.objects.for_user(user)``: the only way from a request to rows."""

from __future__ import annotations

from typing import Any, TypeVar

from django.db import models

from assistant.permissions.policy import AnyUser, collections_with_role, is_person
from assistant.permissions.roles import Role

M = TypeVar("M", bound=models.Model)


class ScopedQuerySet(models.QuerySet[M]):
    """Rows that belong to a Collection, seen through its grants.

    The model names the way to its collection in ``collection_path`` (a lookup, ``pk`` for the
    Collection itself). Being a queryset method, the scope composes with filters, counts and
    pagination, and a hidden row is never loaded.
    """

    def for_user(self, user: AnyUser, role: Role = Role.READER) -> ScopedQuerySet[M]:
        path: str = self.model.collection_path  # type: ignore[attr-defined]
        return self.filter(**{f"{path}__in": collections_with_role(user, role)})


class OwnedQuerySet(models.QuerySet[M]):
    """Rows that belong to one person and nobody else, administrators included."""

    def for_user(self, user: AnyUser) -> OwnedQuerySet[M]:
        if not is_person(user):
            return self.none()
        path: str = getattr(self.model, "owner_path", "user")
        lookup: dict[str, Any] = {path: user.pk}
        return self.filter(**lookup)
