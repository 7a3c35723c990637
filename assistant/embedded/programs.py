"""The programs of one run: who gets which environment, log, priority and time to stop."""

from __future__ import annotations

import signal
import socket
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from assistant.embedded import commands, metrics
from assistant.embedded.accounts import Account
from assistant.embedded.config import BASE_DIR, OFFLINE, Config, cores
from assistant.embedded.leftovers import RUN_ID
from assistant.embedded.postgres import Postgres
from assistant.embedded.processes import Program
from assistant.embedded.valkey import Valkey

# What is stopped when: the first stage stops together, then the next. Requests and tasks finish
# while models and databases still answer.
STOP_STAGES: Sequence[Sequence[str]] = (
    ("prepare", "web", "worker-parse", "worker-embed", "beat"),
    ("embeddings",),
    ("valkey", "postgres"),
)


class Programs:
    """Builds each program for one configuration and one set of addresses."""

    def __init__(self, config: Config, *, run_id: str) -> None:
        self._config = config
        self._env: dict[str, str] = {
            **config.env,
            **OFFLINE,
            "DATA_DIR": str(config.data_dir),
            "PYTHONUNBUFFERED": "1",
            RUN_ID: run_id,
        }

    def use(self, addresses: Mapping[str, str]) -> None:
        """Set variables, such as DATABASE_URL, for every program built from now on."""
        self._env.update(addresses)

    @property
    def env(self) -> Mapping[str, str]:
        return self._env

    def log(self, name: str) -> Path:
        return self._config.log_dir / f"{name}.log"

    def embeddings(self, *, port: int, api_key_file: Path) -> Program:
        model = self._config.env.get("EMBEDDING_MODEL", "").strip()
        reranker = self._config.env.get("RERANKER_MODEL", "").strip()
        is_elsewhere = bool(self._config.env.get("RERANKER_BASE_URL", "").strip())
        # The model server is given no address, key or password: it needs none.
        env = {name: value for name, value in self._env.items() if name not in _SECRETS}
        return self._program(
            "embeddings",
            commands.embedding_server(
                sys.executable,
                host="127.0.0.1",
                port=port,
                model=model,
                reranker="" if is_elsewhere else reranker,
                api_key_file=str(api_key_file),
            ),
            env=env,
            stop_seconds=3,  # it holds nothing; while it loads the model it does not listen
        )

    def prepare(self) -> Program:
        return self._program("prepare", commands.prepare(sys.executable))

    def web(self, *, port: int, metrics_dir: Path | None) -> Program:
        """``metrics_dir`` is where its processes add up what each counts; None for a single one."""
        shared = {} if metrics_dir is None else {metrics.VARIABLE: str(metrics_dir)}
        return self._program(
            "web",
            commands.web(
                sys.executable,
                host=self._config.host,
                port=port,
                processes=self._config.web_processes,
            ),
            env={**self._env, "PORT": str(port), **shared},
            stop_seconds=commands.WEB_SILENT_SECONDS + commands.WEB_GRACE_SECONDS + 5,
        )

    def workers(self) -> list[Program]:
        """Workers and beat, below the priority of web and models, so that readers go first."""
        parse = commands.parse_worker(sys.executable, concurrency=parse_concurrency())
        schedule = self._config.run_dir / "beat-schedule"
        return [
            self._program(
                "worker-embed",
                commands.embed_worker(sys.executable),
                niceness=5,
                stop_seconds=20,
                sign_of_life=self._sign_of(commands.EMBED_WORKER),
            ),
            self._program(
                "worker-parse",
                parse,
                niceness=10,
                stop_seconds=20,
                sign_of_life=self._sign_of(commands.PARSE_WORKER),
            ),
            self._program(
                "beat",
                commands.beat(sys.executable, schedule=schedule),
                niceness=5,
                sign_of_life=schedule,
                silent_seconds=600,  # it saves its schedule every three minutes
            ),
        ]

    def postgres(
        self,
        *,
        home: Path,
        port: int,
        superuser_password: str,
        password: str,
        account: Account | None,
    ) -> Postgres:
        return Postgres(
            home=home,
            port=port,
            log=self.log("postgres"),
            superuser_password=superuser_password,
            password=password,
            account=account,
            connections=self._config.database_connections,
            base_env=self._env,
        )

    def valkey(self, *, port: int, password: str) -> Valkey:
        return Valkey(
            data=self._config.data_dir / "valkey",
            config=self._config.run_dir / "valkey.conf",
            port=port,
            log=self.log("valkey"),
            password=password,
            base_env=self._env,
        )

    def _program(
        self,
        name: str,
        argv: Sequence[str],
        *,
        env: Mapping[str, str] | None = None,
        niceness: int = 0,
        stop_seconds: float = 10.0,
        sign_of_life: Path | None = None,
        silent_seconds: float = 100.0,
    ) -> Program:
        return Program(
            name=name,
            argv=tuple(argv),
            env=dict(env if env is not None else self._env),
            cwd=BASE_DIR,
            log=self.log(name),
            stop_signal=signal.SIGTERM,
            stop_seconds=stop_seconds,
            niceness=niceness,
            sign_of_life=sign_of_life,
            silent_seconds=silent_seconds,
        )

    def _sign_of(self, worker: str) -> Path:
        """The file that ``ingestion.pulse`` touches; named as Celery expands ``NAME@%h``."""
        return self._config.run_dir / "workers" / f"{worker}@{socket.gethostname()}"


_SECRETS = frozenset(
    {
        "ADMIN_PASSWORD",
        "DATABASE_URL",
        "EMBEDDING_API_KEY",
        "LLM_API_KEY",
        "METRICS_TOKEN",
        "REDIS_URL",
        "RERANKER_API_KEY",
        "SECRET_KEY",
    }
)


def parse_concurrency() -> int:
    """Files parsed at once: as many as there are cores for us, at most four, and an attached one.

    See ``ingestion.slots``.
    """
    return 1 + min(4, cores())
