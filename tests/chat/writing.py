"""An answer written as the web process does it, in the event loop of a test."""

from __future__ import annotations

from uuid import UUID

from assistant.chat import answering, recording
from assistant.chat.models import Message
from assistant.chat.turn import Turn
from assistant.database import in_database


@in_database
def _claimed(answer_id: UUID) -> Turn | None:
    rows = Message.objects.select_related("conversation__user", "parent")
    return recording.claim(rows.get(pk=answer_id))


async def generate(answer_id: UUID) -> None:
    """Nothing happens when somebody else has the answer."""
    turn = await _claimed(answer_id)
    if turn is not None:
        await answering.generate(turn)
