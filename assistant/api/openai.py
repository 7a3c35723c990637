"""``/v1``: the part of OpenAI's API that its clients use, answered from the caller's documents.

A model is where to look: ``knowledge`` is everything the caller may read, ``knowledge:NAME`` the
collections of that name. Earlier messages are the conversation; nothing is stored. What the
caller sends about the model's work never goes to the model server but for ``temperature``,
``max_tokens`` and ``reasoning_effort``, each within the site's limits.
"""

from __future__ import annotations

import json
import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, ClassVar, Final, cast
from uuid import UUID, uuid4

from django.conf import settings
from django.http import HttpRequest, JsonResponse
from django.http.response import HttpResponseBase
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from assistant.api.authentication import token_of
from assistant.api.base import ApiView, AsyncAPIView, in_thread
from assistant.api.parsers import TolerantJSONParser, storable
from assistant.api.problems import NOT_FOUND, Problem, ProblemError, problem_of
from assistant.api.streaming import event_stream
from assistant.chat import actions, queueing
from assistant.chat.answering import answer_once
from assistant.chat.events import (
    PING,
    CitationFound,
    Delta,
    Done,
    Event,
    Failed,
    Sources,
    Status,
)
from assistant.chat.watching import with_heartbeat
from assistant.documents.models import Collection
from inference.types import ChatMessage, Effort, EngineError

MODEL: Final = "knowledge"
_MAX_MESSAGES: Final = 200
_WISHES_CHARACTERS: Final = 2000
_KINDS: Final = {
    401: "authentication_error",
    403: "permission_error",
    429: "rate_limit_error",
}
_EFFORTS: Final = {"none": "low", "minimal": "low", "xhigh": "high"}


class OpenAIErrors(ApiView):
    """Errors as OpenAI's clients read them; statuses and words are those of the REST API."""

    schema = None  # OpenAI's own reference describes these; docs/api.md says what is ours

    def handle_exception(self, exc: Exception) -> Response:
        response = super().handle_exception(exc)
        problem = problem_of(exc)
        return Response(
            error_json(problem),
            status=response.status_code,
            headers={k: v for k, v in response.headers.items() if k != "Content-Type"},
        )


def error_json(problem: Problem) -> dict[str, Any]:
    kind = _KINDS.get(problem.status) or (
        "server_error" if problem.status >= 500 else "invalid_request_error"
    )
    field = next(iter(problem.errors or {}), None)
    return {
        "error": {
            "message": problem.detail,
            "type": kind,
            "param": None if field == "detail" else field,
            "code": problem.code or None,
        }
    }


def not_found(request: HttpRequest, *args: object, **kwargs: object) -> JsonResponse:
    """A path under ``/v1/`` that leads nowhere."""
    return JsonResponse(error_json(NOT_FOUND), status=404)


def _unknown_model(name: str) -> ProblemError:
    return ProblemError(
        Problem(
            404,
            f"The model {name[:200]!r} does not exist or you do not have access to it.",
            code="model_not_found",
        )
    )


class ModelsView(OpenAIErrors):
    """What can be asked: everything, and each collection by its name."""

    def get(self, request: Request) -> Response:
        names = Collection.objects.for_user(self.person).values_list("name", "created_at")
        made = {
            f"{MODEL}:{name}": int(at.timestamp()) for name, at in names.order_by("-created_at")
        }
        rows = [_model_json(MODEL, 0), *(_model_json(name, made[name]) for name in sorted(made))]
        return Response({"object": "list", "data": rows})


class ModelView(OpenAIErrors):
    def get(self, request: Request, model: str) -> Response:
        readable_collections(self.person, model)
        return Response(_model_json(model, 0))


def _model_json(name: str, created: int) -> dict[str, Any]:
    return {"id": name, "object": "model", "created": created, "owned_by": "knowledge-assistant"}


def readable_collections(user: Any, model: str) -> list[UUID] | None:
    """The collections that ``model`` names; None for all. Raises a 404 that tells nothing."""
    if model == MODEL:
        return None
    prefix, _, name = model.partition(":")
    if prefix != MODEL or not name:
        raise _unknown_model(model)
    found = list(Collection.objects.for_user(user).filter(name=name).values_list("pk", flat=True))
    if not found:
        raise _unknown_model(model)
    return found


