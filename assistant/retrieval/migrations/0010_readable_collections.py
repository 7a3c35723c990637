"""What a reader may see is asked once for each table of a statement, not for each of its rows."""

from __future__ import annotations

from typing import Any

from django.db import migrations

# As ``permissions.policy.collections_with_role`` for readers (10), each part by its own index.
_READABLE = """
CREATE FUNCTION {schema}.assistant_readable() RETURNS SETOF uuid
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp ROWS 100
AS $body$
    DECLARE
        reader uuid := nullif(current_setting('assistant.reader', true), '')::uuid;
        is_above boolean;
    BEGIN
        SELECT u.is_superuser INTO is_above FROM {schema}.users_user u
        WHERE u.id = reader AND u.is_active;
        IF NOT FOUND THEN
            RETURN;
        END IF;
        RETURN QUERY SELECT c.id FROM {schema}.documents_collection c
            WHERE c.private_to_id = reader;
        IF is_above THEN
            RETURN QUERY SELECT c.id FROM {schema}.documents_collection c
                WHERE c.private_to_id IS NULL;
            RETURN;
        END IF;
        RETURN QUERY SELECT g.collection_id FROM {schema}.permissions_grant g
            WHERE g.user_id = reader AND g.role >= 10;
        RETURN QUERY SELECT g.collection_id FROM {schema}.users_user_groups m
            JOIN {schema}.permissions_grant g ON g.group_id = m.group_id
            WHERE m.user_id = reader AND g.role >= 10;
        RETURN QUERY SELECT g.collection_id FROM {schema}.permissions_grant g
            WHERE g.everyone AND g.role >= 10;
    END
$body$
"""
_BY_COLLECTION = "{column} IN (SELECT {schema}.assistant_readable())"
_POLICIES = {
    "documents_collection": _BY_COLLECTION.replace("{column}", "id"),
    "documents_document": _BY_COLLECTION.replace("{column}", "collection_id"),
    # These two read through the policies of the tables they name.
    "documents_documentversion": (
        "EXISTS (SELECT FROM {schema}.documents_document d WHERE d.id = document_id)"
    ),
    "documents_versiontext": (
        "EXISTS (SELECT FROM {schema}.documents_documentversion v WHERE v.id = version_id)"
    ),
    "retrieval_chunk": _BY_COLLECTION.replace("{column}", "collection_id"),
    "retrieval_embedding": _BY_COLLECTION.replace("{column}", "collection_id"),
}
_BEFORE = {
    "documents_collection": "{schema}.assistant_reads(id)",
    "documents_document": "{schema}.assistant_reads(collection_id)",
    "documents_documentversion": "{schema}.assistant_reads_document(document_id)",
    "documents_versiontext": "{schema}.assistant_reads_version(version_id)",
    "retrieval_chunk": "{schema}.assistant_reads(collection_id)",
    "retrieval_embedding": "{schema}.assistant_reads(collection_id)",
}


def _schema(schema_editor: Any) -> str:
    with schema_editor.connection.cursor() as cursor:
        cursor.execute("SELECT quote_ident(current_schema())")
        return str(cursor.fetchone()[0])


def _alter(schema_editor: Any, schema: str, policies: dict[str, str]) -> None:
    for table, condition in policies.items():
        schema_editor.execute(
            f"ALTER POLICY readers ON {table} USING ({condition.format(schema=schema)})",
            params=None,
        )


def _make(_apps: Any, schema_editor: Any) -> None:
    schema = _schema(schema_editor)
    schema_editor.execute(_READABLE.format(schema=schema), params=None)
    _alter(schema_editor, schema, _POLICIES)


def _undo(_apps: Any, schema_editor: Any) -> None:
    schema = _schema(schema_editor)
    _alter(schema_editor, schema, _BEFORE)
    schema_editor.execute(f"DROP FUNCTION {schema}.assistant_readable()", params=None)


class Migration(migrations.Migration):
    dependencies = [("retrieval", "0009_collection_index")]

    operations = [migrations.RunPython(_make, _undo)]
