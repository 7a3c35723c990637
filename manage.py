#!/usr/bin/env python
"""Command line of the project. ``up`` runs before Django: it starts what Django connects to."""

import os
import sys
from pathlib import Path


def main() -> None:
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "assistant.settings")
    if sys.argv[1:2] == ["up"]:
        from assistant.embedded import main as up

        sys.exit(up(sys.argv[2:]))
    sys.path.insert(0, str(Path(__file__).resolve().parent))
    from django.core.management import execute_from_command_line

    execute_from_command_line(sys.argv)


if __name__ == "__main__":
    main()
