from __future__ import annotations

from typing import Any
from uuid import UUID, uuid4

import pytest
from asgiref.sync import sync_to_async

from assistant.chat import rights
from assistant.chat.turn import Turn
from assistant.users.models import User
from tests.factories import make_user

pytestmark = pytest.mark.django_db(transaction=True)


async def test_sources_found_during_the_check_are_not_taken_for_withdrawn(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The check runs in a thread while retrieval ends on the event loop."""

    class Found:
        document_id = uuid4()

    found: Any = Found()
    turn = Turn(question="?", user=await sync_to_async(make_user)())

    def retrieval_ends(user: User, documents: set[UUID]) -> set[UUID]:
        turn.passages.append(found)
        return set()

    monkeypatch.setattr(rights, "_visible", retrieval_ends)
    assert await rights.withdrawn([turn]) == []
    assert await rights.withdrawn([turn]) == [turn]
