"""An answer written as the web process does it, in the event loop of a test."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any
from uuid import UUID

from asgiref.sync import sync_to_async

from assistant.chat import answering, recording, stream
from assistant.chat.models import Message
from assistant.chat.presenting import present
from assistant.chat.turn import Turn
from assistant.database import in_database
from assistant.users.models import User


@in_database
def _turn(answer_id: UUID) -> Turn:
    rows = Message.objects.select_related("conversation__user", "parent")
    return recording.turn_for(rows.get(pk=answer_id))


async def shown(answer: Message, part: str, *, user: User) -> Any:
    """A part of an answer as ``user`` may see it."""
    return await sync_to_async(lambda: getattr(present(answer, user=user), part))()


async def followed(answer: Message, *, user: User, after: int = 0) -> AsyncGenerator[str, None]:
    """Its events, as whoever connects now is told them."""
    row = await Message.objects.aget(pk=answer.pk)
    is_withheld = await shown(row, "is_withheld", user=user)
    frames = stream.follow(answer.pk, user=user, after=after, is_withheld=is_withheld)
    async with aclosing(frames):
        async for each in frames:
            yield each


async def generate(answer_id: UUID) -> None:
    await answering.generate(await _turn(answer_id))
