"""``createtoken`` and ``ensure_admin``."""

from __future__ import annotations

import io
import stat
from pathlib import Path
from typing import Any

import pytest
from django.core.management import CommandError, call_command

from assistant.users.models import ApiToken, User
from tests.factories import make_user

pytestmark = pytest.mark.django_db


def createtoken(*args: str) -> str:
    out = io.StringIO()
    call_command("createtoken", *args, stdout=out, stderr=io.StringIO())
    return out.getvalue()


def test_a_token_is_printed_alone_and_works() -> None:
    user = make_user(email="ada@example.com")
    printed = createtoken("Ada@Example.com", "--name", "nightly sync")
    token = printed.strip()
    assert printed == f"{token}\n"
    row = ApiToken.resolve(token)
    assert row is not None
    assert (row.user, row.name, sorted(row.scopes)) == (user, "nightly sync", ["read", "write"])
    assert row.expires_at is None


def test_scopes_and_an_end() -> None:
    make_user(email="ada@example.com")
    row = ApiToken.resolve(
        createtoken("ada@example.com", "--scope", "read", "--expires-days", "7").strip()
    )
    assert row is not None
    assert row.scopes == ["read"]
    assert row.expires_at is not None
    assert 6 <= (row.expires_at - row.created_at).days <= 7


@pytest.mark.parametrize(
    "args", [("nobody@example.com",), ("ada@example.com", "--expires-days", "0")]
)
def test_a_bad_request_makes_no_token(args: tuple[str, ...]) -> None:
    make_user(email="ada@example.com")
    with pytest.raises(CommandError):
        createtoken(*args)
    assert not ApiToken.objects.exists()


def test_a_deactivated_user_gets_no_token() -> None:
    make_user(email="ada@example.com", is_active=False)
    with pytest.raises(CommandError, match="deactivated"):
        createtoken("ada@example.com")


def test_the_first_administrator_gets_a_password_on_disk(settings: Any, tmp_path: Path) -> None:
    settings.DATA_DIR = tmp_path
    for _ in range(2):
        call_command("ensure_admin", stderr=io.StringIO())
    user = User.objects.get()
    assert (user.email, user.is_superuser, user.is_staff) == (settings.ADMIN_EMAIL, True, True)
    file = tmp_path / "admin-password"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    password = file.read_text().strip()
    assert len(password) >= 16
    assert user.check_password(password)


def test_a_given_password_is_used_and_not_written(settings: Any, tmp_path: Path) -> None:
    settings.DATA_DIR, settings.ADMIN_PASSWORD = tmp_path, "given by the operator"
    call_command("ensure_admin", stderr=io.StringIO())
    assert User.objects.get().check_password("given by the operator")
    assert not (tmp_path / "admin-password").exists()


def test_an_existing_person_is_not_promoted(settings: Any, tmp_path: Path) -> None:
    settings.DATA_DIR = tmp_path
    make_user(email=settings.ADMIN_EMAIL)
    with pytest.raises(CommandError, match="no administrator"):
        call_command("ensure_admin")
    assert not User.objects.filter(is_superuser=True).exists()
