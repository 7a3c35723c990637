"""Policies for assistant_reader; see ``assistant.retrieval.row_security``.

They repeat ``permissions.policy.collections_with_role`` for readers, over the same live rows;
tests/retrieval/test_row_security.py holds the two against each other. Owners of the tables are not
bound by them (there is no FORCE), so migrations, ingestion and backups go on as they are; anybody
else sees nothing. The functions ask with the owner's rights, so that a reader needs none on the
tables of people and grants; their plans are kept with the session, which makes reading twice as
fast as subqueries in the policies.
"""

from __future__ import annotations

from typing import Any

from django.db import migrations

_FUNCTION = """
CREATE FUNCTION {schema}.{name}(wanted uuid) RETURNS boolean
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $body$ {body} $body$
"""
_FUNCTIONS = {
    # A reader's role is 10.
    "assistant_reads": """
        DECLARE
            reader uuid := nullif(current_setting('assistant.reader', true), '')::uuid;
        BEGIN
            RETURN EXISTS (
                SELECT FROM {schema}.users_user u
                WHERE u.id = reader AND u.is_active AND (
                    u.is_superuser OR EXISTS (
                        SELECT FROM {schema}.permissions_grant g
                        WHERE g.collection_id = wanted AND g.role >= 10 AND (
                            g.everyone OR g.user_id = reader OR EXISTS (
                                SELECT FROM {schema}.users_user_groups m
                                WHERE m.user_id = reader AND m.group_id = g.group_id
                            )
                        )
                    )
                )
            );
        END
    """,
    "assistant_reads_document": """
        BEGIN
            RETURN {schema}.assistant_reads(
                (SELECT d.collection_id FROM {schema}.documents_document d WHERE d.id = wanted)
            );
        END
    """,
    "assistant_reads_version": """
        BEGIN
            RETURN {schema}.assistant_reads_document(
                (SELECT v.document_id FROM {schema}.documents_documentversion v
                 WHERE v.id = wanted)
            );
        END
    """,
}
_POLICIES = {
    "documents_collection": "assistant_reads(id)",
    "documents_document": "assistant_reads(collection_id)",
    "documents_documentversion": "assistant_reads_document(document_id)",
    "documents_versiontext": "assistant_reads_version(version_id)",
    "retrieval_chunk": "assistant_reads(collection_id)",
    "retrieval_embedding": "assistant_reads(collection_id)",
}


def _make(_apps: Any, schema_editor: Any) -> None:
    """Names carry the schema: a function must not depend on who calls it with what search path."""
    with schema_editor.connection.cursor() as cursor:
        cursor.execute("SELECT quote_ident(current_schema())")
        schema = cursor.fetchone()[0]
    for name, body in _FUNCTIONS.items():
        body = body.format(schema=schema)
        schema_editor.execute(_FUNCTION.format(schema=schema, name=name, body=body), params=None)
    for table, condition in _POLICIES.items():
        schema_editor.execute(f"ALTER TABLE {table} ENABLE ROW LEVEL SECURITY", params=None)
        schema_editor.execute(
            f"CREATE POLICY readers ON {table} FOR SELECT USING ({condition})", params=None
        )


def _undo(_apps: Any, schema_editor: Any) -> None:
    for table in _POLICIES:
        schema_editor.execute(f"DROP POLICY readers ON {table}", params=None)
        schema_editor.execute(f"ALTER TABLE {table} DISABLE ROW LEVEL SECURITY", params=None)
    for name in reversed(_FUNCTIONS):
        schema_editor.execute(f"DROP FUNCTION {name}(uuid)", params=None)


class Migration(migrations.Migration):
    dependencies = [
        ("documents", "0003_versions_and_parts"),
        ("permissions", "0001_initial"),
        ("retrieval", "0004_keyword_analysis"),
        ("users", "0001_initial"),
    ]

    operations = [migrations.RunPython(_make, _undo)]
