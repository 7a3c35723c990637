from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("ingestion", "0002_batches")]

    operations = [
        migrations.CreateModel(
            name="WorkerSign",
            fields=[
                ("id", models.BigAutoField(primary_key=True, serialize=False)),
                ("queue", models.CharField(max_length=100)),
                ("node", models.CharField(max_length=200)),
                ("seen_at", models.DateTimeField()),
            ],
        ),
        migrations.AddConstraint(
            model_name="workersign",
            constraint=models.UniqueConstraint(fields=("queue", "node"), name="sign_of_worker"),
        ),
        migrations.AddIndex(
            model_name="ingestionjob",
            index=models.Index(
                condition=models.Q(("lease_owner", ""), _negated=True),
                fields=["lease_until"],
                name="job_leased",
            ),
        ),
    ]
