"""docker-compose.yml, the Dockerfile and ``manage.py up`` describe one and the same system."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import yaml
from django.conf import settings

from assistant.embedded import commands, metrics
from assistant.embedded.config import OFFLINE
from assistant.embedded.memory import database_settings
from assistant.embedded.postgres import ALLOCATOR, DATABASE, EXTENSIONS, MAJOR

ROOT = Path(__file__).resolve().parent.parent
SECRETS = {name: f"{name.lower()}-{'x' * 40}" for name in ("SECRET_KEY",)} | {
    "POSTGRES_PASSWORD": "postgres-secret",
    "VALKEY_PASSWORD": "valkey-secret",
}
APP = {"prepare", "web", "worker-parse", "worker-embed", "beat"}
_VARIABLE = re.compile(r"\$\{(?P<name>\w+)(?::(?P<kind>[-?])(?P<word>[^}]*))?\}")


def _substitute(text: str, env: dict[str, str]) -> str:
    """What compose makes of ``${NAME}``, ``${NAME:-default}`` and ``${NAME:?message}``."""

    def value(match: re.Match[str]) -> str:
        name, kind, word = match["name"], match["kind"], match["word"]
        if kind == "?" and name not in env:
            raise KeyError(f"{name}: {word}")
        return env.get(name) or (word or "" if kind == "-" else "")

    return _VARIABLE.sub(value, text)


def _compose(env: dict[str, str]) -> dict[str, Any]:
    text = (ROOT / "docker-compose.yml").read_text(encoding="utf-8")
    compose: dict[str, Any] = yaml.safe_load(_substitute(text, env))
    return compose


@pytest.fixture(scope="module")
def services() -> dict[str, Any]:
    found: dict[str, Any] = _compose(SECRETS)["services"]
    return found


def test_every_command_is_the_one_that_up_runs(services: dict[str, Any]) -> None:
    assert {name: services[name]["command"] for name in (*sorted(APP), "embeddings")} == {
        "prepare": commands.prepare("python"),
        "web": commands.web("python", host="0.0.0.0", port=8000, processes=2),
        "worker-parse": commands.parse_worker("python", concurrency=5),
        "worker-embed": commands.embed_worker("python"),
        "beat": commands.beat("python", schedule=Path("/tmp/beat-schedule")),
        "embeddings": commands.embedding_server("python", host="0.0.0.0", port=8001),
    }


def test_every_queue_has_a_worker() -> None:
    served = {*commands.PARSE_QUEUES.split(","), *commands.EMBED_QUEUES.split(",")}
    routed = {route["queue"] for route in settings.CELERY_TASK_ROUTES.values()}
    assert routed | {settings.CELERY_TASK_DEFAULT_QUEUE} == served


def test_addresses_name_services_that_listen_there(services: dict[str, Any]) -> None:
    environment = services["web"]["environment"]
    database = urlsplit(environment["DATABASE_URL"])
    assert (database.hostname, database.port) == ("postgres", 5432)
    assert (database.username, database.path) == (DATABASE, f"/{DATABASE}")
    assert database.password == SECRETS["POSTGRES_PASSWORD"]

    broker = urlsplit(environment["REDIS_URL"])
    valkey = services["valkey"]["command"]
    assert (broker.hostname, str(broker.port)) == ("valkey", _option(valkey, "--port"))
    assert broker.password == SECRETS["VALKEY_PASSWORD"] == _option(valkey, "--requirepass")

    embeddings = urlsplit(environment["EMBEDDING_BASE_URL"])
    listening = _option(services["embeddings"]["command"], "--port")
    assert (embeddings.hostname, str(embeddings.port)) == ("embeddings", listening)

    upstream = re.search(r"server (\S+):(\d+);", _proxy_configuration())
    assert upstream is not None
    assert upstream.groups() == ("web", _option(services["web"]["command"], "--port"))
    assert environment["PORT"] == _option(services["web"]["command"], "--port")
    listen = re.search(r"listen (\d+);", _proxy_configuration())
    assert listen is not None
    assert services["proxy"]["ports"] == [f"8000:{listen[1]}"]


def test_health_checks_ask_the_port_that_is_listened_on(services: dict[str, Any]) -> None:
    for name, path in {"web": "/health/ready", "embeddings": "/health", "vllm": "/health"}.items():
        port = _option(services[name]["command"], "--port")
        assert f"'http://127.0.0.1:{port}{path}'" in services[name]["healthcheck"]["test"][-1]
    for name in ("worker-parse", "worker-embed"):
        node = _option(services[name]["command"], "-n").replace("%h", "$$HOSTNAME")
        assert (
            f"find /data/run/workers/{node} -mmin -2" in services[name]["healthcheck"]["test"][-1]
        )
    schedule = Path(_option(services["beat"]["command"], "--schedule"))
    beat = services["beat"]["healthcheck"]["test"][-1]
    assert f"find {schedule.parent} -name '{schedule.name}*'" in beat
    assert all("healthcheck" in service for service in services.values())


def test_every_dependency_is_waited_for(services: dict[str, Any]) -> None:
    for name, service in services.items():
        for other, how in service.get("depends_on", {}).items():
            assert other in services, (name, other)
            expected = "service_completed_successfully" if other == "prepare" else "service_healthy"
            assert how["condition"] == expected, (name, other)
    for name in APP - {"prepare"}:
        assert "prepare" in services[name]["depends_on"]


def test_every_variable_is_one_the_settings_read(services: dict[str, Any]) -> None:
    source = (ROOT / "assistant" / "settings.py").read_text(encoding="utf-8")
    # Read by uvicorn and prometheus_client themselves, not by the settings.
    others = {"FORWARDED_ALLOW_IPS", metrics.VARIABLE}
    for name in services["web"]["environment"]:
        assert f'"{name}"' in source or name in others, name
    example = (ROOT / ".env.example").read_text(encoding="utf-8")
    named = set(re.findall(r"^#?([A-Z_]+)=", example, re.MULTILINE))
    only_here = {"POSTGRES_PASSWORD", "VALKEY_PASSWORD", "WEB_CONCURRENCY"}
    for name in named - only_here:
        assert f'"{name}"' in source, name


@pytest.mark.parametrize("missing", sorted(SECRETS))
def test_nothing_starts_without_its_secrets(missing: str) -> None:
    rest = {name: value for name, value in SECRETS.items() if name != missing}
    with pytest.raises(KeyError, match=missing):
        _compose(rest)


def test_the_health_check_is_an_allowed_host(services: dict[str, Any]) -> None:
    assert "127.0.0.1" in services["web"]["environment"]["ALLOWED_HOSTS"].split(",")


def test_there_are_as_many_web_processes_and_connections_as_one_asks_for() -> None:
    many = _compose({**SECRETS, "WEB_CONCURRENCY": "6", "POSTGRES_MAX_CONNECTIONS": "160"})
    assert _option(many["services"]["web"]["command"], "--workers") == "6"
    assert "max_connections=160" in many["services"]["postgres"]["command"]


def test_the_web_processes_count_in_memory_and_only_they(services: dict[str, Any]) -> None:
    folder = services["web"]["environment"][metrics.VARIABLE]
    options = [mount for mount in services["web"]["tmpfs"] if mount.startswith(f"{folder}:")]
    assert len(options) == 1
    dockerfile = (ROOT / "Dockerfile").read_text(encoding="utf-8")
    user = re.search(r"^USER (\d+):(\d+)$", dockerfile, re.MULTILINE)
    assert user is not None
    assert options[0].endswith(f"mode=0700,uid={user[1]},gid={user[2]}")
    # What all parts of the application have, the web process has too.
    assert set(services["beat"]["tmpfs"]) <= set(services["web"]["tmpfs"])
    others = set(services) - {"web"}
    assert not any(metrics.VARIABLE in services[name].get("environment", {}) for name in others)
    assert metrics.VARIABLE not in dockerfile


def test_the_web_processes_get_their_time_to_stop(services: dict[str, Any]) -> None:
    given = int(services["web"]["stop_grace_period"].removesuffix("s"))
    assert given >= commands.WEB_SILENT_SECONDS + commands.WEB_GRACE_SECONDS + 5


def test_the_upload_limit_is_the_same_everywhere(services: dict[str, Any]) -> None:
    source = (ROOT / "assistant" / "settings.py").read_text(encoding="utf-8")
    for name in ("web", "proxy"):
        default = services[name]["environment"]["MAX_UPLOAD_MB"]
        assert f'MAX_UPLOAD_MB = _int("MAX_UPLOAD_MB", {default})' in source
    assert "client_max_body_size ${MAX_UPLOAD_MB}m;" in _proxy_configuration()


def test_the_proxy_does_not_hold_back_event_streams() -> None:
    configuration = _proxy_configuration()
    for directive in ("proxy_buffering off;", "proxy_request_buffering off;", "gzip off;"):
        assert directive in configuration
    # A client must not be able to say who it is.
    assert "proxy_set_header X-Forwarded-For $remote_addr;" in configuration


def test_valkey_keeps_what_it_is_given(services: dict[str, Any]) -> None:
    command = services["valkey"]["command"]
    assert _option(command, "--appendonly") == "yes"
    assert _option(command, "--maxmemory-policy") == "noeviction"


def test_postgres_is_the_embedded_one_in_a_container(services: dict[str, Any]) -> None:
    postgres = services["postgres"]
    assert postgres["image"] == f"pgvector/pgvector:pg{MAJOR}"
    script = (ROOT / "docker" / "postgres-init.sh").read_text(encoding="utf-8")
    assert tuple(re.findall(r"^CREATE EXTENSION (\w+);", script, re.MULTILINE)) == EXTENSIONS
    assert f"CREATE ROLE {DATABASE} LOGIN NOSUPERUSER" in script
    assert ALLOCATOR.items() <= postgres["environment"].items()
    embedded = database_settings()
    given = dict(word.split("=", 1) for word in postgres["command"] if "=" in word)
    fitted = {"shared_buffers", "maintenance_work_mem"}
    assert {k: v for k, v in given.items() if k not in fitted} == {
        k: embedded[k] for k in given if k not in fitted
    }


def test_hostile_files_are_parsed_where_nothing_leads_outside(services: dict[str, Any]) -> None:
    networks = _compose(SECRETS)["networks"]
    inside = {name for name, network in networks.items() if network.get("internal")}
    for name in set(services) - {"web", "proxy"}:
        assert set(services[name]["networks"]) <= inside, name
    assert "edge" not in services["web"]["networks"]
    assert [name for name, service in services.items() if "ports" in service] == ["proxy"]


def test_containers_have_no_more_power_than_they_need(services: dict[str, Any]) -> None:
    for name, service in services.items():
        assert service["read_only"] is True, name
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert "privileged" not in service, name
    assert [name for name, service in services.items() if "cap_add" in service] == ["postgres"]


def test_the_language_model_is_optional_and_makes_no_calls_home(services: dict[str, Any]) -> None:
    vllm = services["vllm"]
    assert vllm["profiles"] == ["gpu"]
    guard = services["llm"]
    optional = [name for name, service in services.items() if "profiles" in service]
    assert optional == ["vllm", "llm"]
    # Nobody reaches it but through the guard.
    assert vllm["networks"] == ["engine"]
    assert [name for name, s in services.items() if "engine" in s["networks"]] == optional
    assert guard["networks"] == ["engine", "models"]
    assert vllm["environment"]["HF_HUB_OFFLINE"] == vllm["environment"]["DO_NOT_TRACK"] == "1"
    assert _option(vllm["command"], "--tool-call-parser") == "openai"
    served = _option(vllm["command"], "--served-model-name")
    example = (ROOT / ".env.example").read_text(encoding="utf-8")
    assert guard["environment"]["MODEL_SERVER"] == f"vllm:{_option(vllm['command'], '--port')}"
    assert f"LLM_MODEL={served}" in example
    assert "http://llm:8080/v1" in example


def test_the_image_runs_the_web_process_as_nobody_special() -> None:
    dockerfile = (ROOT / "Dockerfile").read_text(encoding="utf-8")
    last = dockerfile.rpartition("\nFROM ")[2]
    assert "\nUSER 10001:10001\n" in last
    command = re.search(r"^CMD (\[.*\])$", last, re.MULTILINE)
    assert command is not None
    assert json.loads(command[1]) == commands.web("python", host="0.0.0.0", port=8000, processes=1)
    check = re.search(r"HEALTHCHECK [^\n]*\\\n\s+CMD (\[.*\])", last)
    assert check is not None
    assert json.loads(check[1]) == _compose(SECRETS)["services"]["web"]["healthcheck"]["test"][1:]
    for name, value in OFFLINE.items():
        assert f"{name}={value}" in last
    for source in re.findall(r"^COPY (?!--from)(\S+) ", dockerfile, re.MULTILINE):
        assert (ROOT / source).exists(), source


def _option(command: list[str], name: str) -> str:
    return command[command.index(name) + 1]


def _proxy_configuration() -> str:
    return (ROOT / "docker" / "nginx.conf.template").read_text(encoding="utf-8")
