"""Changing who may do what. Each change is checked, written and recorded in one transaction."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from uuid import UUID

from django.contrib.auth.models import Group
from django.core.exceptions import ValidationError
from django.db import transaction

from assistant.audit.models import record
from assistant.permissions.models import Grant
from assistant.permissions.roles import Role
from assistant.users.models import User


@dataclass(frozen=True, slots=True)
class GrantSpec:
    """One line of an access list, by name as people write it."""

    role: Role
    user: str | None = None
    group: str | None = None
    everyone: bool = False


def replace_grants(collection_id: UUID, specs: Iterable[GrantSpec], *, actor: User) -> list[Grant]:
    """Make ``specs`` the whole access list of a collection. The caller checked MANAGER.

    Raises ValidationError for an unknown user or group, a subject named twice, or a list without
    any manager, which nobody but a superuser could repair.
    """
    rows: dict[object, Grant] = {}
    problems: list[str] = []
    for spec in specs:
        grant = Grant(collection_id=collection_id, role=spec.role, everyone=spec.everyone)
        if spec.user is not None:
            grant.user = User.objects.filter(email__iexact=spec.user, is_active=True).first()
            if grant.user is None:
                problems.append(f"There is no active user {spec.user}.")
                continue
        elif spec.group is not None:
            grant.group = Group.objects.filter(name=spec.group).first()
            if grant.group is None:
                problems.append(f"There is no group {spec.group}.")
                continue
        key = (grant.user_id, grant.group_id, grant.everyone)
        if key in rows:
            problems.append(f"{grant.subject} is named twice.")
        rows[key] = grant
    if not problems and not any(
        row.role == Role.MANAGER and not row.everyone for row in rows.values()
    ):
        problems.append("Name at least one user or group as manager.")
    if problems:
        raise ValidationError({"grants": problems})
    with transaction.atomic():
        Grant.objects.filter(collection_id=collection_id).delete()
        Grant.objects.bulk_create(rows.values())
        record(
            actor,
            "grants.replace",
            collection_id=collection_id,
            grants=[
                {
                    "user": row.user_id,
                    "group": row.group_id,
                    "everyone": row.everyone,
                    "role": Role(row.role).slug,
                }
                for row in rows.values()
            ],
        )
    return list(rows.values())


def grant_role(collection_id: UUID, *, user: User, role: Role, actor: User) -> Grant:
    """Give one user a role on a collection; the caller checked that ``actor`` may."""
    with transaction.atomic():
        grant, _ = Grant.objects.update_or_create(
            collection_id=collection_id, user=user, defaults={"role": role}
        )
        record(actor, "grants.add", collection_id=collection_id, user=user.pk, role=role.slug)
    return grant
