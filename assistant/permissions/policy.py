"""The one policy. It answers both "may this user do X to this?" and "to which may they?".

Everything is read from live rows on every call: nothing about rights is kept in sessions, tokens
or indexes, so a change counts from the next query on.
"""

from __future__ import annotations

from typing import Any, cast
from uuid import UUID

from django.apps import apps
from django.contrib.auth.models import AnonymousUser
from django.contrib.postgres.expressions import ArraySubquery
from django.db.models import BooleanField, F, Func, Model, Q, QuerySet

from assistant.permissions.models import Grant
from assistant.permissions.roles import Role
from assistant.users.models import User

AnyUser = User | AnonymousUser


def is_person(user: AnyUser) -> bool:
    """True for a signed-in, active user: everybody else has no rights at all."""
    return bool(user.is_authenticated and user.is_active)


def collections_with_role(user: AnyUser, role: Role) -> QuerySet[Any, UUID]:
    """Ids of the collections on which ``user`` has at least ``role``, as a subquery.

    A superuser gets an explicit set too: there is no "no filter". What is private to somebody is
    in nobody's set.
    """
    if not is_person(user):
        return cast("QuerySet[Any, UUID]", Grant.objects.none().values_list("collection_id"))
    if user.is_superuser:
        shared = _collections().filter(private_to=None)
        return cast("QuerySet[Any, UUID]", shared.order_by().values_list("pk"))
    person = cast("User", user)
    grants = Grant.objects.filter(
        Q(user_id=person.pk) | Q(_in_one_of(person)) | Q(everyone=True), role__gte=role
    )
    return cast("QuerySet[Any, UUID]", grants.values_list("collection_id"))


def private_collections(user: AnyUser) -> QuerySet[Any, UUID]:
    """Ids of the collections that are private to ``user``, as a subquery."""
    own = _collections().filter(private_to=user.pk) if is_person(user) else _collections().none()
    return cast("QuerySet[Any, UUID]", own.order_by().values_list("pk"))


def _collections() -> QuerySet[Any]:
    return cast("type[Model]", apps.get_model("documents", "Collection"))._base_manager.all()


def _in_one_of(person: User) -> Func:
    """``group_id = ANY(ARRAY(SELECT ...))``: unlike IN, an index serves it beside an OR.

    With tens of thousands of grants the difference is ten times the cost of a search. Asks the
    memberships alone: who reads under row-level security may not see the groups themselves.
    """
    memberships = User.groups.through._base_manager.filter(user_id=person.pk)
    return Func(
        F("group_id"),
        ArraySubquery(memberships.values("group_id")),
        template="(%(expressions)s))",
        arg_joiner=" = ANY(",
        output_field=BooleanField(),
    )


def role_on(user: AnyUser, collection_id: UUID) -> Role | None:
    """The highest role of ``user`` on one collection, None without any."""
    for role in sorted(Role, reverse=True):
        if (
            collections_with_role(user, role)
            .filter(**{"pk" if user.is_superuser else "collection_id": collection_id})
            .exists()
        ):
            return role
    return None


def has_role(user: AnyUser, role: Role, *, collection_id: UUID) -> bool:
    held = role_on(user, collection_id)
    return held is not None and held >= role


def manages_any(user: AnyUser) -> bool:
    """Whether there is a collection that ``user`` manages; always true for a superuser."""
    if is_person(user) and user.is_superuser:
        return True
    return collections_with_role(user, Role.MANAGER).exists()


def can_create_collection(user: AnyUser) -> bool:
    """Anybody who can sign in; the creator manages what they made."""
    return is_person(user)


def abilities(role: Role | None) -> dict[str, bool]:
    """What buttons to show: the same answer as the checks give."""
    held = role or 0
    return {
        "read": held >= Role.READER,
        "contribute": held >= Role.CONTRIBUTOR,
        "manage": held >= Role.MANAGER,
    }
