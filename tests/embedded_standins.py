"""``manage.py up`` with real PostgreSQL and Valkey, and small stand-ins for everything else.

    python -m tests.embedded_standins --data-dir DIR --port N

Starts in two seconds, so that supervision can be tested many times. ``tests/test_up.py`` starts
the real parts.
"""

from __future__ import annotations

import sys
from typing import Any

from assistant.embedded import commands, main

# Leaves a grandchild in its process group, as a worker that parses a file does.
_IDLE = """
import os, signal, subprocess, sys, time
if os.environ.get("STUBBORN"):
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
print("ready", flush=True)
time.sleep(600)
"""
_WEB = """
import http.server, sys
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200 if self.path == "/health/ready" else 404)
        self.end_headers()
    def log_message(self, *args):
        pass
http.server.HTTPServer((sys.argv[1], int(sys.argv[2])), Handler).serve_forever()
"""
# What `manage.py prepare` leaves behind, as far as `up` looks at it.
_PREPARE = """
import os, pathlib, psycopg, sys
if os.environ.get("PREPARE_FAILS"):
    sys.exit("this is why")
with psycopg.connect(os.environ["DATABASE_URL"]) as connection:
    connection.execute("CREATE TABLE IF NOT EXISTS django_migrations (app text, name text)")
    connection.execute("CREATE TABLE IF NOT EXISTS runs (at timestamptz DEFAULT now())")
    connection.execute("INSERT INTO runs DEFAULT VALUES")
    connection.execute("INSERT INTO django_migrations SELECT 'a', '1'"
                       " WHERE NOT EXISTS (SELECT FROM django_migrations)")
pathlib.Path(os.environ["DATA_DIR"], "static").mkdir(exist_ok=True)
"""


def _idle(python: str, **_: Any) -> list[str]:
    return [python, "-c", _IDLE]


def _web(python: str, *, host: str, port: int, processes: int) -> list[str]:
    return [python, "-c", _WEB, host, str(port)]


def _prepare(python: str) -> list[str]:
    return [python, "-c", _PREPARE]


def _install() -> None:
    for name in ("parse_worker", "embed_worker", "beat", "embedding_server"):
        setattr(commands, name, _idle)
    for name, standin in (("web", _web), ("prepare", _prepare)):
        setattr(commands, name, standin)


if __name__ == "__main__":
    _install()
    sys.exit(main(sys.argv[1:]))