class MessageBody(serializers.Serializer[Any]):
    """``content`` is text, or parts of type ``text``."""

    role = serializers.ChoiceField(choices=["system", "developer", "user", "assistant"])
    content = serializers.JSONField(required=False, allow_null=True)

    def validate_content(self, value: Any) -> str:
        if value is None or isinstance(value, str):
            return storable(value or "")
        parts: list[str] = []
        for part in value if isinstance(value, list) else [None]:
            text = part.get("text") if isinstance(part, dict) else None
            if not isinstance(text, str):
                raise serializers.ValidationError(
                    "Only text can be sent. Upload files to a collection and ask about them."
                )
            parts.append(text)
        return storable("\n".join(parts))


class StreamOptionsBody(serializers.Serializer[Any]):
    include_usage = serializers.BooleanField(default=False)


class CompletionBody(serializers.Serializer[Any]):
    """What is read of a request. All else is ignored: nothing of it reaches the model server."""

    model = serializers.CharField(max_length=300)
    messages = MessageBody(many=True, allow_empty=False)
    stream = serializers.BooleanField(default=False)
    stream_options = StreamOptionsBody(required=False, allow_null=True)
    temperature = serializers.FloatField(
        required=False, allow_null=True, min_value=0.0, max_value=2.0
    )
    max_tokens = serializers.IntegerField(required=False, allow_null=True, min_value=1)
    max_completion_tokens = serializers.IntegerField(required=False, allow_null=True, min_value=1)
    reasoning_effort = serializers.ChoiceField(
        choices=["none", "minimal", "low", "medium", "high", "xhigh"],
        required=False,
        allow_null=True,
    )
    n = serializers.IntegerField(required=False, allow_null=True, min_value=1, max_value=1)

    def validate_messages(self, value: list[dict[str, Any]]) -> list[dict[str, Any]]:
        if len(value) > _MAX_MESSAGES:
            raise serializers.ValidationError(f"At most {_MAX_MESSAGES} messages can be sent.")
        if value[-1]["role"] != "user":
            raise serializers.ValidationError("The last message must be the user's question.")
        return value


@dataclass(frozen=True, slots=True)
class _Shape:
    """What all pieces of one answer have in common."""

    id: str
    model: str
    created: int

    def chunk(self, choices: list[dict[str, Any]], **extra: Any) -> str:
        body = {
            "id": self.id,
            "object": "chat.completion.chunk",
            "created": self.created,
            "model": self.model,
            "choices": choices,
            **extra,
        }
        return f"data: {_encoder.encode(body)}\n\n"

    def delta(self, delta: dict[str, Any], finish: str | None = None, **extra: Any) -> str:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}
        return self.chunk([choice], **extra)


_encoder = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"))


class ChatCompletionsView(AsyncAPIView, OpenAIErrors):
    # Others take any character, and load generators send random ones.
    parser_classes = (TolerantJSONParser,)
    read_actions: ClassVar[frozenset[str]] = frozenset({"post"})

    async def post(self, request: Request) -> HttpResponseBase:
        body = CompletionBody(data=request.data)
        body.is_valid(raise_exception=True)
        sent = body.validated_data
        *earlier, last = sent["messages"]

        def checked() -> tuple[list[UUID] | None, str, queueing.Asker]:
            return (
                readable_collections(self.person, sent["model"]),
                actions.check_question(last.get("content", "")),
                queueing.Asker.of(self.person, token_of(request)),
            )

        collections, question, asker = await in_thread(checked)
        ticket = await queueing.take_place(asker)
        effort = sent.get("reasoning_effort")
        produced = answer_once(
            question=question,
            user=self.person,
            collections=collections,
            effort=cast("Effort | None", _EFFORTS.get(effort, effort)),
            history=_history(earlier),
            wishes=_wishes(earlier),
            max_tokens=_max_tokens(sent),
            temperature=sent.get("temperature"),
            ticket=ticket,
        )
        shape = _Shape(f"chatcmpl-{uuid4().hex}", sent["model"], int(time.time()))
        if not sent["stream"]:
            return Response(await _completion(shape, produced))
        options = sent.get("stream_options") or {}
        return event_stream(
            await _begun(_chunks(shape, produced, with_usage=options.get("include_usage", False)))
        )


def _history(messages: Sequence[dict[str, Any]]) -> list[ChatMessage]:
    return [
        ChatMessage(message["role"], message["content"])
        for message in messages
        if message["role"] in ("user", "assistant") and message.get("content")
    ]


def _wishes(messages: Sequence[dict[str, Any]]) -> str:
    """System messages count as wishes of the reader: they shape the answer and lift no rule."""
    texts = [m.get("content", "") for m in messages if m["role"] in ("system", "developer")]
    return "\n".join(filter(None, texts))[:_WISHES_CHARACTERS]


