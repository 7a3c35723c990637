"""The policies know collections that are private to a person, as ``permissions.policy`` does.

Superusers read no others' any more. Grants are asked first: nearly all rows are read by one.
"""

from __future__ import annotations

from typing import Any

from django.db import migrations

_READS = """
CREATE OR REPLACE FUNCTION {schema}.assistant_reads(wanted uuid) RETURNS boolean
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $body$
        DECLARE
            reader uuid := nullif(current_setting('assistant.reader', true), '')::uuid;
        BEGIN
            RETURN EXISTS (
                SELECT FROM {schema}.users_user u
                WHERE u.id = reader AND u.is_active AND ({condition})
            );
        END
$body$
"""
_GRANTED = """EXISTS (
    SELECT FROM {schema}.permissions_grant g
    WHERE g.collection_id = wanted AND g.role >= 10 AND (
        g.everyone OR g.user_id = reader OR EXISTS (
            SELECT FROM {schema}.users_user_groups m
            WHERE m.user_id = reader AND m.group_id = g.group_id
        )
    )
)"""
_BEFORE = f"u.is_superuser OR {_GRANTED}"
_AFTER = f"""{_GRANTED} OR EXISTS (
    SELECT FROM {{schema}}.documents_collection c
    WHERE c.id = wanted
    AND (c.private_to_id = reader OR (u.is_superuser AND c.private_to_id IS NULL))
)"""


def _replace(schema_editor: Any, condition: str) -> None:
    with schema_editor.connection.cursor() as cursor:
        cursor.execute("SELECT quote_ident(current_schema())")
        schema = cursor.fetchone()[0]
    body = _READS.format(schema=schema, condition=condition.format(schema=schema))
    schema_editor.execute(body, params=None)


def _make(_apps: Any, schema_editor: Any) -> None:
    _replace(schema_editor, _AFTER)


def _undo(_apps: Any, schema_editor: Any) -> None:
    _replace(schema_editor, _BEFORE)


class Migration(migrations.Migration):
    dependencies = [
        ("documents", "0005_private_collections"),
        ("retrieval", "0007_frequencies"),
    ]

    operations = [migrations.RunPython(_make, _undo)]
