"""One question and what its answer has become so far; lives only while it is written."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from uuid import UUID

from assistant.chat.events import CitationFound
from assistant.permissions.policy import AnyUser
from assistant.retrieval import Passage
from inference.types import ChatMessage, Effort


@dataclass(slots=True)
class Turn:
    """``collections`` None means all that ``user`` may read; ``answer_id`` None: nothing stored."""

    question: str
    user: AnyUser
    collections: Sequence[UUID] | None = None
    effort: Effort | None = None
    history: Sequence[ChatMessage] = ()
    answer_id: UUID | None = None
    is_over: bool = False
    text: str = ""
    query: str = ""
    model: str = ""
    prompt_digest: str = ""
    passages: list[Passage] = field(default_factory=list)
    citations: list[CitationFound] = field(default_factory=list)
    timings_ms: dict[str, float] = field(default_factory=dict)
