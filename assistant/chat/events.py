"""What a reader of an answer is told: a closed set of events, one encoder for pages and API.

The model's reasoning is in none of them, and nothing a document says can make one.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field, fields
from typing import Any, ClassVar, get_args


@dataclass(frozen=True, slots=True)
class Status:
    """What is going on before the first word, such as ``searching`` or ``writing``."""

    name: ClassVar[str] = "status"
    stage: str
    queue_position: int | None = None


@dataclass(frozen=True, slots=True)
class Sources:
    """The numbered passages offered to the model; ``passages`` as in the API contract.

    ``understood`` is what the words of the question narrowed, as ``understanding.as_json`` has it.
    """

    name: ClassVar[str] = "sources"
    passages: list[dict[str, Any]]
    understood: dict[str, Any] = field(default_factory=dict)


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
    """The answer is complete, or was stopped (``finish_reason`` ``stopped``).

    ``support`` is what each sentence stands on, see ``support.support_of``; ``searched`` is what
    was looked through when nothing was found, see ``abstaining.Searched``.
    """

    name: ClassVar[str] = "done"
    answer_id: str | None
    finish_reason: str
    usage: dict[str, int] = field(default_factory=dict)
    timings_ms: dict[str, float] = field(default_factory=dict)
    abstained: bool = False
    support: dict[str, Any] | None = None
    searched: dict[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Failed:
    """The answer ended early; ``detail`` tells a person what happened and what to do."""

    name: ClassVar[str] = "error"
    code: str
    detail: str
    retryable: bool


Event = Status | Sources | Delta | CitationFound | Done | Failed

_FIELDS = {kind: tuple(each.name for each in fields(kind)) for kind in get_args(Event)}
LAST = frozenset({Done.name, Failed.name})
PING = ": ping\n\n"
# Told to readers when their web process goes: their browser comes back to another one.
COME_BACK = "retry: 1000\n\n"


def is_last(event: Event) -> bool:
    return event.name in LAST


# ``json.dumps`` with options makes an encoder for every call.
_encoder = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"))


def to_json(event: Event) -> str:
    if isinstance(event, Delta):  # there are a hundred of these for each other one
        return f'{{"text":{_encoder.encode(event.text)}}}'
    values = ((name, getattr(event, name)) for name in _FIELDS[type(event)])
    return _encoder.encode({name: value for name, value in values if value is not None})


def encode(event: Event, number: int) -> str:
    return frame(number, event.name, to_json(event))


def frame(number: int, name: str, data: str) -> str:
    """One server-sent event. JSON has no raw line breaks, so data is one line."""
    return f"id: {number}\nevent: {name}\ndata: {data}\n\n"
