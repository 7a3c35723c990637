"""The rules of the house, checked by machine."""

from __future__ import annotations

import ast
import io
import os
import subprocess
import sys
from pathlib import Path

import pytest
from django.core.management import call_command

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("assistant", "ingestion", "inference")
MAX_LINES = 500
# Who may read or write the environment besides the settings' own reader, and why.
ENVIRONMENT = {
    "assistant/env.py": "the one reader",
    "assistant/asgi.py": "names the settings module",
    "assistant/celery.py": "names the settings module",
    "ingestion/sandbox_fence.py": "the sandboxed child, which knows no Django",
    "ingestion/sandbox_selftest.py": "tries whether the worker's environment can be seen in there",
    "ingestion/parsers/unstructured_engine.py": "the same child: tells unstructured to stay quiet",
}
ENVIRONMENT_FOLDERS = {
    "assistant/embedded/": "runs before Django and starts what it connects to",
    "inference/serving/": "a process of its own that knows no Django",
}
HEAVY = ("torch", "sentence_transformers", "transformers", "unstructured", "pypdfium2", "vllm")


def modules() -> list[Path]:
    return sorted(
        path
        for package in PACKAGES
        for path in (ROOT / package).rglob("*.py")
        if "migrations" not in path.parts
    )


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def test_there_are_modules_to_check() -> None:
    assert len(modules()) > 50


def test_nobody_imports_upward() -> None:
    result = subprocess.run(
        [Path(sys.executable).parent / "lint-imports", "--no-cache"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stdout + result.stderr


@pytest.mark.parametrize("path", modules(), ids=name_of)
def test_modules_stay_small(path: Path) -> None:
    lines = len(path.read_text(encoding="utf-8").splitlines())
    assert lines <= MAX_LINES, f"{name_of(path)} has {lines} lines: split it by what it does"


def test_no_module_is_a_drawer() -> None:
    drawers = {"utils", "util", "helpers", "helper", "common", "misc", "signals"}
    assert not [name_of(path) for path in modules() if path.stem in drawers]


def _touches_environment(path: Path) -> bool:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Attribute) and node.attr in ("environ", "getenv", "environb"):
            return True
        if (
            isinstance(node, ast.ImportFrom)
            and node.module == "os"
            and {alias.name for alias in node.names} & {"environ", "getenv"}
        ):
            return True
    return False


def test_only_the_settings_read_the_environment() -> None:
    found = {name_of(path) for path in modules() if _touches_environment(path)}
    allowed = {
        name for name in found if name in ENVIRONMENT or name.startswith(tuple(ENVIRONMENT_FOLDERS))
    }
    assert found == allowed
    assert "assistant/env.py" in found


@pytest.mark.django_db
def test_migrations_are_complete() -> None:
    call_command("makemigrations", check=True, dry_run=True, stdout=io.StringIO())


@pytest.mark.django_db
def test_django_finds_no_fault() -> None:
    call_command("check", stdout=io.StringIO(), fail_level="WARNING")


@pytest.mark.parametrize("entry", ["assistant.asgi", "assistant.urls"])
def test_web_processes_load_no_model_and_no_parser(entry: str) -> None:
    code = (
        "import importlib, sys, django\n"
        "django.setup()\n"
        f"importlib.import_module({entry!r})\n"
        "from django.urls import get_resolver\n"
        "get_resolver().url_patterns\n"
        f"print([name for name in {HEAVY!r} if name in sys.modules])\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env=dict(os.environ),
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout.strip() == "[]"


def test_no_machine_path_and_no_secret_is_committed() -> None:
    tracked = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    if tracked.returncode:
        pytest.skip("not a git checkout")
    forbidden = ("/work" + "/main", "/work" + "/shared", "BEGIN PRIVATE" + " KEY")
    for name in filter(None, tracked.stdout.split("\0")):
        path = ROOT / name
        if path.is_file() and path.stat().st_size < 1_000_000:
            text = path.read_text(encoding="utf-8", errors="ignore")
            assert not [word for word in forbidden if word in text], name
