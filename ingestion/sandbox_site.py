"""Whether this site's parser sandbox holds: asked at the start of a parse worker and by doctor."""

from __future__ import annotations

import logging
import sys
from pathlib import Path

from celery import Celery
from django.conf import settings

from ingestion import outbox, pipeline, sandbox_selftest

log = logging.getLogger(__name__)


def examine() -> sandbox_selftest.Report:
    """Try to break out, to this site's files among others; takes about two seconds."""
    data, base = Path(settings.DATA_DIR), Path(settings.BASE_DIR)
    return sandbox_selftest.run(
        folders=[data, Path(settings.TEMP_DIR)],
        secret_paths=[
            *(data, Path(settings.MEDIA_ROOT), data / "secrets" / "secret-key"),
            *(data / "run" / "services.json", base / ".env", base / "manage.py"),
            Path("/run/secrets"),
        ],
    )


def refuse_unsafe(app: Celery) -> None:
    """A worker that would parse ends here, with sandbox_selftest.EXIT_STATUS, if it is not safe.

    Meanwhile the parsers load, so that the first document does not wait for them.
    """
    if settings.CELERY_TASK_ROUTES[outbox.PARSE_TASK]["queue"] not in app.amqp.queues.consume_from:
        return
    pipeline.sandbox().warm()
    report = examine()
    if not report.problems:
        log.info("the parser sandbox holds (%s)", report.means)
        return
    pipeline.sandbox().close()
    for problem in report.problems:
        log.critical("%s: %s", sandbox_selftest.FAILURE_CODE, problem)
    sys.stderr.write(
        f"{sandbox_selftest.FAILURE_CODE}: this worker does not start, because documents could "
        "break out of the process that reads them.\n"
        + "".join(f"  {problem}\n" for problem in report.problems)
        + "See docs/security.md, The parser sandbox.\n"
    )
    sys.exit(sandbox_selftest.EXIT_STATUS)
