"""A conversation is a tree: an edited question and an answer made again stand beside the first.

Nothing is ever written over. The branch that is shown, told by the API and given to the model is
the way from the conversation's ``leaf`` up to its beginning.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from uuid import UUID

from assistant.chat.models import Conversation, Message


@dataclass(frozen=True, slots=True)
class Placed:
    """A message of a branch, and the ids of all that stand in its place, itself included."""

    message: Message
    siblings: tuple[UUID, ...]


@dataclass(frozen=True, slots=True)
class _Tree:
    """``parents`` of all messages, as they came; ``children`` under None begin the conversation."""

    parents: Mapping[UUID, UUID | None]
    children: Mapping[UUID | None, Sequence[UUID]]

    def path(self, end: UUID | None) -> list[UUID]:
        """From the beginning to ``end``."""
        way: list[UUID] = []
        while end is not None:
            way.append(end)
            end = self.parents[end]
        return way[::-1]

    def siblings(self, message: UUID) -> tuple[UUID, ...]:
        return tuple(self.children[self.parents[message]])


def _tree(conversation: Conversation) -> _Tree:
    parents = dict(conversation.messages.order_by("ordinal").values_list("pk", "parent_id"))
    children: dict[UUID | None, list[UUID]] = {}
    for message, parent in parents.items():
        children.setdefault(parent, []).append(message)
    return _Tree(parents, children)


def branch_of(conversation: Conversation) -> list[Placed]:
    """The branch that is shown, from its first question on."""
    tree = _tree(conversation)
    path = tree.path(conversation.leaf_id)
    rows = conversation.messages.select_related("feedback").in_bulk(path)
    return [Placed(rows[pk], tree.siblings(pk)) for pk in path]


def placed(message: Message) -> Placed:
    """One message of a conversation with those in its place."""
    beside = message.conversation.messages.filter(parent=message.parent_id)
    return Placed(message, tuple(beside.order_by("ordinal").values_list("pk", flat=True)))


def before(message: Message, *, limit: int) -> list[Message]:
    """The last ``limit`` messages that lead to this one, oldest first."""
    path = _tree(message.conversation).path(message.parent_id)[-limit:]
    rows = message.conversation.messages.in_bulk(path)
    return [rows[pk] for pk in path]


def newest_below(message: Message) -> UUID:
    """The end of the branch that goes on from ``message``, the newest where there are several."""
    tree = _tree(message.conversation)
    end: UUID = message.pk
    while below := tree.children.get(end):
        end = below[-1]
    return end
