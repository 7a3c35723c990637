from __future__ import annotations

from argparse import ArgumentParser
from datetime import timedelta
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.db import transaction
from django.utils import timezone

from assistant.audit.models import record
from assistant.users.models import ApiToken, TokenScope, User


class Command(BaseCommand):
    help = "Make an API token for a user. It is printed once, alone on the last line."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("username", help="the user's e-mail address")
        parser.add_argument(
            "--scope",
            action="append",
            choices=TokenScope.values,
            help="read: search, ask, list, download. write: upload, delete, share. May be given"
            " twice; without it the token has both.",
        )
        parser.add_argument("--name", default="", help="what the token is for")
        parser.add_argument("--expires-days", type=int, help="after how many days it ends")

    def handle(self, *args: Any, **options: Any) -> None:
        email: str = options["username"]
        user = User.objects.filter(email__iexact=email).first()
        if user is None:
            raise CommandError(
                f"There is no user {email}. Make one on the administration pages first."
            )
        if not user.is_active:
            raise CommandError(f"{email} is deactivated: a token would not work.")
        days: int | None = options["expires_days"]
        if days is not None and not 1 <= days <= 3650:
            raise CommandError("--expires-days takes a number from 1 to 3650.")
        with transaction.atomic():
            row, token = ApiToken.generate(
                user,
                scopes=sorted(set(options["scope"] or TokenScope.values)),
                name=options["name"][:100],
                expires_at=timezone.now() + timedelta(days=days) if days else None,
            )
            record(None, "token.create", row, user=user.pk, scopes=row.scopes)
        until = f", until {row.expires_at:%Y-%m-%d %H:%M} UTC" if row.expires_at else ""
        self.stderr.write(f"Token of {user.email} ({', '.join(row.scopes)}{until}). Keep it safe:")
        self.stdout.write(token)
