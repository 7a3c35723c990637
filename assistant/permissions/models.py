from __future__ import annotations

from django.contrib.auth.models import Group
from django.db import models
from django.db.models import Q
from django.utils import timezone

from assistant.permissions.roles import Role
from assistant.users.models import User


class Grant(models.Model):
    """Gives one user, one group or everyone who can sign in a role on a Collection."""

    collection = models.ForeignKey(
        "documents.Collection", on_delete=models.CASCADE, related_name="grants"
    )
    user = models.ForeignKey(
        User, on_delete=models.CASCADE, null=True, blank=True, related_name="grants"
    )
    group = models.ForeignKey(
        Group, on_delete=models.CASCADE, null=True, blank=True, related_name="grants"
    )
    everyone = models.BooleanField(default=False)
    role = models.PositiveSmallIntegerField(choices=Role.choices)
    created_at = models.DateTimeField(default=timezone.now, editable=False)

    class Meta:
        constraints = [
            models.CheckConstraint(
                name="grant_has_one_subject",
                condition=(
                    Q(user__isnull=False, group__isnull=True, everyone=False)
                    | Q(user__isnull=True, group__isnull=False, everyone=False)
                    | Q(user__isnull=True, group__isnull=True, everyone=True)
                ),
            ),
            models.UniqueConstraint(
                fields=["collection", "user"],
                name="grant_once_a_user",
                condition=Q(user__isnull=False),
            ),
            models.UniqueConstraint(
                fields=["collection", "group"],
                name="grant_once_a_group",
                condition=Q(group__isnull=False),
            ),
            models.UniqueConstraint(
                fields=["collection"], name="grant_once_everyone", condition=Q(everyone=True)
            ),
        ]

    def __str__(self) -> str:
        return f"{self.subject}: {self.get_role_display()}"

    @property
    def subject(self) -> str:
        if self.everyone:
            return "everyone"
        return str(self.user or self.group)
