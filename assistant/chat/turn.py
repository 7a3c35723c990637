"""One question and what its answer has become so far; lives only while it is written."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from time import perf_counter
from typing import Any
from uuid import UUID

from assistant.chat.events import CitationFound, Event
from assistant.chat.instructing import Instructions
from assistant.engines import ModelChoice
from assistant.permissions.policy import AnyUser
from assistant.retrieval import Passage
from assistant.retrieval.understanding import Understood
from inference.types import ChatMessage, Effort, GenerationRequest


@dataclass(slots=True, eq=False)
class Turn:
    """``collections`` None means all that ``user`` may read; ``answer_id`` None: nothing stored.

    ``choice`` None: the site's own model. ``ticket`` is its place in the line when one was taken
    before; else it is the answer's id.
    ``attachments`` is the private collection of the conversation's files, None without any.
    ``ignored`` are the fields that the question's own words may not narrow.
    Turns of one ``affinity`` have prompts that begin alike, see GenerationRequest.
    ``verdict`` is the last event of an answer that is ended from outside, see ``watching``.
    """

    question: str
    user: AnyUser
    collections: Sequence[UUID] | None = None
    filters: Mapping[str, Any] | None = None
    attachments: UUID | None = None
    ignored: Sequence[str] = ()
    effort: Effort | None = None
    choice: ModelChoice | None = None
    history: Sequence[ChatMessage] = ()
    answer_id: UUID | None = None
    ticket: UUID | None = None
    affinity: str = ""
    wishes: str = ""
    max_tokens: int | None = None
    temperature: float | None = None
    started: float = field(default_factory=perf_counter)
    verdict: Event | None = None
    puller: asyncio.Task[Any] | None = None
    cancels: int = 0
    text: str = ""
    query: str = ""
    understood: Understood = field(default_factory=Understood)
    model: str = ""
    prompt_digest: str = ""
    rights_hash: str = ""
    instructions: Instructions = field(default_factory=Instructions)
    request: GenerationRequest | None = None
    passages: list[Passage] = field(default_factory=list)
    citations: list[CitationFound] = field(default_factory=list)
    support: dict[str, Any] = field(default_factory=dict)
    searched: dict[str, Any] = field(default_factory=dict)
    timings_ms: dict[str, float] = field(default_factory=dict)

    def is_ended(self) -> bool:
        """Whether a verdict was given; it changes while something else is waited for."""
        return self.verdict is not None
