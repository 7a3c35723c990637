"""Documentation is tested: every setting and command that exists is described, and the reverse."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from django.core.management import get_commands

from tests.test_house import ROOT

README = ROOT / "README.md"
CONFIGURATION = ROOT / "docs" / "configuration.md"
DOCS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
# Read before Django starts, by `manage.py up`.
EMBEDDED_VARIABLES = {"HOST", "WEB_CONCURRENCY"}


def settings_variables() -> set[str]:
    """Names that the settings ask the environment for."""
    source = (ROOT / "assistant" / "settings.py").read_text(encoding="utf-8")
    return set(re.findall(r'_(?:text|int|flag|list|json)\(\s*"([A-Z][A-Z0-9_]+)"', source))


def documented_variables() -> set[str]:
    """Names in the first column of the tables of docs/configuration.md."""
    text = CONFIGURATION.read_text(encoding="utf-8")
    return set(re.findall(r"^\|\s*`([A-Z][A-Z0-9_]+)`", text, flags=re.MULTILINE))


def test_every_variable_is_described_and_none_is_invented() -> None:
    assert "DATABASE_URL" in settings_variables()
    assert documented_variables() == settings_variables() | EMBEDDED_VARIABLES


def commands_of_docs() -> list[tuple[str, str]]:
    return [
        (path.relative_to(ROOT).as_posix(), command)
        for path in DOCS
        for command in re.findall(
            r"manage\.py[ \t]+([a-z][a-z_-]+)", path.read_text(encoding="utf-8")
        )
    ]


def test_every_manage_command_of_the_docs_exists() -> None:
    known = set(get_commands()) | {"up"}
    assert commands_of_docs()
    assert [(path, name) for path, name in commands_of_docs() if name not in known] == []


def test_every_make_target_of_the_docs_exists() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z][a-z-]*):", makefile, flags=re.MULTILINE))
    for path in DOCS:
        text = path.read_text(encoding="utf-8")
        for name in re.findall(r"`make ([a-z][a-z-]*)", text):
            assert name in targets, f"{path.name} names `make {name}`"


def test_the_readme_names_the_commands_of_the_contract() -> None:
    text = README.read_text(encoding="utf-8")
    for command in ("make run", "make test", "createtoken"):
        assert command in text


@pytest.mark.parametrize("path", DOCS, ids=lambda path: path.name)
def test_links_within_the_repository_lead_somewhere(path: Path) -> None:
    for target in re.findall(r"\]\(([^)\s#]+)", path.read_text(encoding="utf-8")):
        if not re.match(r"[a-z]+:", target):
            assert (path.parent / target).exists(), f"{path.name} links to {target}"


def test_the_api_page_names_every_address_of_the_api() -> None:
    from tests.test_permissions_matrix import routes

    text = (ROOT / "docs" / "api.md").read_text(encoding="utf-8")
    for name, pattern in routes():
        if name.startswith("api:") and name != "api:not-found":
            address = "/" + re.sub(r"<\w+:(\w+)>", r"{\1}", pattern.replace(":pk>", ":id>"))
            assert address in text, f"docs/api.md does not name {address}"
