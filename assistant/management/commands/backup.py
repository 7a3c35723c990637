"""``manage.py backup FILE``: everything a site needs to come back."""

from __future__ import annotations

import os
import platform
import tempfile
from argparse import ArgumentParser
from importlib import metadata
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError
from django.db import connection
from django.utils import timezone

from assistant.chat.models import Conversation
from assistant.documents.models import Document
from assistant.management.archive import DATABASE, MEDIA, Writer
from assistant.management.postgres_tools import ToolError, dump_database
from assistant.users.models import User

# What a person needs to set up the same site again. None of these is a secret.
_SETTINGS = (
    *("ADMIN_EMAIL", "ALLOWED_HOSTS", "EMBEDDING_MODEL", "LLM_MODEL", "MAX_UPLOAD_MB"),
    *("RERANKER_MODEL", "SITE_NAME"),
)


class Command(BaseCommand):
    help = "Write database, originals and a manifest to one file. The site may keep running."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("file", type=Path, help="file to write, such as site.backup.tar")
        parser.add_argument("--force", action="store_true", help="replace FILE if it exists")

    def handle(self, *_args: Any, **options: Any) -> None:
        file: Path = options["file"]
        if file.exists() and not options["force"]:
            raise CommandError(f"{file} exists. Choose another name, or say --force.")
        partial = file.with_name(f".{file.name}.partial")
        try:
            # It holds every document of the site: for its owner alone from the first byte on.
            descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            with os.fdopen(descriptor, "wb") as stream:
                originals, gone = self._write(Writer(stream))
                stream.flush()
                os.fsync(stream.fileno())
            partial.replace(file)
        except (OSError, ToolError) as error:
            raise CommandError(f"No backup was made: {error}") from error
        finally:
            partial.unlink(missing_ok=True)
        size = file.stat().st_size / 1e6
        self.stdout.write(f"{file}: {size:.1f} MB, {originals} originals and the database.")
        if gone:
            self.stdout.write(f"{gone} originals were deleted while the backup ran.")
        self.stdout.write("Passwords and keys of the environment are not in it; keep them apart.")

    def _write(self, writer: Writer) -> tuple[int, int]:
        """Returns how many originals were written, and how many vanished meanwhile.

        The database goes first: an original that is uploaded afterwards is spare, whereas a row
        without its original would be a loss.
        """
        about = self._about()
        with tempfile.TemporaryDirectory(prefix="backup-") as scratch:
            dump = Path(scratch) / DATABASE
            dump_database(dump)
            writer.add(DATABASE, dump)
        media = Path(settings.MEDIA_ROOT)
        gone = 0
        for file in sorted(media.rglob("*")):
            try:
                if file.is_file() and not file.is_symlink():
                    writer.add(f"{MEDIA}/{file.relative_to(media).as_posix()}", file)
            except FileNotFoundError:
                gone += 1
        writer.finish(about)
        return len(writer.members) - 1, gone

    def _about(self) -> dict[str, Any]:
        with connection.cursor() as cursor:
            cursor.execute("SELECT extname, extversion FROM pg_extension ORDER BY extname")
            extensions = dict(cursor.fetchall())
            cursor.execute("SHOW server_version")
            server = cursor.fetchone()[0]
        return {
            "made_at": timezone.now().isoformat(),
            "versions": {
                "python": platform.python_version(),
                "django": metadata.version("django"),
                "postgresql": server,
                "extensions": extensions,
            },
            "settings": {name: getattr(settings, name) for name in _SETTINGS},
            "counts": {
                "users": User.objects.count(),
                "documents": Document.objects.count(),
                "conversations": Conversation.objects.count(),
            },
        }
