"""``manage.py up`` whose parse worker knows poison, and whose broker can be behind a proxy.

CHAOS_BROKER_PORT: where every part but the servers themselves finds the broker.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable

from assistant.embedded import commands, main
from assistant.embedded.valkey import Valkey


def _with_poison(command: Callable[..., list[str]]) -> Callable[..., list[str]]:
    def changed(python: str, *, concurrency: int) -> list[str]:
        return [
            "tests.chaos.worker" if word == "celery" else word
            for word in command(python, concurrency=concurrency)
        ]

    return changed


def _install() -> None:
    commands.parse_worker = _with_poison(commands.parse_worker)
    if port := os.environ.get("CHAOS_BROKER_PORT"):
        direct = Valkey.url.fget  # type: ignore[attr-defined]
        Valkey.url = property(  # type: ignore[method-assign, assignment]
            lambda self: direct(self).replace(f":{self.port}/", f":{port}/")
        )


if __name__ == "__main__":
    _install()
    sys.exit(main(sys.argv[1:]))
