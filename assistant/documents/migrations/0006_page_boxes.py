"""The boxes of a version, a row for each of its pages."""

import django.db.models.deletion
from django.db import migrations, models

_SPLIT = """
INSERT INTO documents_pageboxes (version_id, page, char_start, char_end, boxes)
SELECT t.version_id, (box ->> 'page')::int,
       min((box ->> 'char_start')::int), max((box ->> 'char_end')::int),
       jsonb_agg(box ORDER BY at)
FROM documents_versiontext t
CROSS JOIN LATERAL jsonb_array_elements(t.boxes) WITH ORDINALITY AS boxes(box, at)
GROUP BY 1, 2
"""
_JOIN = """
UPDATE documents_versiontext t SET boxes = whole.boxes
FROM (
    SELECT p.version_id, jsonb_agg(box ORDER BY p.page, at) AS boxes
    FROM documents_pageboxes p
    CROSS JOIN LATERAL jsonb_array_elements(p.boxes) WITH ORDINALITY AS boxes(box, at)
    GROUP BY 1
) whole
WHERE whole.version_id = t.version_id
"""


class Migration(migrations.Migration):
    dependencies = [("documents", "0005_private_collections")]

    operations = [
        migrations.CreateModel(
            name="PageBoxes",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                ("page", models.PositiveIntegerField()),
                ("char_start", models.PositiveIntegerField()),
                ("char_end", models.PositiveIntegerField()),
                ("boxes", models.JSONField()),
                (
                    "version",
                    models.ForeignKey(
                        db_index=False,
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="pages",
                        to="documents.documentversion",
                    ),
                ),
            ],
            options={
                "indexes": [
                    models.Index(
                        fields=["version", "char_start", "char_end"], name="boxes_of_passage"
                    )
                ],
                "constraints": [
                    models.UniqueConstraint(fields=("version", "page"), name="boxes_page")
                ],
            },
        ),
        migrations.RunSQL(_SPLIT, _JOIN),
        migrations.RemoveField(model_name="versiontext", name="boxes"),
    ]
