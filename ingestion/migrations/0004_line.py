from django.db import migrations, models

_OPEN = ["queued", "parsing", "embedding"]


class Migration(migrations.Migration):
    dependencies = [
        ("documents", "0005_private_collections"),
        ("ingestion", "0003_worker_signs"),
    ]

    operations = [
        migrations.RemoveIndex(model_name="ingestionjob", name="job_open"),
        migrations.AddField(
            model_name="ingestionjob",
            name="lane",
            field=models.PositiveSmallIntegerField(
                choices=[(0, "attached"), (1, "uploaded")], db_default=1, default=1
            ),
        ),
        migrations.AddField(
            model_name="ingestionjob",
            name="round",
            field=models.PositiveIntegerField(db_default=0, default=0),
        ),
        migrations.AddField(
            model_name="ingestionjob", name="share", field=models.UUIDField(null=True)
        ),
        migrations.AddIndex(
            model_name="ingestionjob",
            index=models.Index(
                condition=models.Q(("status__in", _OPEN)),
                fields=["status", "error_code", "round", "lane", "created_at"],
                name="job_line",
            ),
        ),
        migrations.AddIndex(
            model_name="ingestionjob",
            index=models.Index(
                condition=models.Q(("lease_owner", ""), ("status__in", _OPEN)),
                fields=["share", "lane", "round"],
                name="job_share",
            ),
        ),
    ]
