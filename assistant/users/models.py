"""Users sign in by e-mail; API tokens act as their user with fewer scopes."""

from __future__ import annotations

import hashlib
import secrets
import uuid
from datetime import datetime
from functools import cache
from typing import Any, ClassVar

from django.contrib.auth.base_user import AbstractBaseUser, BaseUserManager
from django.contrib.auth.models import PermissionsMixin
from django.contrib.postgres.fields import ArrayField
from django.db import connection, models
from django.db.models.functions import Lower
from django.utils import timezone

from assistant.database import server_cursor


class UserManager(BaseUserManager["User"]):
    def get_by_natural_key(self, username: str | None) -> User:
        return self.get(email__iexact=username)

    def create_user(self, email: str, password: str | None = None, **fields: Any) -> User:
        """Raises ValueError without an e-mail address."""
        if not email:
            raise ValueError("A user needs an e-mail address.")
        user = self.model(email=self.normalize_email(email).lower(), **fields)
        user.set_password(password)
        user.save(using=self._db)
        return user

    def create_superuser(self, email: str, password: str | None = None, **fields: Any) -> User:
        return self.create_user(email, password, is_staff=True, is_superuser=True, **fields)


class User(AbstractBaseUser, PermissionsMixin):
    """A person. Deactivating one ends every session, token and open stream."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    email = models.EmailField(unique=True)
    name = models.CharField(max_length=150, blank=True)
    is_active = models.BooleanField(default=True)
    is_staff = models.BooleanField("may use the administration pages", default=False)
    created_at = models.DateTimeField(default=timezone.now, editable=False)

    USERNAME_FIELD = "email"
    EMAIL_FIELD = "email"
    REQUIRED_FIELDS: ClassVar[list[str]] = []

    objects = UserManager()

    class Meta:
        constraints = [models.UniqueConstraint(Lower("email"), name="user_email_any_case")]

    def __str__(self) -> str:
        return self.email

    @property
    def display_name(self) -> str:
        return self.name or self.email.split("@")[0]


class TokenScope(models.TextChoices):
    READ = "read", "read"  # search, ask, list, download
    WRITE = "write", "write"  # upload, delete, share


class ApiToken(models.Model):
    """A credential for programs. Only its digest is stored; the token is shown once."""

    PREFIX: ClassVar[str] = "ka_"

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    user = models.ForeignKey(User, on_delete=models.CASCADE, related_name="api_tokens")
    name = models.CharField(max_length=100, blank=True)
    digest = models.CharField(max_length=64, unique=True, editable=False)
    hint = models.CharField(max_length=12, editable=False)
    scopes = ArrayField(models.CharField(max_length=10, choices=TokenScope.choices))
    created_at = models.DateTimeField(default=timezone.now, editable=False)
    expires_at = models.DateTimeField(null=True, blank=True)
    revoked_at = models.DateTimeField(null=True, blank=True)
    last_used_at = models.DateTimeField(null=True, blank=True, editable=False)

    class Meta:
        ordering = ["-created_at"]

    def __str__(self) -> str:
        return f"{self.hint}… of {self.user}"

    @staticmethod
    def digest_of(token: str) -> str:
        """256 random bits need no slow hash: there is nothing to guess."""
        return hashlib.sha256(token.encode()).hexdigest()

    @classmethod
    def generate(
        cls,
        user: User,
        *,
        scopes: list[str],
        name: str = "",
        expires_at: datetime | None = None,
    ) -> tuple[ApiToken, str]:
        """Return the stored row and the token itself, which cannot be read again."""
        token = cls.PREFIX + secrets.token_urlsafe(32)
        row = cls.objects.create(
            user=user,
            name=name,
            digest=cls.digest_of(token),
            hint=token[:8],
            scopes=scopes,
            expires_at=expires_at,
        )
        return row, token

    @classmethod
    def resolve(cls, token: str) -> ApiToken | None:
        """The live token of an active user, else None."""
        row = cls._live(cls.digest_of(token))
        now = timezone.now()
        if row is None or (row.expires_at and row.expires_at <= now):
            return None
        if row.last_used_at is None or (now - row.last_used_at).total_seconds() > 60:
            cls.objects.filter(pk=row.pk).update(last_used_at=now)
        return row

    @classmethod
    def _live(cls, digest: str) -> ApiToken | None:
        """Asked with every request: composing the statement anew would take longer than it does."""
        sql, own, names = _live_token_statement()
        with server_cursor() as cursor:
            cursor.execute(sql, [digest])
            values = cursor.fetchone()
        if values is None:
            return None
        row = cls.from_db(connection.alias, own, values[: len(own)])
        row.user = User.from_db(connection.alias, names, values[len(own) :])
        return row


@cache
def _live_token_statement() -> tuple[str, list[str], list[str]]:
    """The statement, whose parameter is a digest; the fields of a token, then of its user."""
    live = ApiToken.objects.filter(digest="", revoked_at=None, user__is_active=True)
    sql, _ = live.select_related("user").order_by().query.sql_with_params()
    own, names = (
        [field.attname for field in model._meta.concrete_fields] for model in (ApiToken, User)
    )
    return sql, own, names
