"""The policies know collections that are private to a person, as ``permissions.policy`` does.

Superusers read no others' any more.
"""

from __future__ import annotations

from typing import Any

from django.db import migrations

_HEAD = """
CREATE OR REPLACE FUNCTION {schema}.assistant_reads(wanted uuid) RETURNS boolean
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $body$
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
_BEFORE = f"""
        DECLARE
            reader uuid := nullif(current_setting('assistant.reader', true), '')::uuid;
        BEGIN
            RETURN EXISTS (
                SELECT FROM {{schema}}.users_user u
                WHERE u.id = reader AND u.is_active AND (u.is_superuser OR {_GRANTED})
            );
        END
$body$
"""
# Superusers have no grants: asking for them first would cost five times as much.
_AFTER = f"""
        DECLARE
            reader uuid := nullif(current_setting('assistant.reader', true), '')::uuid;
            is_above boolean;
        BEGIN
            SELECT u.is_superuser INTO is_above FROM {{schema}}.users_user u
            WHERE u.id = reader AND u.is_active;
            IF NOT FOUND THEN
                RETURN false;
            END IF;
            IF NOT is_above AND {_GRANTED} THEN
                RETURN true;
            END IF;
            RETURN EXISTS (
                SELECT FROM {{schema}}.documents_collection c WHERE c.id = wanted
                AND (c.private_to_id = reader OR (is_above AND c.private_to_id IS NULL))
            );
        END
$body$
"""


def _replace(schema_editor: Any, body: str) -> None:
    with schema_editor.connection.cursor() as cursor:
        cursor.execute("SELECT quote_ident(current_schema())")
        schema = cursor.fetchone()[0]
    schema_editor.execute((_HEAD + body).format(schema=schema), params=None)


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
