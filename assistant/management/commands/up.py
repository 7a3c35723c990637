"""``manage.py up``, for ``manage.py help``.

``manage.py`` itself hands ``up`` to :func:`assistant.embedded.main` before Django is set up, as the
settings need addresses and a key that only ``up`` makes.
"""

from __future__ import annotations

import sys
from typing import Any

from django.core.management.base import BaseCommand, CommandParser

from assistant.embedded import main


class Command(BaseCommand):
    help = "Start the assistant with everything it needs, until Ctrl-C."
    requires_system_checks = []

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--host", help="address to listen on (default: HOST or 127.0.0.1)")
        parser.add_argument("--port", type=int, help="web port (default: PORT or 8000)")
        parser.add_argument("--data-dir", help="where everything is kept (default: DATA_DIR)")

    def handle(self, *_args: Any, **options: Any) -> None:
        arguments = []
        for name in ("host", "port", "data_dir"):
            if options[name] is not None:
                arguments += [f"--{name.replace('_', '-')}", str(options[name])]
        sys.exit(main(arguments))
