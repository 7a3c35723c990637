from __future__ import annotations

import django.db.models.deletion
from django.db import migrations, models

# So far every conversation was one line: each message follows the one before it.
PARENTS = """
    UPDATE chat_message AS message SET parent_id = earlier.id_before
    FROM (
        SELECT id, lag(id) OVER (PARTITION BY conversation_id ORDER BY ordinal) AS id_before
        FROM chat_message
    ) AS earlier
    WHERE message.id = earlier.id AND earlier.id_before IS NOT NULL
"""
LEAVES = """
    UPDATE chat_conversation AS conversation SET leaf_id = newest.id
    FROM (
        SELECT DISTINCT ON (conversation_id) conversation_id, id
        FROM chat_message ORDER BY conversation_id, ordinal DESC
    ) AS newest
    WHERE newest.conversation_id = conversation.id
"""
# Nobody knows any more which of them a person chose, so all of them stay.
TITLES = "UPDATE chat_conversation SET title_by = 'person' WHERE title <> ''"
# The indexes of the new columns come last, and wait for no check that is still to be made.
CHECKED = "SET CONSTRAINTS ALL IMMEDIATE"


class Migration(migrations.Migration):
    dependencies = [("chat", "0006_support")]

    operations = [
        migrations.AddField(
            "message",
            "parent",
            models.ForeignKey(
                null=True,
                on_delete=django.db.models.deletion.CASCADE,
                related_name="children",
                to="chat.message",
            ),
        ),
        migrations.AddField(
            "conversation",
            "leaf",
            models.ForeignKey(
                null=True,
                on_delete=django.db.models.deletion.SET_NULL,
                related_name="+",
                to="chat.message",
            ),
        ),
        migrations.AddField(
            "conversation",
            "title_by",
            models.CharField(
                choices=[("question", "question"), ("model", "model"), ("person", "person")],
                default="question",
                max_length=10,
            ),
        ),
        migrations.AddField("message", "follow_ups", models.JSONField(null=True)),
        migrations.RunSQL([PARENTS, LEAVES, TITLES, CHECKED], migrations.RunSQL.noop),
    ]
