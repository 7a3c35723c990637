"""The product's worker with a fake embedder; takes the arguments of ``celery -A assistant``."""

from __future__ import annotations

import sys
from functools import cache

import django

from assistant.celery import app


def main() -> None:
    django.setup()
    from assistant import engines
    from inference.fakes import FakeEmbedder

    engines.embedder = cache(FakeEmbedder)
    app.worker_main(sys.argv[1:])


if __name__ == "__main__":
    main()
