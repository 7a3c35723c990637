"""The command line of every part of the system, for ``manage.py up`` and docker-compose.yml alike.

``tests/test_compose.py`` compares the two.
"""

from __future__ import annotations

from pathlib import Path

APPLICATION = "assistant.asgi:application"
# Seconds that requests, open event streams included, get to finish when the web process stops.
WEB_GRACE_SECONDS = 10
# A web process that is silent for so long is replaced; uvicorn's own 5 s a busy machine can take.
# Meanwhile uvicorn does nothing else, stopping included, and it waits as long for one that died
# when it was just being asked.
WEB_SILENT_SECONDS = 15
# Names of workers, before the host's.
PARSE_WORKER = "parse"
EMBED_WORKER = "embed"
PARSE_QUEUES = "parse"
EMBED_QUEUES = "embed,default"
# Threads, one more than work on uploads at once: see ``ingestion.slots``.
EMBED_CONCURRENCY = 5


def web(python: str, *, host: str, port: int, processes: int) -> list[str]:
    """The ASGI server: several processes behind one port, and one more that looks after them.

    With one there is nobody else. Answers run as tasks of the process that took the question.
    """
    return [
        *(python, "-m", "uvicorn", APPLICATION, "--host", host, "--port", str(port)),
        *("--workers", str(processes), "--timeout-worker-healthcheck", str(WEB_SILENT_SECONDS)),
        *("--timeout-graceful-shutdown", str(WEB_GRACE_SECONDS)),
        *("--no-server-header", "--no-access-log"),
    ]


def parse_worker(python: str, *, concurrency: int) -> list[str]:
    """Reads uploads. Threads are enough: each file is parsed in a child process of its own."""
    return _worker(python, name=PARSE_WORKER, queues=PARSE_QUEUES, concurrency=concurrency)


def embed_worker(python: str, *, concurrency: int = EMBED_CONCURRENCY) -> list[str]:
    """Sends chunks to the embedding server, and runs the short periodic tasks."""
    return _worker(python, name=EMBED_WORKER, queues=EMBED_QUEUES, concurrency=concurrency)


def beat(python: str, *, schedule: Path) -> list[str]:
    """Sends the periodic tasks; ``schedule`` is its state file."""
    return [
        *(python, "-m", "celery", "-A", "assistant", "beat"),
        *("--loglevel", "INFO", "--pidfile", "", "--schedule", str(schedule)),
    ]


def embedding_server(
    python: str,
    *,
    host: str,
    port: int,
    model: str = "",
    reranker: str = "",
    api_key_file: str = "",
) -> list[str]:
    """The OpenAI-compatible embedding server; ``model`` is a name or path, empty: its default.

    ``reranker`` is the directory of a cross-encoder, empty: none.
    """
    return [
        *(python, "-m", "inference.serving.embedding_server"),
        *("--host", host, "--port", str(port)),
        *(("--model", model) if model else ()),
        *(("--reranker", reranker) if reranker else ()),
        *(("--api-key-file", api_key_file) if api_key_file else ()),
    ]


def prepare(python: str) -> list[str]:
    """Brings database, static files and the first administrator up to date, then exits."""
    return [python, "manage.py", "prepare"]


def _worker(python: str, *, name: str, queues: str, concurrency: int) -> list[str]:
    return [
        *(python, "-m", "celery", "-A", "assistant", "worker", "-Q", queues, "-n", f"{name}@%h"),
        *("--pool", "threads", "-c", str(concurrency), "--loglevel", "INFO"),
        # Workers do not need to know each other, and finding out costs a second at start.
        *("--without-gossip", "--without-mingle"),
    ]
