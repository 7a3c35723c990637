"""The product's worker with ``tests.chaos.poison`` as parser; takes Celery's own arguments."""

from __future__ import annotations

import sys
from functools import cache

from assistant.celery import app


def main() -> None:
    import django

    django.setup()
    from ingestion import pipeline
    from ingestion.sandbox import Sandbox

    pipeline.sandbox = cache(lambda: Sandbox(parser="tests.chaos.poison:parse"))
    arguments = sys.argv[1:]
    app.worker_main(arguments[arguments.index("worker") :])


if __name__ == "__main__":
    main()
