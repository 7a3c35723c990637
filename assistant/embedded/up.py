"""``manage.py up``: everything on one machine, in the foreground, until it is told to stop."""

from __future__ import annotations

import contextlib
import fcntl
import http.client
import json
import os
import signal
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import psutil

from assistant.embedded import leftovers, metrics, preparation
from assistant.embedded.accounts import database_account
from assistant.embedded.config import Config, read_config
from assistant.embedded.console import say
from assistant.embedded.errors import StartError, StopRequested
from assistant.embedded.group import Group
from assistant.embedded.leftovers import Ledger
from assistant.embedded.ports import free_port, is_free, next_free_port
from assistant.embedded.postgres import cluster_home
from assistant.embedded.programs import STOP_STAGES, Programs
from assistant.embedded.secretfiles import read_or_make, write_private

_DATABASE_SECONDS = 120.0  # crash recovery may have to replay 2 GB of write-ahead log
_PREPARE_SECONDS = 3600.0  # a migration may have to rebuild an index
_READY_SECONDS = 180.0
_STORES = frozenset({"postgres", "valkey-server"})


def main(argv: Sequence[str] | None = None) -> int:
    """Run until stopped. 0 after a clean stop, 1 when starting failed; says why."""
    try:
        config = read_config(argv or [])
        make_directories(config)
        with only_one(config):
            return _run(config)
    except StartError as error:
        say(f"Cannot start: {error}")
        return 1


def make_directories(config: Config) -> None:
    """The data directory and its parts. Raises StartError when they cannot be made."""
    try:
        # PostgreSQL runs as another account under root, and has to pass through.
        mode = 0o711 if os.geteuid() == 0 else 0o700
        config.data_dir.mkdir(mode=mode, parents=True, exist_ok=True)
        parts = (config.run_dir, config.log_dir, config.secrets_dir)
        for part in (*parts, config.data_dir / "tmp", config.data_dir / "media"):
            part.mkdir(mode=0o700, exist_ok=True)
    except OSError as error:
        raise StartError(f"Cannot write to the data directory: {error}") from error


