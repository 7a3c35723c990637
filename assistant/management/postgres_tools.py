"""pg_dump, pg_restore and psql against the database of the settings."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from django.db import connection

from assistant.embedded.errors import StartError
from assistant.embedded.postgres import package_binaries

# Everything of ours goes, everything that belongs to an extension (dependency "e") stays. Sequences
# of columns ("a", "i") go with their tables.
EMPTY_SCHEMA = """
SET lock_timeout = '30s';
SET client_min_messages = warning;
DO $$
DECLARE
    statement text;
BEGIN
    FOR statement IN
        SELECT format('DROP %s IF EXISTS %I.%I CASCADE', kind, nspname, name) FROM (
            SELECT c.oid, n.nspname, c.relname AS name, CASE c.relkind
                WHEN 'v' THEN 'VIEW' WHEN 'm' THEN 'MATERIALIZED VIEW'
                WHEN 'S' THEN 'SEQUENCE' ELSE 'TABLE' END AS kind
            FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
            WHERE c.relkind IN ('r', 'p', 'v', 'm', 'S')
            UNION ALL
            SELECT t.oid, n.nspname, t.typname, 'TYPE'
            FROM pg_type t JOIN pg_namespace n ON n.oid = t.typnamespace
            WHERE t.typtype IN ('e', 'd')
        ) AS objects
        WHERE nspname = 'public' AND NOT EXISTS (
            SELECT FROM pg_depend d WHERE d.objid = objects.oid AND (
                d.deptype = 'e' OR objects.kind = 'SEQUENCE' AND d.deptype IN ('a', 'i')))
        UNION ALL
        SELECT format('DROP ROUTINE IF EXISTS %s CASCADE', p.oid::regprocedure)
        FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace
        WHERE n.nspname = 'public' AND NOT EXISTS (
            SELECT FROM pg_depend d WHERE d.objid = p.oid AND d.deptype = 'e')
    LOOP
        EXECUTE statement;
    END LOOP;
END
$$;
"""


class ToolError(Exception):
    """A PostgreSQL client tool is missing or failed; the message has its last words."""


def dump_database(target: Path) -> None:
    """Write the database to ``target`` in pg_dump's custom format, one consistent snapshot.

    Extensions are left out: making them needs rights that the application's role does not have.
    """
    _run(
        "pg_dump",
        [
            *("--format", "custom", "--no-owner", "--no-privileges", "--exclude-extension", "*"),
            *("--lock-wait-timeout", "60s", "--file", str(target)),
        ],
    )


def restore_database(dump: Path, *, scratch: Path) -> None:
    """Replace all of the application's tables by those of ``dump``, in one transaction.

    ``scratch`` is a directory for the statements. After ToolError the database is as before.
    """
    statements = scratch / "database.sql"
    empty = scratch / "empty.sql"
    _run("pg_restore", ["--no-owner", "--no-privileges", "--file", str(statements), str(dump)])
    empty.write_text(EMPTY_SCHEMA, encoding="utf-8")
    _run(
        "psql",
        [
            *("--no-psqlrc", "--quiet", "--single-transaction", "--set", "ON_ERROR_STOP=1"),
            *("--output", os.devnull, "--file", str(empty), "--file", str(statements)),
        ],
    )


def _run(tool: str, arguments: Sequence[str]) -> None:
    result = subprocess.run(  # noqa: S603 - our own binary, arguments from above
        [_find(tool), *arguments],
        env=_environment(),
        capture_output=True,
        text=True,
        check=False,
        stdin=subprocess.DEVNULL,
    )
    if result.returncode:
        words = "\n".join(result.stderr.strip().splitlines()[-5:])
        raise ToolError(f"{tool} failed: {words}")


def _find(tool: str) -> str:
    """The embedded package's, which is as new as any server we support, else the machine's."""
    try:
        packaged = package_binaries() / tool
    except StartError:
        packaged = Path(tool)
    found = str(packaged) if packaged.is_file() else shutil.which(tool)
    if not found:
        raise ToolError(f"{tool} is not installed: install PostgreSQL's client programs.")
    return found


def _environment() -> dict[str, str]:
    """Where to connect, by environment: a command line would show the password."""
    database = connection.settings_dict
    variables = {
        "PGHOST": database["HOST"],
        "PGPORT": database["PORT"],
        "PGUSER": database["USER"],
        "PGPASSWORD": database["PASSWORD"],
        "PGDATABASE": database["NAME"],
        "PGSSLMODE": database["OPTIONS"].get("sslmode", ""),
        "PGCONNECT_TIMEOUT": "10",
    }
    return {"PATH": os.defpath, **{k: str(v) for k, v in variables.items() if v}}
