"""``manage.py prepare``: what has to be done once after an install or an upgrade."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.core.management import call_command
from django.core.management.base import BaseCommand, CommandError

from assistant.chat.instructing import note_site_instructions
from assistant.retrieval import row_security


class Command(BaseCommand):
    help = "Migrate the database, collect static files, make the first administrator. Repeatable."

    def handle(self, *_args: Any, **options: Any) -> None:
        verbosity = options["verbosity"]
        for directory in (settings.MEDIA_ROOT, settings.TEMP_DIR):
            Path(directory).mkdir(mode=0o750, parents=True, exist_ok=True)
        call_command("migrate", interactive=False, verbosity=verbosity)
        if gap := row_security.find_gap():
            if settings.ROW_SECURITY == "require":
                raise CommandError(
                    f"{gap} Or set ROW_SECURITY=warn to run without this second net"
                    " (docs/security.md, The second net)."
                )
            self.stderr.write(self.style.WARNING(f"{gap} ROW_SECURITY is warn: going on."))
        try:
            note_site_instructions()
        except ImproperlyConfigured as error:
            raise CommandError(str(error)) from error
        call_command("collectstatic", interactive=False, verbosity=0)
        call_command("ensure_admin", verbosity=verbosity)
