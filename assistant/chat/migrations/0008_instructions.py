from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("chat", "0007_branches"),
    ]

    operations = [
        migrations.AddField(
            model_name="bundle",
            name="instructions",
            field=models.JSONField(default=dict),
        ),
    ]
