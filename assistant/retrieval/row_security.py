"""The second net under every search: PostgreSQL itself keeps what a reader may not see.

The first net is the scope that stands in each statement. Should it ever be missing, nothing is
lost: every text that leaves retrieval is read as READER_ROLE, a role without login, ownership and
BYPASSRLS, whose policies (migration 0010) ask the live grants of the user named for the
transaction. The arms that rank run without it and return ids and scores only, because ``@@`` is
not leakproof: under a policy PostgreSQL does not use the index for it. See
docs/decisions/0007-row-security-where-text-leaves.md for what was measured.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import Any, Final

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.db import DatabaseError, connection, transaction
from psycopg.pq import TransactionStatus

from assistant.database import server_cursor
from assistant.permissions.policy import AnyUser

logger = logging.getLogger(__name__)

READER_ROLE: Final = "assistant_reader"
# Who is reading, for the policies; the name of a PostgreSQL parameter.
READER_SETTING: Final = "assistant.reader"
# Everything with text of documents that retrieval reads, by its key; each table has a policy.
TABLES: Final = {
    "documents_collection": "id",
    "documents_document": "id",
    "documents_documentversion": "id",
    "documents_versiontext": "version_id",
    "documents_pageboxes": "id",
    "retrieval_chunk": "id",
    "retrieval_embedding": "id",
}
# What the scope in each statement asks. The policies need no rights: their functions have them.
_ASKED: Final = {
    "permissions_grant": "collection_id, user_id, group_id, everyone, role",
    "users_user_groups": "user_id, group_id",
}


@dataclass(frozen=True, slots=True)
class Gap:
    """Why the net does not hold, and what to do about it."""

    detail: str
    advice: str

    def __str__(self) -> str:
        return f"Row-level security does not hold: {self.detail}. {self.advice}"


@contextmanager
def reading_as(user: AnyUser, *, to_the_end: bool = False) -> Iterator[None]:
    """Until the block ends, statements see the rows that ``user`` may read, whatever they ask.

    Needs an open transaction; role and identity are local to it, so that a pooled connection
    carries neither on. ``to_the_end``: of the transaction, which takes them back by itself.

    Raises ImproperlyConfigured when the role cannot be taken, unless ROW_SECURITY is ``warn``.
    """
    assert connection.in_atomic_block
    if settings.ROW_SECURITY == "warn" and not _holds():
        yield
        return
    with server_cursor() as cursor:
        try:
            cursor.execute(
                f"SELECT set_config('role', '{READER_ROLE}', true),"
                f" set_config('{READER_SETTING}', %s, true)",
                [str(user.pk or "")],
            )
        except DatabaseError as error:
            raise ImproperlyConfigured(
                f"The database role {READER_ROLE} cannot be taken, so nothing is read."
                " `manage.py doctor` says what to do."
            ) from error
    try:
        yield
    finally:
        # A failed statement has ended the transaction, and with it the role.
        if not to_the_end and _is_intact():
            with connection.cursor() as cursor:
                cursor.execute(
                    f"RESET ROLE; SELECT set_config('{READER_SETTING}', '', true)",
                )


def _is_intact() -> bool:
    raw: Any = connection.connection
    return raw is not None and raw.info.transaction_status == TransactionStatus.INTRANS


@cache
def _holds() -> bool:
    """Asked once a process, and only where a site may go on without: says so in the log."""
    gap = find_gap()
    if gap is not None:
        logger.warning("%s Searches go on without it, because ROW_SECURITY is warn.", gap)
    return gap is None


def find_gap() -> Gap | None:
    """Examine role, rights and policies, and read as nobody. None when the net holds."""
    with transaction.atomic():
        return _gap_in_role() or _gap_in_tables() or _gap_in_rows()


def ensure_role() -> None:
    """Make the role where this account may, and give it what it has to read. Repeatable.

    Where it may not, an administrator of the database does, as ``find_gap`` says.
    """
    with connection.cursor() as cursor:
        if not _value("SELECT EXISTS (SELECT FROM pg_roles WHERE rolname = %s)", READER_ROLE):
            if not _value(
                "SELECT rolsuper OR rolcreaterole FROM pg_roles WHERE rolname = current_user"
            ):
                return
            cursor.execute(f"CREATE ROLE {READER_ROLE} {_OPTIONS}")
        if not _may_take_role() and _value(
            "SELECT pg_has_role(%s, 'MEMBER WITH ADMIN OPTION')", READER_ROLE
        ):
            cursor.execute(f"GRANT {READER_ROLE} TO CURRENT_USER WITH INHERIT FALSE, SET TRUE")
        for table in TABLES:
            cursor.execute(f"GRANT SELECT ON {table} TO {READER_ROLE}")
        for table, columns in _ASKED.items():
            cursor.execute(f"GRANT SELECT ({columns}) ON {table} TO {READER_ROLE}")


_OPTIONS: Final = "NOLOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOBYPASSRLS"


def _gap_in_role() -> Gap | None:
    account = str(_value("SELECT current_user"))
    make = f"CREATE ROLE {READER_ROLE} {_OPTIONS};"
    lend = f'GRANT {READER_ROLE} TO "{account}" WITH INHERIT FALSE, SET TRUE;'
    again = " Then run `manage.py prepare`."
    if not _value("SELECT EXISTS (SELECT FROM pg_roles WHERE rolname = %s)", READER_ROLE):
        return Gap(
            f"the role {READER_ROLE} is missing",
            f"As an administrator of the database: {make} {lend}{again}",
        )
    if _value(
        "SELECT rolsuper OR rolbypassrls FROM pg_roles WHERE rolname = %s", READER_ROLE
    ) or _value(
        "SELECT bool_or(pg_has_role(%s, relowner, 'USAGE')) FROM pg_class"
        " WHERE oid = ANY(%s::regclass[])",
        READER_ROLE,
        list(TABLES),
    ):
        return Gap(
            f"the role {READER_ROLE} is a superuser, has BYPASSRLS or owns the tables",
            f"As an administrator of the database: ALTER ROLE {READER_ROLE} {_OPTIONS};"
            " and take it out of every other role.",
        )
    if not _may_take_role():
        return Gap(
            f"{account} may not take the role {READER_ROLE}",
            f"As an administrator of the database: {lend}{again}",
        )
    return None


def _gap_in_tables() -> Gap | None:
    open_tables = _value(
        """
        SELECT string_agg(relname, ', ') FROM pg_class c
        WHERE oid = ANY(%s::regclass[]) AND NOT (relrowsecurity
            AND EXISTS (SELECT FROM pg_policy p WHERE p.polrelid = c.oid)
            AND has_table_privilege(%s, oid, 'SELECT'))
        """,
        list(TABLES),
        READER_ROLE,
    )
    if open_tables:
        return Gap(
            f"without policy, or not readable for {READER_ROLE}: {open_tables}",
            "Run `manage.py prepare` with the account that owns the tables.",
        )
    return None


def _gap_in_rows() -> Gap | None:
    """The proof: somebody without rights asks for rows that are there, and gets nothing.

    Some of each table by their keys: what nobody may see would else be sought in all of it.
    """
    there = {table: _some_keys(table, column) for table, column in TABLES.items()}
    with connection.cursor() as cursor:
        cursor.execute(
            f"SET LOCAL ROLE {READER_ROLE}; SELECT set_config('{READER_SETTING}', '', true)"
        )
        try:
            leaking = [
                table
                for table, column in TABLES.items()
                if _value(
                    f"SELECT EXISTS (SELECT FROM {table} WHERE {column} = ANY(%s))", there[table]
                )
            ]
        finally:
            if _is_intact():
                cursor.execute("RESET ROLE")
    if leaking:
        return Gap(
            f"somebody without any right can read rows of {', '.join(leaking)}",
            "Drop the policies on these tables that are not ours, then run `manage.py prepare`.",
        )
    return None


def _some_keys(table: str, column: str) -> list[Any]:
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT {column} FROM {table} LIMIT 20")
        return [row[0] for row in cursor.fetchall()]


def _may_take_role() -> bool:
    return bool(_value("SELECT pg_has_role(%s, 'SET')", READER_ROLE))


def _value(statement: str, *values: Any) -> Any:
    with connection.cursor() as cursor:
        cursor.execute(statement, values)
        return cursor.fetchone()[0]
