"""The boxes of a page are seen by who may read its version."""

from __future__ import annotations

from typing import Any

from django.db import migrations


def _make(_apps: Any, schema_editor: Any) -> None:
    with schema_editor.connection.cursor() as cursor:
        cursor.execute("SELECT quote_ident(current_schema())")
        schema = cursor.fetchone()[0]
    schema_editor.execute("ALTER TABLE documents_pageboxes ENABLE ROW LEVEL SECURITY", params=None)
    # It reads through the policy of the table it names.
    schema_editor.execute(
        "CREATE POLICY readers ON documents_pageboxes FOR SELECT USING ("
        f"EXISTS (SELECT FROM {schema}.documents_documentversion v WHERE v.id = version_id))",
        params=None,
    )


def _undo(_apps: Any, schema_editor: Any) -> None:
    schema_editor.execute("DROP POLICY readers ON documents_pageboxes", params=None)
    schema_editor.execute("ALTER TABLE documents_pageboxes DISABLE ROW LEVEL SECURITY", params=None)


class Migration(migrations.Migration):
    dependencies = [
        ("documents", "0006_page_boxes"),
        ("retrieval", "0010_readable_collections"),
    ]

    operations = [migrations.RunPython(_make, _undo)]
