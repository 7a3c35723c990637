"""``Model.objects.for_user(user)``: the only way from a request to rows."""

from __future__ import annotations

from typing import Any, TypeVar

from django.db import models
from django.db.models import Q

from assistant.permissions.policy import (
    AnyUser,
    collections_with_role,
    is_person,
    private_collections,
)
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

    def readable_by(self, user: AnyUser) -> ScopedQuerySet[M]:
        """As ``for_user`` for readers, and what is private to ``user``: for rows asked for by id,
        such as the documents behind citations.
        """
        path: str = self.model.collection_path  # type: ignore[attr-defined]
        shared, private = collections_with_role(user, Role.READER), private_collections(user)
        return self.filter(Q(**{f"{path}__in": shared}) | Q(**{f"{path}__in": private}))


class OwnedQuerySet(models.QuerySet[M]):
    """Rows that belong to one person and nobody else, administrators included."""

    def for_user(self, user: AnyUser) -> OwnedQuerySet[M]:
        if not is_person(user):
            return self.none()
        path: str = getattr(self.model, "owner_path", "user")
        lookup: dict[str, Any] = {path: user.pk}
        return self.filter(**lookup)