def _max_tokens(sent: dict[str, Any]) -> int | None:
    wanted = sent.get("max_completion_tokens") or sent.get("max_tokens")
    return min(wanted, settings.LLM_MAX_TOKENS) if wanted else None


@dataclass(slots=True)
class _Evidence:
    """Collects what the last piece says about the text before it."""

    documents: dict[int, Any]
    citations: list[dict[str, Any]]

    def note(self, event: Event) -> None:
        if isinstance(event, Sources):
            self.documents = {p["number"]: p["document"] for p in event.passages}
        elif isinstance(event, CitationFound):
            self.citations.append(
                {
                    "number": event.number,
                    "document": self.documents.get(event.number),
                    "quote": event.quote,
                    "locator": event.locator,
                    "verified": event.verified,
                }
            )

    def of(self, done: Done) -> dict[str, Any]:
        """Beside what OpenAI sends: the same as ``POST /api/v1/answers/`` says of an answer."""
        return {
            "citations": self.citations,
            "abstained": done.abstained,
            "support": done.support or {},
            "searched": done.searched or {},
        }


def _usage(done: Done) -> dict[str, int]:
    prompt = done.usage.get("prompt_tokens", 0)
    completion = done.usage.get("completion_tokens", 0)
    return {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
    }


def _finish_reason(done: Done) -> str:
    return "length" if done.finish_reason == "length" else "stop"


def _error_of(failed: Failed) -> EngineError:
    return EngineError(failed.code, failed.detail, retryable=failed.retryable)


async def _completion(shape: _Shape, produced: AsyncGenerator[Event, None]) -> dict[str, Any]:
    """The whole answer. Raises EngineError when it failed."""
    text: list[str] = []
    evidence = _Evidence({}, [])
    async with aclosing(produced):
        async for event in produced:
            evidence.note(event)
            if isinstance(event, Delta):
                text.append(event.text)
            elif isinstance(event, Failed):
                raise _error_of(event)
            elif isinstance(event, Done):
                message = {
                    "role": "assistant",
                    "content": "".join(text),
                    "refusal": None,
                    **evidence.of(event),
                }
                choice = {
                    "index": 0,
                    "message": message,
                    "logprobs": None,
                    "finish_reason": _finish_reason(event),
                }
                return {
                    "id": shape.id,
                    "object": "chat.completion",
                    "created": shape.created,
                    "model": shape.model,
                    "choices": [choice],
                    "usage": _usage(event),
                }
    raise AssertionError("an answer ended without Done or Failed")


async def _chunks(
    shape: _Shape, produced: AsyncGenerator[Event, None], *, with_usage: bool
) -> AsyncGenerator[str, None]:
    """Frames of the answer, from its first word on, or from the first silence.

    Raises what goes wrong before that; afterwards it becomes the last frame.
    """
    evidence = _Evidence({}, [])
    extra = {"usage": None} if with_usage else {}
    role = shape.delta({"role": "assistant", "content": ""}, **extra)
    # Text is all that differs between most frames.
    head, tail = shape.delta({"content": "\0"}, **extra).split('"\\u0000"')
    begun = False
    async with aclosing(with_heartbeat(produced, seconds=settings.HEARTBEAT_SECONDS)) as events:
        try:
            async for event in events:
                if event is None or (isinstance(event, Status) and event.stage == "thinking"):
                    yield PING if begun else role
                    begun = True
                elif isinstance(event, Delta):
                    text = f"{head}{_encoder.encode(event.text)}{tail}"
                    yield text if begun else role + text
                    begun = True
                elif isinstance(event, Failed):
                    raise _error_of(event)
                elif isinstance(event, Done):
                    final = evidence.of(event)
                    yield shape.delta(final, _finish_reason(event), **final, **extra)
                    if with_usage:
                        yield shape.chunk([], usage=_usage(event))
                    yield "data: [DONE]\n\n"
                    return
                else:
                    evidence.note(event)
        except Exception as error:
            if not begun:
                raise
            yield f"data: {_encoder.encode(error_json(problem_of(error)))}\n\n"


async def _begun(frames: AsyncGenerator[str, None]) -> AsyncGenerator[str, None]:
    """``frames`` once the first is there: what fails before it is told by the status."""
    first = await anext(frames)

    async def all_of_them() -> AsyncGenerator[str, None]:
        async with aclosing(frames):
            yield first
            async for frame in frames:
                yield frame

    return all_of_them()
