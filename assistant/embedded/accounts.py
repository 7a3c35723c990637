"""PostgreSQL refuses to run as root, so under root it runs as an account of its own."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from assistant.embedded.errors import StartError

ACCOUNT_NAME = "knowledge-assistant"


@dataclass(frozen=True, slots=True)
class Account:
    """A user of this machine that a child process becomes."""

    uid: int
    gid: int


def database_account() -> Account | None:
    """The account for PostgreSQL: None (the caller's own) unless the caller is root.

    Made at first use. Raises StartError when this machine lets nobody be added.
    """
    if os.geteuid() != 0:
        return None
    try:
        entry = pwd.getpwnam(ACCOUNT_NAME)
    except KeyError:
        _add_account()
        entry = pwd.getpwnam(ACCOUNT_NAME)
    return Account(entry.pw_uid, entry.pw_gid)


def can_enter(account: Account | None, path: Path) -> bool:
    """Whether the account can go into the directory, asked of the kernel as that account."""
    if account is None:
        return os.access(path, os.X_OK)
    return (
        subprocess.run(  # noqa: S603 - fixed command, path as an argument
            ["/bin/sh", "-c", 'test -d "$1" && test -x "$1"', "sh", str(path)],
            user=account.uid,
            group=account.gid,
            extra_groups=[],
            cwd="/",
            check=False,
        ).returncode
        == 0
    )


def own(path: Path, account: Account | None) -> None:
    """Give a file or directory to the account."""
    if account is not None:
        os.chown(path, account.uid, account.gid)


def _add_account() -> None:
    useradd = shutil.which("useradd") or "/usr/sbin/useradd"
    command = [
        useradd,
        "--system",
        "--user-group",
        "--no-create-home",
        "--home-dir",
        "/nonexistent",
    ]
    shell = shutil.which("nologin") or "/usr/sbin/nologin"
    try:
        subprocess.run(  # noqa: S603 - fixed command
            [*command, "--shell", shell, ACCOUNT_NAME], check=True, capture_output=True, text=True
        )
    except (OSError, subprocess.CalledProcessError) as error:
        reason = getattr(error, "stderr", "") or str(error)
        raise StartError(
            "PostgreSQL does not run as root, and no account could be made for it "
            f"({reason.strip()}). Run as an ordinary user, add the user {ACCOUNT_NAME!r}, "
            "or set DATABASE_URL."
        ) from error
