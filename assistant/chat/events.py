"""What a reader of an answer is told: a closed set of events, one encoder for pages and API.

The model's reasoning is in none of them, and nothing a document says can make one.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from typing import Any, ClassVar


@dataclass(frozen=True, slots=True)
class Status:
    """What is going on before the first word: ``searching``, ``reading`` or ``writing``."""

    name: ClassVar[str] = "status"
    stage: str
    queue_position: int | None = None


@dataclass(frozen=True, slots=True)
class Sources:
    """The numbered passages offered to the model; ``passages`` as in the API contract."""

    name: ClassVar[str] = "sources"
    passages: list[dict[str, Any]]


@dataclass(frozen=True, slots=True)
class Delta:
    """The next piece of the answer, Markdown with ``[n]`` markers."""

    name: ClassVar[str] = "delta"
    text: str


@dataclass(frozen=True, slots=True)
class CitationFound:
    """A marker in the text, bound to a quote from its source."""

    name: ClassVar[str] = "citation"
    number: int
    quote: str
    verified: bool
    locator: dict[str, Any]
    document_id: str = ""
    version_id: str = ""


@dataclass(frozen=True, slots=True)
class Done:
    """The answer is complete, or was stopped (``finish_reason`` ``stopped``)."""

    name: ClassVar[str] = "done"
    answer_id: str | None
    finish_reason: str
    usage: dict[str, int] = field(default_factory=dict)
    timings_ms: dict[str, float] = field(default_factory=dict)
    abstained: bool = False


@dataclass(frozen=True, slots=True)
class Failed:
    """The answer ended early; ``detail`` tells a person what happened and what to do."""

    name: ClassVar[str] = "error"
    code: str
    detail: str
    retryable: bool


Event = Status | Sources | Delta | CitationFound | Done | Failed
_BY_NAME: dict[str, type[Any]] = {
    kind.name: kind for kind in (Status, Sources, Delta, CitationFound, Done, Failed)
}

PING = ": ping\n\n"


def is_last(event: Event) -> bool:
    return isinstance(event, Done | Failed)


def to_json(event: Event) -> str:
    data = {key: value for key, value in asdict(event).items() if value is not None}
    return json.dumps(data, ensure_ascii=False, separators=(",", ":"))


def from_json(name: str, data: str) -> Event:
    """Raises KeyError or TypeError for anything ``to_json`` did not write."""
    event: Event = _BY_NAME[name](**json.loads(data))
    return event


def encode(event: Event, number: int) -> str:
    """One server-sent event. JSON has no raw line breaks, so data is one line."""
    return f"id: {number}\nevent: {event.name}\ndata: {to_json(event)}\n\n"
