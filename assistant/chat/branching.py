"""A conversation is a tree: an edited question and an answer made again stand beside the first.

Nothing is ever written over. An answer that ended before its first word is not offered, though,
where another one answers and nobody went on from it: people asked again because of it. The branch
that is shown, told by the API and given to the model is the way from the conversation's ``leaf`` up
to its beginning.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Final
from uuid import UUID

from django.db.models import Q

from assistant.chat.models import AnswerStatus, Conversation, Message


@dataclass(frozen=True, slots=True)
class Placed:
    """A message of a branch, and the ids of those offered in its place, itself included."""

    message: Message
    siblings: tuple[UUID, ...]


_BROKEN: Final = (AnswerStatus.STOPPED, AnswerStatus.INTERRUPTED, AnswerStatus.FAILED)


@dataclass(frozen=True, slots=True)
class _Tree:
    """``parents`` of all messages, as they came; ``children`` under None begin the conversation.

    ``wordless`` have no text yet; ``broken`` are those of them that will not get any.
    """

    parents: Mapping[UUID, UUID | None]
    children: Mapping[UUID | None, Sequence[UUID]]
    wordless: Collection[UUID]
    broken: Collection[UUID]

    def path(self, end: UUID | None) -> list[UUID]:
        """From the beginning to ``end``."""
        way: list[UUID] = []
        while end is not None:
            way.append(end)
            end = self.parents[end]
        return way[::-1]

    def offered(self, parent: UUID | None) -> list[UUID]:
        """What can be gone on to below ``parent``."""
        below = self.children.get(parent, ())
        if all(message in self.wordless for message in below):
            return list(below)
        return [pk for pk in below if pk not in self.broken or pk in self.children]

    def siblings(self, message: UUID) -> tuple[UUID, ...]:
        parent = self.parents[message]
        offered = {message, *self.offered(parent)}
        return tuple(pk for pk in self.children[parent] if pk in offered)


def _tree(conversation: Conversation) -> _Tree:
    rows = conversation.messages.order_by("ordinal").annotate(is_wordless=Q(text=""))
    parents: dict[UUID, UUID | None] = {}
    children: dict[UUID | None, list[UUID]] = {}
    wordless: dict[UUID, str] = {}
    for message, parent, status, is_wordless in rows.values_list(
        "pk", "parent_id", "status", "is_wordless"
    ):
        parents[message] = parent
        children.setdefault(parent, []).append(message)
        if is_wordless:
            wordless[message] = status
    broken = {message for message, status in wordless.items() if status in _BROKEN}
    return _Tree(parents, children, wordless, broken)


def branch_of(conversation: Conversation) -> list[Placed]:
    """The branch that is shown, from its first question on."""
    tree = _tree(conversation)
    path = tree.path(conversation.leaf_id)
    rows = conversation.messages.select_related("feedback").in_bulk(path)
    return [Placed(rows[pk], tree.siblings(pk)) for pk in path]


def placed(message: Message) -> Placed:
    """One message of a conversation with those in its place."""
    return Placed(message, _tree(message.conversation).siblings(message.pk))


def before(message: Message, *, limit: int) -> list[Message]:
    """The last ``limit`` messages that lead to this one, oldest first."""
    if message.parent_id is None:
        return []
    path = _tree(message.conversation).path(message.parent_id)[-limit:]
    rows = message.conversation.messages.in_bulk(path)
    return [rows[pk] for pk in path]


def newest_below(message: Message) -> UUID:
    """The end of the branch that goes on from ``message``, the newest where several are offered."""
    tree = _tree(message.conversation)
    end: UUID = message.pk
    while below := tree.offered(end):
        end = below[-1]
    return end
