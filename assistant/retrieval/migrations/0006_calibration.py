import django.contrib.postgres.fields
import django.db.models.deletion
import django.utils.timezone
from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("retrieval", "0005_row_security"),
    ]

    operations = [
        migrations.CreateModel(
            name="Calibration",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                ("reranker", models.CharField(blank=True, max_length=500)),
                ("threshold", models.FloatField()),
                ("false_answers", models.FloatField()),
                ("answered", models.FloatField()),
                ("ece", models.FloatField()),
                (
                    "sets",
                    django.contrib.postgres.fields.ArrayField(
                        base_field=models.TextField(), default=list, size=None
                    ),
                ),
                ("learnt", models.JSONField()),
                ("made_at", models.DateTimeField(default=django.utils.timezone.now)),
                (
                    "space",
                    models.ForeignKey(
                        null=True,
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="+",
                        to="retrieval.embeddingspace",
                    ),
                ),
            ],
            options={
                "indexes": [
                    models.Index(
                        fields=["space", "reranker", "-made_at"], name="calibration_latest"
                    )
                ],
            },
        ),
    ]
