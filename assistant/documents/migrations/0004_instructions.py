from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("documents", "0003_versions_and_parts"),
    ]

    operations = [
        migrations.AddField(
            model_name="collection",
            name="instructions",
            field=models.TextField(blank=True, default=""),
            preserve_default=False,
        ),
    ]
