"""``manage.py restore FILE``: a site from its backup."""

from __future__ import annotations

import tempfile
from argparse import ArgumentParser
from pathlib import Path
from typing import Any

from django.apps import apps
from django.conf import settings
from django.core.management import call_command
from django.core.management.base import BaseCommand, CommandError
from django.db import connection
from django.utils import timezone

from assistant.management.archive import DATABASE, MEDIA, ArchiveError, unpack
from assistant.management.postgres_tools import ToolError, restore_database

# A new site has one account and nothing else; more than that is somebody's work.
_WORK = ("documents.Collection", "documents.Document", "chat.Conversation")


class Command(BaseCommand):
    help = "Bring database and originals back from a file that `backup` wrote."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("file", type=Path)
        parser.add_argument(
            "--force",
            action="store_true",
            help="replace a site that has content; its originals are kept beside the new ones",
        )

    def handle(self, *_args: Any, **options: Any) -> None:
        file: Path = options["file"]
        if not file.is_file():
            raise CommandError(f"There is no file {file}.")
        if not options["force"]:
            self._refuse_if_in_use()
        media = Path(settings.MEDIA_ROOT)
        media.parent.mkdir(parents=True, exist_ok=True)
        # Beside the originals, so that putting them in place is a rename.
        with tempfile.TemporaryDirectory(prefix=".restore-", dir=media.parent) as directory:
            scratch = Path(directory)
            try:
                manifest = unpack(file, scratch)
            except (ArchiveError, OSError) as error:
                raise CommandError(f"{file} cannot be restored: {error}.") from error
            self._check_extensions(manifest)
            connection.close()
            try:
                restore_database(scratch / DATABASE, scratch=scratch)
            except ToolError as error:
                raise CommandError(f"Nothing was changed: {error}") from error
            previous = self._put_in_place(scratch / MEDIA, media)
        # The backup may be of an older version of this code.
        call_command("migrate", interactive=False, verbosity=0)
        counts = ", ".join(
            f"{manifest['counts'].get(name, 0)} {name}"
            for name in ("users", "documents", "conversations")
        )
        self.stdout.write(f"Restored {counts}, as of {manifest['made_at']}.")
        if previous:
            self.stdout.write(f"The originals that were here before are in {previous}.")
        for name, value in manifest["settings"].items():
            if (here := getattr(settings, name, None)) != value:
                self.stdout.write(f"Set differently there: {name} was {value!r}, is {here!r}.")
        self.stdout.write("Restart the assistant now.")

    def _refuse_if_in_use(self) -> None:
        tables = set(connection.introspection.table_names())
        for label in _WORK:
            model = apps.get_model(label)
            if model._meta.db_table in tables and model._base_manager.exists():
                raise CommandError(
                    "This site has content, which a restore would replace. Restore into a new "
                    "DATA_DIR, or make a backup of it first and say --force."
                )
        media = Path(settings.MEDIA_ROOT)
        if any(file.is_file() for file in media.rglob("*")):
            raise CommandError(f"{media} is not empty. Say --force to set its files aside.")

    def _check_extensions(self, manifest: dict[str, Any]) -> None:
        """The dump uses their types; making one may need rights we do not have."""
        with connection.cursor() as cursor:
            cursor.execute("SELECT extname FROM pg_extension")
            present = {name for (name,) in cursor.fetchall()}
        if missing := sorted(set(manifest["versions"]["extensions"]) - present):
            names = ", ".join(missing)
            raise CommandError(
                f"The database lacks {names}. As its superuser: CREATE EXTENSION for each."
            )

    def _put_in_place(self, restored: Path, media: Path) -> Path | None:
        """Swap the originals in by renames. Returns where the previous ones went."""
        previous = None
        if media.exists():
            if any(media.iterdir()):
                previous = media.with_name(f"{media.name}-before-{timezone.now():%Y%m%dT%H%M%S}")
                media.rename(previous)
            else:
                media.rmdir()
        if restored.exists():
            restored.rename(media)
        else:
            media.mkdir()
        return previous
