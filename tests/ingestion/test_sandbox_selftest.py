"""The self-test of the sandbox: it passes where the sandbox holds, and only there."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from ingestion import pipeline, sandbox_selftest, sandbox_site, sandbox_view
from ingestion.elements import Element, ElementKind, ParsedDocument
from ingestion.sandbox_selftest import EXIT_STATUS, Report
from tests.ingestion.test_sandbox_fence import MODES, offered

ROOT = Path(__file__).resolve().parents[2]


def interpreter_is_closed_to_nobody() -> bool:
    """Root's own Python, in root's own folder: without namespaces, nobody cannot read it."""
    paths = [Path(sys.base_prefix), *Path(sys.base_prefix).parents]
    return os.getuid() == 0 and any(not path.stat().st_mode & 0o001 for path in paths)


@pytest.mark.parametrize("mode", MODES)
def test_the_sandbox_holds(tmp_path: Path, mode: str) -> None:
    offered(mode)
    secret = tmp_path / "secret"
    secret.write_text("x")
    report = sandbox_selftest.run(
        folders=[tmp_path], secret_paths=[secret], zygote_options=MODES[mode]
    )
    problems = report.problems
    if mode == "no namespaces" and interpreter_is_closed_to_nobody():
        (problem,) = problems
        assert "cannot import modules: install Python" in problem
    else:
        assert problems == ()
    assert "system call filter" in report.means
    assert [path.name for path in tmp_path.iterdir()] == ["secret"]


def test_without_landlock_and_namespaces_it_does_not_hold(tmp_path: Path) -> None:
    options = ("--absent", "namespaces", "landlock")
    report = sandbox_selftest.run(folders=[tmp_path], zygote_options=options)
    (problem,) = report.problems
    assert "neither Landlock nor namespaces" in problem


class NoSandbox:
    """Runs the attacks in an ordinary process; those that take a machine down are answered."""

    def __init__(self, **_: Any) -> None: ...

    def parse(self, path: Path, **_: Any) -> ParsedDocument:
        order = json.loads(path.read_text())
        text = str(sandbox_selftest._FORKS)
        if order["attack"] in ("look", "files"):
            code = (
                "import sys; from ingestion import sandbox_selftest as s; "
                "print(s.attempt(sys.stdin.buffer.read()).text)"
            )
            text = subprocess.run(
                [sys.executable, "-c", code],
                input=path.read_text(),
                cwd=path.parent,
                env={"PYTHONPATH": str(ROOT), "TMPDIR": str(path.parent), "SECRET_KEY": "x"},
                capture_output=True,
                text=True,
                check=True,
                timeout=30,
            ).stdout.strip()
        return ParsedDocument(text, (Element(ElementKind.PARAGRAPH, 0, len(text)),))

    def close(self) -> None: ...


def test_without_a_sandbox_every_attack_is_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sandbox_selftest, "Sandbox", NoSandbox)
    monkeypatch.setenv("SECRET_KEY", "x")
    secret = tmp_path / "secret"
    secret.write_text("x")
    problems = sandbox_selftest.run(folders=[tmp_path], secret_paths=[secret]).problems
    for expected in (
        "open a network socket",
        f"read {secret}",
        f"read {tmp_path}/.canary-",
        f"read /proc/{os.getpid()}/environ",
        f"write to {tmp_path}",
        "look into other processes",
        "send signals to other processes",
        "gain rights or namespaces",
        "see an environment variable of the worker (SECRET_KEY)",
        "run a program it had written",
        "write more than the limit on files",
        "start 1000 processes",
        "take more memory than the limit",
        "run longer than the limit on CPU time",
    ):
        assert any(expected in problem for problem in problems), (expected, problems)
    assert [path.name for path in tmp_path.iterdir()] == ["secret"]


def worker_of(*queues: str) -> Any:
    return SimpleNamespace(
        amqp=SimpleNamespace(queues=SimpleNamespace(consume_from=dict.fromkeys(queues)))
    )


@pytest.fixture
def warmed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    seen: list[str] = []
    fake = SimpleNamespace(warm=lambda: seen.append("warm"), close=lambda: seen.append("close"))
    monkeypatch.setattr(pipeline, "sandbox", lambda: fake)
    return seen


def test_a_parse_worker_warms_its_parsers_and_starts(
    monkeypatch: pytest.MonkeyPatch, warmed: list[str]
) -> None:
    monkeypatch.setattr(sandbox_site, "examine", lambda: Report((), "all"))
    sandbox_site.refuse_unsafe(worker_of("parse"))
    assert warmed == ["warm"]


def test_an_unsafe_parse_worker_does_not_start(
    monkeypatch: pytest.MonkeyPatch, warmed: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    problem = "A parser process could read /data/secrets/secret-key."
    monkeypatch.setattr(sandbox_site, "examine", lambda: Report((problem,), "hope"))
    with pytest.raises(SystemExit) as caught:
        sandbox_site.refuse_unsafe(worker_of("parse", "embed"))
    assert caught.value.code == EXIT_STATUS == 78
    assert warmed == ["warm", "close"]
    error = capsys.readouterr().err
    assert error.startswith("sandbox_unsafe: this worker does not start")
    assert problem in error


def test_a_worker_that_parses_nothing_does_not_care(
    monkeypatch: pytest.MonkeyPatch, warmed: list[str]
) -> None:
    monkeypatch.setattr(sandbox_site, "examine", lambda: pytest.fail("was asked"))
    sandbox_site.refuse_unsafe(worker_of("embed", "default"))
    assert warmed == []


def test_the_site_keeps_its_own_files_from_parsers() -> None:
    if not sandbox_view.can_enclose(sandbox_view.readable_paths("ingestion")):
        pytest.skip("this kernel or container refuses namespaces")
    assert sandbox_site.examine().problems == ()
