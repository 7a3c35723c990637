import django.db.models.deletion
from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("chat", "0008_instructions"),
        ("documents", "0005_private_collections"),
    ]

    operations = [
        migrations.AddField(
            model_name="conversation",
            name="attachments",
            field=models.OneToOneField(
                editable=False,
                null=True,
                on_delete=django.db.models.deletion.SET_NULL,
                related_name="+",
                to="documents.collection",
            ),
        ),
    ]
