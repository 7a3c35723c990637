from __future__ import annotations

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("chat", "0003_initial")]

    operations = [
        migrations.AddField("conversation", "filters", models.JSONField(blank=True, default=dict)),
        migrations.AddField("message", "narrowing", models.JSONField(default=dict)),
    ]
