"""One-shot answers, stored answers, their events, stopping and rating."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any, ClassVar
from uuid import UUID

from django.conf import settings
from django.http.response import HttpResponseBase
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiParameter
from rest_framework import exceptions, status
from rest_framework.request import Request
from rest_framework.response import Response

from assistant.api.answer_shapes import (
    AgainBody,
    AnswerSerializer,
    AskedSerializer,
    FeedbackBody,
    FeedbackSerializer,
    OneShotAnswerSerializer,
    QuestionBody,
    answer_json,
    asked_json,
    feedback_json,
)
from assistant.api.authentication import token_of
from assistant.api.base import AsyncAPIView, OwnedViewSet, in_thread
from assistant.api.idempotency import IDEMPOTENCY_KEY, idempotency_key
from assistant.api.problems import problem_of
from assistant.api.schema import operation
from assistant.api.search import ignored_of
from assistant.api.streaming import event_stream
from assistant.chat import actions, choosing, queueing, stream
from assistant.chat.answering import answer_once
from assistant.chat.events import (
    PING,
    CitationFound,
    Delta,
    Done,
    Event,
    Failed,
    Sources,
    encode,
)
from assistant.chat.models import Message
from assistant.chat.presenting import present
from assistant.chat.watching import with_heartbeat
from assistant.documents.models import Collection
from assistant.engines import ModelChoice
from assistant.users.models import ApiToken
from inference.types import EngineError

_TAGS = ["answers"]
_EVENTS = (
    "Server-sent events; `data` is JSON and `id` a growing number. `status` {stage,"
    " queue_position?}, `sources` {passages: [{number, document, text, locator, score}],"
    " understood}, `delta` {text}, `citation` {number, quote, verified, locator}, then `done`"
    " {answer_id, finish_reason, usage, timings_ms, abstained} or `error` {code, detail,"
    " retryable}."
)


class AnswersView(AsyncAPIView):
    read_actions: ClassVar[frozenset[str]] = frozenset({"post"})

    @operation(
        "answer",
        request=QuestionBody,
        responses={
            (200, "application/json"): OneShotAnswerSerializer,
            (200, "text/event-stream"): OpenApiTypes.STR,
        },
        errors=[400, 404, 413, 415, 429, 502],
        example={"question": "How many days of leave do I have?", "effort": "low"},
        tags=_TAGS,
    )
    async def post(self, request: Request) -> HttpResponseBase:
        """Answer one question with citations; nothing is stored.

        With `stream: true` the answer comes as server-sent events: see `answer_events`.
        """
        body = QuestionBody(data=request.data)
        body.is_valid(raise_exception=True)
        sent = body.validated_data
        collections = sent.get("collections")
        # Before the first byte: a stream that has begun cannot become a 404.
        question, choice, asker = await in_thread(self._checked, sent, token_of(request))
        ticket = await queueing.take_place(asker)
        produced = answer_once(
            question=question,
            user=self.person,
            collections=collections,
            filters=sent.get("filters"),
            ignored=ignored_of(sent),
            effort=sent.get("effort"),
            choice=choice,
            ticket=ticket,
        )
        if sent["stream"]:
            return event_stream(_frames(produced))
        return Response(await _collect(produced))

    def _checked(
        self, sent: dict[str, Any], token: ApiToken | None
    ) -> tuple[str, ModelChoice | None, queueing.Asker]:
        """The question, the model and whose turn it is; one visit to the request's thread."""
        wanted = set(sent.get("collections") or ())
        if wanted:
            readable = Collection.objects.for_user(self.person).filter(pk__in=wanted)
            if readable.count() != len(wanted):
                raise exceptions.NotFound
        return (
            actions.check_question(sent["question"]),
            choosing.chosen(self.person, sent.get("model", "")),
            queueing.Asker.of(self.person, token),
        )


async def _frames(produced: AsyncGenerator[Event, None]) -> AsyncGenerator[str, None]:
    """The events as they come. What goes wrong becomes the last event: the status is long sent."""
    number = 0
    async with aclosing(with_heartbeat(produced, seconds=settings.HEARTBEAT_SECONDS)) as events:
        try:
            async for event in events:
                if event is None:
                    yield PING
                    continue
                number += 1
                yield encode(event, number)
        except Exception as error:  # noqa: BLE001 - told to the reader, without its inside
            problem = problem_of(error)
            failed = Failed(
                problem.code or "internal", problem.detail, retryable=problem.status == 503
            )
            yield encode(failed, number + 1)


