from django.db import migrations, models

# Read for thousands of candidates in one search: they stay in the row as they are.
_INLINE = "ALTER TABLE retrieval_chunk ALTER COLUMN frequencies SET STORAGE MAIN"


class Migration(migrations.Migration):
    dependencies = [
        ("retrieval", "0006_calibration"),
    ]

    operations = [
        migrations.AddField(
            model_name="chunk",
            name="frequencies",
            field=models.BinaryField(null=True),
        ),
        migrations.RunSQL(_INLINE, migrations.RunSQL.noop),
    ]
