"""A conversation as its page shows it: the branch that is chosen, with the ways to the others."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final
from uuid import UUID

from django.http import HttpRequest, HttpResponse
from django.shortcuts import render

from assistant.chat.branching import Placed, branch_of, placed
from assistant.chat.models import Conversation, Message
from assistant.chat.presenting import presented
from assistant.users.models import User
from assistant.web.answers import view_of

# Told to the page: the list in the sidebar is not as it was.
HISTORY_CHANGED: Final = "history-changed"
# A question that is refused: words under the composer.
REFUSED_STATUS: Final = 422
REFUSED_TEMPLATE: Final = "web/_composer_error.html"
REFUSED_HEADERS: Final = {"HX-Retarget": "#composer-error", "HX-Reswap": "innerHTML"}


@dataclass(frozen=True, slots=True)
class Switch:
    """The ``position``-th of ``count`` messages in one place, from 1; None where none is beside.

    ``place`` names the place: it is the same for all of them.
    """

    position: int
    count: int
    previous: UUID | None
    following: UUID | None
    place: UUID


def _switch(shown: Placed) -> Switch | None:
    beside = shown.siblings
    if len(beside) < 2:
        return None
    at = beside.index(shown.message.pk)
    return Switch(
        position=at + 1,
        count=len(beside),
        previous=beside[at - 1] if at else None,
        following=beside[at + 1] if at + 1 < len(beside) else None,
        place=shown.message.parent_id or shown.message.conversation_id,
    )


def turn_of(place: Placed, *, user: User) -> dict[str, Any]:
    """What the template of a question or of an answer takes."""
    (turn,) = _turns([place], user=user)
    return turn


def turns_of(conversation: Conversation, *, user: User) -> list[dict[str, Any]]:
    return _turns(branch_of(conversation), user=user)


def _turns(places: Sequence[Placed], *, user: User) -> list[dict[str, Any]]:
    messages = presented([place.message for place in places], user=user)
    return [
        {"question": shown.message, "switch": _switch(place)}
        if shown.message.role == Message.Role.QUESTION
        else {"answer": view_of(shown), "switch": _switch(place)}
        for shown, place in zip(messages, places, strict=True)
    ]


def new_turn(question: Message, answer: Message, *, user: User) -> dict[str, Any]:
    """``turns`` of a question that was just asked."""
    return {"turns": _turns([placed(question), placed(answer)], user=user)}


def refused(request: HttpRequest, words: str) -> HttpResponse:
    """Words under the composer; the question stays in its field."""
    response = render(request, REFUSED_TEMPLATE, {"words": words}, status=REFUSED_STATUS)
    for name, value in REFUSED_HEADERS.items():
        response.headers[name] = value
    return response
