from __future__ import annotations

import time
from argparse import ArgumentParser
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final
from uuid import UUID, uuid4

from django.core.management.base import BaseCommand, CommandError
from django.db import OperationalError, connection
from django.db.models import Q
from tqdm import tqdm

from assistant.documents.actions import Upload, create_collection
from assistant.documents.models import Collection, Document
from assistant.permissions.roles import Role
from assistant.users.models import User
from ingestion.actions import accept_upload
from ingestion.attachments import clean_name
from ingestion.errors import IngestionError
from ingestion.models import OPEN_STATUSES, IngestionJob, JobStatus

_POLL_SECONDS: Final = 0.5
# Longer than a relay, a sweep and a slow parse take together: nobody is working.
_STALLED_SECONDS: Final = 90.0


@dataclass(slots=True)
class _Outcome:
    """``failed`` holds (path, why) of what did not become searchable.

    ``parts`` counts files that came out of the uploaded ones: attachments, members of archives.
    """

    batch: UUID = field(default_factory=uuid4)
    jobs: dict[UUID, str] = field(default_factory=dict)
    parts: int = 0
    failed: list[tuple[str, str]] = field(default_factory=list)


class Command(BaseCommand):
    help = (
        "Upload files and folders into a collection and wait until all of them are searchable."
        " The path below the folder is the external id, so running it again uploads only changes."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("paths", nargs="+", type=Path, metavar="PATH")
        parser.add_argument(
            "--collection", required=True, help="its name or id; made when there is none"
        )
        parser.add_argument(
            "--user", help="e-mail address of who uploads (default: the first administrator)"
        )

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            connection.ensure_connection()
        except OperationalError as error:
            raise CommandError(
                f"The database does not answer ({str(error).strip()}). Start the system with"
                " `make run`, or set DATABASE_URL."
            ) from error
        user = _user(options["user"])
        files = list(_files(options["paths"]))
        if not files:
            raise CommandError("There are no files in what you named.")
        collection = self._collection(options["collection"], user)
        outcome = _Outcome()
        self._upload(files, collection, user, outcome)
        self._wait(outcome)
        total = len(files) + outcome.parts
        ready = total - len(outcome.failed)
        self.stdout.write(f"{ready} of {total} files are searchable in {collection.name}.")
        if outcome.failed:
            for path, why in sorted(outcome.failed):
                self.stderr.write(f"{path}: {why}")
            raise CommandError(f"{len(outcome.failed)} files failed.", returncode=1)

    def _collection(self, name: str, user: User) -> Collection:
        """Among those the user may read; the name must be unmistakable."""
        visible = Collection.objects.for_user(user)
        try:
            found = list(visible.filter(pk=UUID(name)))
            if not found:
                raise CommandError(f"There is no collection {name} that {user} may read.")
        except ValueError:
            found = list(visible.filter(name=name)[:2])
        if len(found) > 1:
            raise CommandError(f"Several collections are named {name!r}. Give the id instead.")
        if not found:
            self.stderr.write(f"Making the collection {name}.")
            return create_collection(name=name, actor=user)
        if not Collection.objects.for_user(user, Role.CONTRIBUTOR).filter(pk=found[0].pk).exists():
            raise CommandError(f"{user} may read {name!r} but not add to it.")
        return found[0]

    def _upload(
        self,
        files: list[tuple[Path, str]],
        collection: Collection,
        user: User,
        outcome: _Outcome,
    ) -> None:
        for path, external_id in tqdm(files, desc="uploading", unit="file"):
            try:
                with path.open("rb") as content:
                    version = accept_upload(
                        collection.pk,
                        Upload(
                            content=content,
                            filename=path.name,
                            media_type="",
                            external_id=external_id,
                            path=clean_name(external_id) if "/" in external_id else "",
                        ),
                        actor=user,
                        batch=outcome.batch,
                    )
            except IngestionError as error:
                outcome.failed.append((external_id, error.detail))
            except OSError as error:
                outcome.failed.append((external_id, error.strerror or str(error)))
            else:
                job = IngestionJob.objects.get(version=version)
                outcome.jobs[job.pk] = external_id

    def _wait(self, outcome: _Outcome) -> None:
        """Until every job has ended. Raises CommandError when nobody works on them."""
        last, moved_at = None, time.monotonic()
        rows = IngestionJob.objects.filter(Q(pk__in=outcome.jobs) | Q(batch=outcome.batch))
        with tqdm(desc="processing", unit="file") as bar:
            while True:
                state = list(rows.values_list("status", "stage_done", "fence"))
                counts = Counter(status for status, _, _ in state)
                still_open = sum(counts[status] for status in OPEN_STATUSES)
                bar.total, bar.n = len(state), len(state) - still_open
                bar.set_postfix({s: n for s, n in counts.items() if s in OPEN_STATUSES})
                if not still_open:
                    break
                if state != last:
                    last, moved_at = state, time.monotonic()
                elif time.monotonic() - moved_at > _STALLED_SECONDS:
                    raise CommandError(
                        f"{still_open} files are stored but nothing works on them. Are the workers"
                        " running? Start them with `make run`; the files wait, none is lost."
                    )
                time.sleep(_POLL_SECONDS)
        outcome.parts = rows.exclude(pk__in=outcome.jobs).count()
        bad = rows.filter(status__in=[JobStatus.FAILED, JobStatus.CANCELLED])
        for job in bad.select_related("version__document__parent"):
            name = outcome.jobs.get(job.pk) or _name_of_part(job.version.document)
            outcome.failed.append((name, job.error_detail or str(job.status)))
        gone = set(outcome.jobs) - set(rows.values_list("pk", flat=True))
        outcome.failed.extend((outcome.jobs[key], "deleted meanwhile") for key in gone)


def _name_of_part(document: Document) -> str:
    """``inbox.zip: letters/mail.eml``."""
    return f"{document.parent.title}: {document.path}" if document.parent else document.title


def _user(email: str | None) -> User:
    if email is None:
        admin = User.objects.filter(is_superuser=True, is_active=True).order_by("created_at")
        if found := admin.first():
            return found
        raise CommandError("There is no administrator yet: run `manage.py ensure_admin`.")
    found = User.objects.filter(email__iexact=email, is_active=True).first()
    if found is None:
        raise CommandError(f"There is no active user {email}.")
    return found


def _files(paths: list[Path]) -> Iterator[tuple[Path, str]]:
    """Files with their external ids; hidden files and folders are left out.

    Raises CommandError for a path that is not there.
    """
    for path in paths:
        if path.is_file():
            yield path, path.name
        elif path.is_dir():
            for file in sorted(path.rglob("*")):
                relative = file.relative_to(path)
                if file.is_file() and not any(part.startswith(".") for part in relative.parts):
                    yield file, relative.as_posix()
        else:
            raise CommandError(f"There is no file or folder {path}.")