async def _collect(produced: AsyncGenerator[Event, None]) -> dict[str, Any]:
    """All events of an answer as one object. Raises EngineError when it failed."""
    text: list[str] = []
    documents: dict[int, Any] = {}
    citations: list[dict[str, Any]] = []
    understood: dict[str, Any] = {}
    async with aclosing(produced):
        async for event in produced:
            if isinstance(event, Delta):
                text.append(event.text)
            elif isinstance(event, Sources):
                documents = {p["number"]: p["document"] for p in event.passages}
                understood = event.understood
            elif isinstance(event, CitationFound):
                citations.append(
                    {
                        "number": event.number,
                        "document": documents.get(event.number),
                        "quote": event.quote,
                        "locator": event.locator,
                        "verified": event.verified,
                    }
                )
            elif isinstance(event, Failed):
                raise EngineError(event.code, event.detail, retryable=event.retryable)
            elif isinstance(event, Done):
                return {
                    "answer": "".join(text),
                    "citations": citations,
                    "abstained": event.abstained,
                    "support": event.support or {},
                    "searched": event.searched or {},
                    "understood": understood,
                    "finish_reason": event.finish_reason,
                    "timings_ms": event.timings_ms,
                    "usage": event.usage,
                }
    raise AssertionError("an answer ended without Done or Failed")


class AnswerViewSet(OwnedViewSet):
    """Answers of the caller's own conversations."""

    queryset = Message.objects.filter(role=Message.Role.ANSWER)
    serializer_class = AnswerSerializer
    actions_allowed: ClassVar[frozenset[str]] = frozenset({"retrieve", "stop", "again", "feedback"})
    read_actions: ClassVar[frozenset[str]] = frozenset({"stop", "again", "feedback"})

    @operation("get_answer", responses={200: AnswerSerializer}, errors=[404], tags=_TAGS)
    def retrieve(self, request: Request, pk: UUID) -> Response:
        """A stored answer. What the caller may not read any more is left out of its evidence."""
        return Response(answer_json(self.get_object(), user=self.person))

    @operation("stop_answer", request=None, responses={204: None}, errors=[404], tags=_TAGS)
    def stop(self, request: Request, pk: UUID) -> Response:
        """Stop writing it; what was written stays. Nothing happens to one that has ended."""
        actions.stop_answer(self.get_object(), user=self.person)
        return Response(status=status.HTTP_204_NO_CONTENT)

    @operation(
        "ask_again",
        request=AgainBody,
        parameters=[IDEMPOTENCY_KEY],
        responses={202: AskedSerializer},
        errors=[400, 404, 409, 413, 415, 429],
        example={"effort": "high"},
        tags=_TAGS,
    )
    def again(self, request: Request, pk: UUID) -> Response:
        """Have its question answered once more, for instance by another model.

        The new answer stands beside this one, on a branch of its own that is shown from now on.
        """
        answer = self.get_object()
        body = AgainBody(data=request.data)
        body.is_valid(raise_exception=True)
        sent = body.validated_data
        asked = actions.ask_again(
            answer,
            user=self.person,
            effort=sent.get("effort"),
            model=sent.get("model"),
            filters=sent.get("filters"),
            ignored=ignored_of(sent) if "understand" in sent else None,
            idempotency_key=idempotency_key(request),
            token=token_of(request),
        )
        return Response(asked_json(*asked, user=self.person), status=status.HTTP_202_ACCEPTED)

    @operation(
        "rate_answer",
        request=FeedbackBody,
        responses={200: FeedbackSerializer},
        errors=[400, 404, 413, 415],
        example={"rating": "down", "reasons": ["outdated"], "comment": "The policy changed."},
        tags=_TAGS,
    )
    def feedback(self, request: Request, pk: UUID) -> Response:
        """Rate it. The last rating counts."""
        answer = self.get_object()
        body = FeedbackBody(data=request.data)
        body.is_valid(raise_exception=True)
        feedback = actions.rate_answer(
            answer,
            rating=body.validated_data["rating"],
            reasons=body.validated_data.get("reasons", []),
            comment=body.validated_data.get("comment", ""),
            user=self.person,
        )
        return Response(feedback_json(feedback))


class AnswerEventsView(AsyncAPIView):
    @operation(
        "answer_events",
        parameters=[
            OpenApiParameter(
                "Last-Event-ID", int, OpenApiParameter.HEADER, description="Go on after this id."
            ),
            OpenApiParameter("after", int, description="The same, where headers cannot be set."),
        ],
        responses={(200, "text/event-stream"): OpenApiTypes.STR},
        errors=[400, 404],
        tags=_TAGS,
    )
    async def get(self, request: Request, pk: UUID) -> HttpResponseBase:
        is_withheld = await in_thread(self._is_withheld, pk)
        frames = stream.follow(
            pk, user=self.person, after=_position(request), is_withheld=is_withheld
        )
        return event_stream(frames)

    get.__doc__ = _EVENTS

    def _is_withheld(self, pk: UUID) -> bool:
        """Checked on every connect, not only when the question was asked."""
        mine = Message.objects.for_user(self.person)
        answer = mine.filter(pk=pk, role=Message.Role.ANSWER).first()
        if answer is None:
            raise exceptions.NotFound
        return present(answer, user=self.person).is_withheld


def _position(request: Request) -> int:
    text = request.headers.get("Last-Event-ID") or request.query_params.get("after") or "0"
    if not (text.isascii() and text.isdigit() and len(text) <= 15):
        raise exceptions.ValidationError({"after": ["This must be the id of an event."]})
    return int(text)