@contextlib.contextmanager
def only_one(config: Config) -> Iterator[None]:
    """Hold the data directory. Raises StartError with the address of the run that has it."""
    with (config.run_dir / "up.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            url = read_services(config.run_dir).get("web_url", "an address it has not chosen yet")
            raise StartError(
                f"the assistant is already running on {config.data_dir}, at {url}"
            ) from None
        yield


def read_services(run_dir: Path) -> dict[str, Any]:
    """What a running ``up`` wrote about itself; empty when there is none."""
    try:
        services: dict[str, Any] = json.loads((run_dir / "services.json").read_text())
    except (OSError, ValueError):
        return {}
    return services


def choose_web_port(config: Config) -> int:
    """The wanted port; another one only if nobody asked for it. Raises StartError if taken."""
    if is_free(config.host, config.port):
        return config.port
    other = next_free_port(config.host, config.port + 1)
    if config.port_is_wanted or other is None:
        hint = f" Try `--port {other}`." if other else ""
        raise StartError(
            f"port {config.port} on {config.host} is taken or not allowed.{hint}"
            " With `make run`: `PORT=… make run`."
        )
    say(f"Port {config.port} is taken, using {other}.")
    return other


class _Run:
    """One run: the group and what it needs to know."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.ledger = Ledger(config.run_dir)
        self.group = Group(self.ledger)
        self.programs = Programs(config, run_id=self.ledger.run_id)
        self.ports = _remembered_ports(config.run_dir)
        self.web_port = 0
        self.metrics_dir: Path | None = None
        self._began = False

    def start(self) -> None:
        """Everything up to a page that answers. Raises StartError or StopRequested."""
        began = time.monotonic()
        config = self.config
        _end_leftovers(config)
        metrics.remove_directory(Path(read_services(config.run_dir).get("metrics_dir", "")))
        self.web_port = choose_web_port(config)
        self._began = True
        self.ledger.open()
        self.group.catch_signals()
        secret_key = config.env.get("SECRET_KEY", "").strip()
        self.programs.use(
            {"SECRET_KEY": secret_key or read_or_make(config.secrets_dir, "secret-key")}
        )
        say("Starting.")
        self._start_embeddings()  # first: it takes the longest, beside everything else
        self._start_stores()
        if config.web_processes > 1:
            self.metrics_dir = metrics.make_directory()
        self._write_services()
        self._prepare()
        self.group.start(self.programs.web(port=self.web_port, metrics_dir=self.metrics_dir))
        probe = _Probe(config.host, self.web_port)
        # Workers load the same code as web; at the same time they would only delay it.
        self.group.wait_until(probe.answers, seconds=_READY_SECONDS)
        for worker in self.programs.workers():
            self.group.start(worker)
        if self.group.wait_until(probe.is_ready, seconds=_READY_SECONDS):
            self._greet(time.monotonic() - began)
        else:
            say(f"Still not ready: {probe.answer}")
            say(f"It goes on trying. `manage.py doctor` says more; logs: {config.log_dir}")
        self.group.mark_started()

    def stop(self) -> None:
        """Nothing of this run is left afterwards."""
        if not self._began:
            return
        say("Stopping.")
        self.group.stop(STOP_STAGES)
        if self.metrics_dir is not None:
            metrics.remove_directory(self.metrics_dir)
        (self.config.run_dir / "services.json").unlink(missing_ok=True)
        say("Stopped.")

    def _start_embeddings(self) -> None:
        if self.config.embedding_url:
            return
        port = self._port("embeddings")
        key = read_or_make(self.config.secrets_dir, "embeddings")
        self.programs.use(
            {"EMBEDDING_BASE_URL": f"http://127.0.0.1:{port}/v1", "EMBEDDING_API_KEY": key}
        )
        key_file = self.config.secrets_dir / "embeddings"
        self.group.start(self.programs.embeddings(port=port, api_key_file=key_file))

    def _start_stores(self) -> None:
        config, programs = self.config, self.programs
        valkey = postgres = None
        if not config.redis_url:
            valkey = programs.valkey(
                port=self._port("valkey"), password=read_or_make(config.secrets_dir, "valkey")
            )
            valkey.end_leftovers()
            valkey.initialise()
            self.group.start(valkey.program())
            programs.use({"REDIS_URL": valkey.url})
        if not config.database_url:
            account = database_account()
            home = cluster_home(config.data_dir, account)
            if not home.exists():
                say(f"First start: making the database in {home}")
            postgres = programs.postgres(
                home=home,
                port=self._port("postgres"),
                superuser_password=read_or_make(config.secrets_dir, "postgres-superuser"),
                password=read_or_make(config.secrets_dir, "postgres"),
                account=account,
            )
            postgres.end_leftovers()
            postgres.initialise()
            self.group.start(postgres.program())
            programs.use({"DATABASE_URL": postgres.url})
        for name, service in (("PostgreSQL", postgres), ("Valkey", valkey)):
            if service is not None and not self.group.wait_until(
                service.is_ready, seconds=_DATABASE_SECONDS
            ):
                raise StartError(f"{name} does not answer. Log: {service.log}")
        if postgres is not None:
            postgres.bootstrap()

    def _prepare(self) -> None:
        note = self.config.run_dir / "prepared"
        if (now := self._state()) and note.exists() and note.read_text() == now:
            return
        self.group.run_to_end(self.programs.prepare(), seconds=_PREPARE_SECONDS)
        if state := self._state():
            write_private(note, state)

    def _state(self) -> str | None:
        env = self.programs.env
        return preparation.state(
            self.config.data_dir, database_url=env["DATABASE_URL"], env=self.config.env
        )

    def _write_services(self) -> None:
        """For other commands, such as ``manage.py createtoken`` in another terminal."""
        env = self.programs.env
        services = {
            "database_url": env["DATABASE_URL"],
            "redis_url": env["REDIS_URL"],
            "embedding_url": env["EMBEDDING_BASE_URL"],
            "embedding_api_key": env.get("EMBEDDING_API_KEY", ""),
            "web_port": self.web_port,
            "web_url": web_url(self.config.host, self.web_port),
            "metrics_dir": str(self.metrics_dir or ""),
            "pid": os.getpid(),
        }
        write_private(self.config.run_dir / "services.json", json.dumps(services, indent=1))
        write_private(self.config.run_dir / "ports.json", json.dumps(self.ports))

    def _port(self, name: str) -> int:
        """The port of the last run when it is free, so that addresses rarely change."""
        self.ports[name] = free_port(preferred=self.ports.get(name))
        return self.ports[name]

    def _greet(self, seconds: float) -> None:
        env, data_dir = self.config.env, self.config.data_dir
        say()
        say(f"Ready after {seconds:.0f} s:  {web_url(self.config.host, self.web_port)}")
        email = env.get("ADMIN_EMAIL", "").strip() or "admin@example.com"
        password_file = data_dir / "admin-password"
        if password_file.exists() and not env.get("ADMIN_PASSWORD"):
            say(f"Sign in as {email} with the first password, which is in {password_file}")
        else:
            say(f"Sign in as {email} with the password you set.")
        if not env.get("LLM_BASE_URL", "").strip():
            say("No language model is connected: answers are quotations. See LLM_BASE_URL.")
        say(f"Data and logs: {data_dir}   Ctrl-C stops everything.")


class _Probe:
    """Asks the web process whether it can serve."""

    def __init__(self, host: str, port: int) -> None:
        self._host = _local_name(host)
        self._port = port
        self._next = 0.0
        self.answer = "the web process does not answer"
        self.status = 0

    def answers(self) -> bool:
        """Whether it answers at all, ready or not."""
        return self.is_ready() or self.status > 0

    def is_ready(self) -> bool:
        now = time.monotonic()
        if now < self._next:
            return False
        self._next = now + 0.2
        connection = http.client.HTTPConnection(self._host, self._port, timeout=3)
        try:
            connection.request("GET", "/health/ready", headers={"Host": f"localhost:{self._port}"})
            response = connection.getresponse()
            self.answer = response.read(4096).decode("utf-8", "replace").strip()
            self.status = response.status
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()
        return self.status == 200


def web_url(host: str, port: int) -> str:
    """The address for a browser on this machine."""
    name = _local_name(host)
    return f"http://{f'[{name}]' if ':' in name else name}:{port}/"


def _local_name(host: str) -> str:
    """The address under which a server on ``host`` is reached from here."""
    return {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}.get(host, host)  # noqa: S104


def _run(config: Config) -> int:
    run = _Run(config)
    try:
        try:
            run.start()
            while True:
                run.group.tick(1.0)
        except StopRequested:
            return 0
        finally:
            run.stop()
    finally:
        run.group.release()


def _end_leftovers(config: Config) -> None:
    """Stop what a killed run left running."""
    found = leftovers.find_leftovers(config.run_dir)
    if not found:
        return
    say(f"The last run was killed: stopping {len(found)} processes it left.")
    stores = [process for process in found if _executable(process) in _STORES]
    others = [process for process in found if process not in stores]
    stuck = leftovers.end(others, seconds=2)
    # SIGINT: a fast but orderly shutdown of either, after those who wrote to them.
    stuck += leftovers.end(stores, ask=signal.SIGINT, seconds=60)
    if stuck:
        raise StartError(f"process {stuck[0].pid} of the last run does not end.")


def _executable(process: psutil.Process) -> str:
    try:
        return Path(process.exe()).name
    except (psutil.Error, OSError):
        return ""


def _remembered_ports(run_dir: Path) -> dict[str, int]:
    try:
        ports: Mapping[str, Any] = json.loads((run_dir / "ports.json").read_text())
        return {name: int(port) for name, port in ports.items()}
    except (OSError, ValueError, AttributeError):
        return {}
