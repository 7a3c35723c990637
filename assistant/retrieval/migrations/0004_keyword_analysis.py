import django.contrib.postgres.indexes
import django.db.models.deletion
from django.db import migrations, models

import assistant.retrieval.models

# The terms stay in the row and uncompressed: a search reads them for thousands of candidates, once
# for each word of the question. Rows that are there already move when they are analysed anew.
_KEEP_TERMS_INLINE = """
ALTER TABLE retrieval_chunk ALTER COLUMN terms SET STORAGE EXTERNAL;
ALTER TABLE retrieval_chunk SET (toast_tuple_target = 8160);
"""
_AS_BEFORE = """
ALTER TABLE retrieval_chunk ALTER COLUMN terms SET STORAGE EXTENDED;
ALTER TABLE retrieval_chunk RESET (toast_tuple_target);
"""


class Migration(migrations.Migration):
    dependencies = [
        ("retrieval", "0003_database_cascades"),
    ]

    operations = [
        migrations.AddField(
            model_name="chunk",
            name="language",
            field=models.CharField(blank=True, db_default="", default="", max_length=8),
        ),
        migrations.AddField(
            model_name="chunk",
            name="analyser",
            field=models.PositiveSmallIntegerField(db_default=0, default=0),
        ),
        migrations.RunSQL(_KEEP_TERMS_INLINE, _AS_BEFORE),
        migrations.RunSQL(
            "ALTER INDEX chunk_terms SET (fastupdate = off)",
            "ALTER INDEX chunk_terms RESET (fastupdate)",
            state_operations=[
                migrations.RemoveIndex(model_name="chunk", name="chunk_terms"),
                migrations.AddIndex(
                    model_name="chunk",
                    index=django.contrib.postgres.indexes.GinIndex(
                        fastupdate=False, fields=["terms"], name="chunk_terms"
                    ),
                ),
            ],
        ),
        migrations.AddIndex(
            model_name="chunk",
            index=models.Index(fields=["collection", "language"], name="chunk_collection"),
        ),
        migrations.AlterField(
            model_name="chunk",
            name="collection",
            field=models.ForeignKey(
                db_constraint=False,
                db_index=False,
                on_delete=django.db.models.deletion.DO_NOTHING,
                related_name="+",
                to="documents.collection",
            ),
        ),
        migrations.AddIndex(
            model_name="chunk",
            index=models.Index(
                assistant.retrieval.models.Lot("id"),
                models.F("collection"),
                include=["id", "language", "term_count"],
                name="chunk_lot",
            ),
        ),
        migrations.AddIndex(
            model_name="chunk",
            index=models.Index(fields=["analyser", "id"], name="chunk_analyser"),
        ),
    ]
