"""``manage.py ingest``, with the workers' part done by a thread of the test."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from django.core.management import CommandError, call_command

from assistant.documents.models import Collection, Document
from assistant.management.commands import ingest as command
from tests.factories import make_collection, make_user

pytestmark = pytest.mark.django_db


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "office").mkdir()
    (tmp_path / "office" / "canteen.md").write_text("# Canteen\n\nIt opens at noon.")
    (tmp_path / "leave.txt").write_text("Thirty days a year.")
    (tmp_path / ".hidden.md").write_text("Not for anybody.")
    return tmp_path


@pytest.fixture
def ingest(monkeypatch: pytest.MonkeyPatch, run_pipeline: Callable[[], None]) -> Any:
    """The command, whose waits let the pipeline work in between."""
    monkeypatch.setattr("time.sleep", lambda seconds: run_pipeline())

    def run(*args: str) -> tuple[str, str]:
        out, err = io.StringIO(), io.StringIO()
        try:
            call_command("ingest", *args, stdout=out, stderr=err)
        except CommandError as error:
            err.write(str(error))
            assert error.returncode == 1
            return out.getvalue(), err.getvalue()
        return out.getvalue(), err.getvalue()

    return run


def test_a_folder_becomes_searchable(ingest: Any, folder: Path) -> None:
    admin = make_user(is_superuser=True)
    out, _ = ingest(str(folder), "--collection", "Handbook")
    assert out.startswith("2 of 2 files")
    collection = Collection.objects.get(name="Handbook")
    assert collection.created_by == admin
    assert set(Document.objects.values_list("external_id", flat=True)) == {
        "office/canteen.md",
        "leave.txt",
    }
    assert not Document.objects.filter(current_version=None).exists()
    ingest(str(folder), "--collection", "Handbook")  # again: nothing new
    assert Document.objects.count() == 2
    assert {d.versions.count() for d in Document.objects.all()} == {1}


def test_failures_are_listed_with_reasons(ingest: Any, folder: Path) -> None:
    make_user(is_superuser=True)
    (folder / "empty.md").write_bytes(b"")
    (folder / "broken.pdf").write_bytes(b"%PDF-1.7\nnothing of a PDF follows")
    out, err = ingest(str(folder), "--collection", "Handbook")
    assert out.startswith("2 of 4 files")
    assert "empty.md: The file is empty" in err
    assert "broken.pdf: The file is damaged" in err


def test_a_reader_may_not_add(ingest: Any, folder: Path) -> None:
    reader = make_user(email="ada@example.com")
    make_collection(name="Handbook", readers=[reader])
    _, err = ingest(str(folder), "--collection", "Handbook", "--user", "ada@example.com")
    assert "not add" in err
    assert not Document.objects.exists()


@pytest.mark.parametrize("missing", ["path", "user", "files"])
def test_what_is_missing_is_said(ingest: Any, tmp_path: Path, missing: str) -> None:
    make_user(is_superuser=True)
    path = tmp_path / ("nowhere" if missing == "path" else "")
    user = ["--user", "nobody@example.com"] if missing == "user" else []
    _, err = ingest(str(path), "--collection", "Handbook", *user)
    assert {"path": "no file or folder", "user": "no active user", "files": "no files"}[
        missing
    ] in err


def test_without_workers_it_says_so(
    folder: Path, monkeypatch: pytest.MonkeyPatch, fake_embedder: Any
) -> None:
    make_user(is_superuser=True)
    monkeypatch.setattr(command, "_STALLED_SECONDS", 0.2)
    monkeypatch.setattr(command, "_POLL_SECONDS", 0.05)
    with pytest.raises(CommandError, match="workers"):
        call_command(
            "ingest", str(folder), "--collection", "H", stdout=io.StringIO(), stderr=io.StringIO()
        )
    assert Document.objects.count() == 2  # stored, and waiting
