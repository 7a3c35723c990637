from __future__ import annotations

import os
import secrets
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.exceptions import ValidationError
from django.core.management.base import BaseCommand, CommandError
from django.core.validators import validate_email
from django.db import connection, transaction

from assistant.audit.models import record
from assistant.users.models import User


class Command(BaseCommand):
    help = (
        "Make the first administrator from ADMIN_EMAIL and ADMIN_PASSWORD, unless there is one."
        " Without a password one is made and written to DATA_DIR/admin-password."
    )

    def handle(self, *args: Any, **options: Any) -> None:
        email: str = settings.ADMIN_EMAIL
        try:
            validate_email(email)
        except ValidationError:
            raise CommandError(f"ADMIN_EMAIL is no e-mail address: {email!r}.") from None
        with transaction.atomic(), connection.cursor() as cursor:
            # Two processes may start a new site at the same moment.
            cursor.execute("SELECT pg_advisory_xact_lock(hashtext('ensure-admin'))")
            if User.objects.filter(is_superuser=True).exists():
                return
            if User.objects.filter(email__iexact=email).exists():
                raise CommandError(
                    f"{email} exists but is no administrator. Choose another ADMIN_EMAIL."
                )
            password = settings.ADMIN_PASSWORD or self._stored_password()
            user = User.objects.create_superuser(email, password)
            record(None, "user.create_first_admin", user)
        self.stderr.write(f"Made the administrator {email}.")

    def _stored_password(self) -> str:
        """A new password, on disk before the account that has it exists."""
        file: Path = settings.DATA_DIR / "admin-password"
        password = secrets.token_urlsafe(12)
        file.unlink(missing_ok=True)
        descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w", encoding="ascii") as stream:
            stream.write(password + "\n")
        self.stderr.write(f"Its password is in {file}")
        return password
