"""What ``manage.py up`` was asked to do: arguments over environment over defaults."""

from __future__ import annotations

import argparse
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from assistant.embedded.errors import StartError
from assistant.env import load_env

BASE_DIR = Path(__file__).resolve().parent.parent.parent
DEFAULT_PORT = 8000
# As in assistant/settings.py, which does not know how many web processes there are.
DEFAULT_POOL_SIZE = 20
# Of workers, beat, commands and administrators, beside those of the web processes.
_OTHER_CONNECTIONS = 40

# Libraries read these when they load: nothing is fetched and nothing is reported at run time.
OFFLINE = {
    "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "DO_NOT_TRACK": "1",
    "SCARF_NO_ANALYTICS": "1",
    "UNSTRUCTURED_DISABLE_NOTICE": "1",
    "TOKENIZERS_PARALLELISM": "false",
}


@dataclass(frozen=True, slots=True)
class Config:
    """One run of the process group. URLs that are set are used instead of an embedded service.

    ``database_connections`` is how many PostgreSQL has to take.
    """

    data_dir: Path
    host: str
    port: int
    port_is_wanted: bool
    web_processes: int
    database_connections: int
    env: Mapping[str, str]
    database_url: str
    redis_url: str
    embedding_url: str

    @property
    def run_dir(self) -> Path:
        return self.data_dir / "run"

    @property
    def log_dir(self) -> Path:
        return self.data_dir / "logs"

    @property
    def secrets_dir(self) -> Path:
        return self.data_dir / "secrets"


def argument_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="manage.py up",
        description="Start the assistant and, unless their URLs are set, the services it needs.",
    )
    parser.add_argument("--host", help="address to listen on (default: HOST or 127.0.0.1)")
    parser.add_argument("--port", type=int, help=f"web port (default: PORT or {DEFAULT_PORT})")
    parser.add_argument(
        "--data-dir", type=Path, help="where everything is kept (default: DATA_DIR)"
    )
    return parser


def read_config(argv: Sequence[str], *, base_dir: Path = BASE_DIR) -> Config:
    """Raises StartError for a value that cannot be used, SystemExit for a wrong argument."""
    arguments = argument_parser().parse_args(argv)
    try:
        env = load_env(base_dir)
    except ValueError as error:
        raise StartError(str(error)) from error

    def text(name: str) -> str:
        return env.get(name, "").strip()

    try:
        port = arguments.port or int(text("PORT") or DEFAULT_PORT)
    except ValueError as error:
        raise StartError(f"PORT must be a number, not {text('PORT')!r}.") from error
    if not 0 < port < 65536:
        raise StartError(f"{port} is not a port: choose one from 1 to 65535.")

    def number(name: str, default: int, *, low: int, high: int) -> int:
        value = text(name) or str(default)
        if not value.isdecimal() or not low <= int(value) <= high:
            raise StartError(f"{name} must be a number from {low} to {high}, not {value!r}.")
        return int(value)

    web_processes = number("WEB_CONCURRENCY", min(4, cores()), low=1, high=64)
    pool_size = number("DATABASE_POOL_SIZE", DEFAULT_POOL_SIZE, low=0, high=1000)
    data_dir = arguments.data_dir or Path(text("DATA_DIR") or base_dir / ".data")
    return Config(
        data_dir=data_dir.expanduser().resolve(),
        host=arguments.host or text("HOST") or "127.0.0.1",
        port=port,
        port_is_wanted=bool(arguments.port or text("PORT")),
        web_processes=web_processes,
        # Without a pool there are as many threads that query.
        database_connections=web_processes * (pool_size or DEFAULT_POOL_SIZE) + _OTHER_CONNECTIONS,
        env=env,
        database_url=text("DATABASE_URL"),
        redis_url=text("REDIS_URL"),
        embedding_url=text("EMBEDDING_BASE_URL"),
    )


def cores() -> int:
    """Processor cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
