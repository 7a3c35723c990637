"""How questions, answers and conversations look from outside."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers

from assistant.api.fields import (
    BodySerializer,
    DocumentReferenceSerializer,
    LocatorSerializer,
)
from assistant.api.search import (
    FiltersBody,
    FiltersField,
    UnderstoodSerializer,
    checked_length,
    collections_field,
    understand_field,
)
from assistant.chat.branching import Placed
from assistant.chat.choosing import EFFORTS
from assistant.chat.models import AnswerStatus, Conversation, Feedback, Message
from assistant.chat.presenting import (
    CitationView,
    Presented,
    SourceView,
    present,
    presented,
)
from assistant.users.models import User


def effort_field() -> serializers.ChoiceField:
    return serializers.ChoiceField(
        choices=list(EFFORTS),
        required=False,
        help_text="How long a reasoning model may think. Default: the site's setting.",
    )


def model_field() -> serializers.CharField:
    return serializers.CharField(
        required=False,
        max_length=200,
        help_text="The name of one of the site's further models. Default: the site's own.",
    )


class QuestionBody(BodySerializer):
    """A one-shot question."""

    question = serializers.CharField(
        error_messages=dict.fromkeys(("blank", "required"), "Write a question.")
    )
    collections = collections_field()
    filters = FiltersField()
    understand = understand_field()
    stream = serializers.BooleanField(default=False)
    effort = effort_field()
    model = model_field()

    def validate_question(self, value: str) -> str:
        return checked_length(value, name="question")


class MessageBody(BodySerializer):
    """The next question of a conversation."""

    content = serializers.CharField(
        error_messages=dict.fromkeys(("blank", "required"), "Write a question.")
    )
    filters = FiltersField(help_text="For this question, instead of the conversation's own.")
    understand = understand_field()
    effort = effort_field()
    model = model_field()
    parent = serializers.UUIDField(  # type: ignore[assignment]  # a field, not the property
        required=False,
        allow_null=True,
        help_text="The answer that it follows; `null`: it begins the conversation. With the"
        " `parent` of an earlier question it takes that question's place on a branch of its own."
        " Default: the last answer of the branch that is shown.",
    )

    def validate_content(self, value: str) -> str:
        return checked_length(value, name="question")


class AgainBody(BodySerializer):
    """What to do differently; what is left out is as it was for the answer."""

    filters = FiltersField()
    understand = serializers.BooleanField(
        required=False, help_text="Whether the question's own words may narrow what is searched."
    )
    effort = effort_field()
    model = serializers.CharField(
        required=False,
        allow_blank=True,
        max_length=200,
        help_text="The name of one of the site's further models; empty: the site's own.",
    )


class ConversationBody(BodySerializer):
    title = serializers.CharField(required=False, allow_blank=True, max_length=200)
    collections = collections_field()
    filters = FiltersField(help_text="For all its next questions.")


class ConversationChangeBody(ConversationBody):
    branch = serializers.UUIDField(
        required=False,
        help_text="One of its messages: the branch through it is shown from now on.",
    )


class FeedbackBody(BodySerializer):
    rating = serializers.ChoiceField(choices=Feedback.Rating.values)
    reasons = serializers.ListField(
        child=serializers.CharField(max_length=100), required=False, max_length=20
    )
    comment = serializers.CharField(required=False, allow_blank=True, max_length=5000)


class FeedbackSerializer(serializers.Serializer[Any]):
    rating = serializers.ChoiceField(choices=Feedback.Rating.values)
    reasons = serializers.ListField(child=serializers.CharField())
    comment = serializers.CharField(allow_blank=True)
    created_at = serializers.DateTimeField()


class ConversationSerializer(serializers.Serializer[Any]):
    id = serializers.UUIDField()
    title = serializers.CharField(allow_blank=True)
    collections = serializers.ListField(child=serializers.UUIDField())
    filters = FiltersBody()
    created_at = serializers.DateTimeField()
    updated_at = serializers.DateTimeField()


@extend_schema_field(
    {"type": "string", "enum": list(AnswerStatus.values)}, component_name="AnswerStatus"
)
class AnswerStatusField(serializers.ChoiceField):
    def __init__(self, **kwargs: Any) -> None:
        super().__init__(choices=AnswerStatus.values, **kwargs)


@extend_schema_field(
    {"type": "string", "enum": list(Message.Role.values)}, component_name="MessageRole"
)
class MessageRoleField(serializers.ChoiceField):
    def __init__(self, **kwargs: Any) -> None:
        super().__init__(choices=Message.Role.values, **kwargs)


class MessageSerializer(serializers.Serializer[Any]):
    id = serializers.UUIDField()
    role = MessageRoleField()
    status = AnswerStatusField()
    text = serializers.CharField(allow_blank=True)
    parent = serializers.UUIDField(  # type: ignore[assignment]  # a field, not the property
        allow_null=True,
        help_text="Of an answer its question; of a question the answer that it follows.",
    )
    created_at = serializers.DateTimeField()


class BranchMessageSerializer(MessageSerializer):
    siblings = serializers.ListField(
        child=serializers.UUIDField(),
        help_text="Those in its place, oldest first: the edits of a question, the answers to a"
        " question that was asked again. One that failed before its first word is left out once"
        " another answers.",
    )


class ConversationDetailSerializer(ConversationSerializer):
    messages = BranchMessageSerializer(many=True)


class AnswerReferenceSerializer(serializers.Serializer[Any]):
    id = serializers.UUIDField()
    status = AnswerStatusField()


class AskedSerializer(serializers.Serializer[Any]):
    question = MessageSerializer()
    answer = AnswerReferenceSerializer()


class OneShotCitationSerializer(serializers.Serializer[Any]):
    number = serializers.IntegerField(help_text="The `[n]` in the text.")
    document = DocumentReferenceSerializer(allow_null=True)
    quote = serializers.CharField()
    locator = LocatorSerializer()
    verified = serializers.BooleanField(
        help_text="The quote was found in the stored text and supports the sentence."
    )


class SentenceSupportSerializer(serializers.Serializer[Any]):
    """One sentence of the text and what it stands on."""

    start = serializers.IntegerField()
    end = serializers.IntegerField()
    basis = serializers.CharField(
        help_text="`verified`: a verified citation; `similar`: a sentence of a passage says about"
        " the same; `none`: nothing was found."
    )
    score = serializers.FloatField()
    number = serializers.IntegerField(allow_null=True)


class ConflictSerializer(serializers.Serializer[Any]):
    """Two sources that give different numbers for one thing."""

    number = serializers.IntegerField()
    other = serializers.IntegerField()
    unit = serializers.CharField()
    values = serializers.ListField(child=serializers.CharField())
    dated = serializers.ListField(child=serializers.DateField())


class SupportSerializer(serializers.Serializer[Any]):
    """Empty for an answer without text, and where the text is withheld."""

    sentences = SentenceSupportSerializer(many=True, required=False)
    conflicts = ConflictSerializer(many=True, required=False)


class SearchedCollectionSerializer(serializers.Serializer[Any]):
    id = serializers.UUIDField()
    name = serializers.CharField()


class SearchedSerializer(serializers.Serializer[Any]):
    """What was looked through; empty where something was found."""

    documents = serializers.IntegerField(required=False)
    collections = SearchedCollectionSerializer(many=True, required=False)
    query = serializers.CharField(required=False)
    filters = FiltersBody(required=False)


class OneShotAnswerSerializer(serializers.Serializer[Any]):
    answer = serializers.CharField()
    citations = OneShotCitationSerializer(many=True)
    abstained = serializers.BooleanField()
    support = SupportSerializer()
    searched = SearchedSerializer()
    understood = UnderstoodSerializer()
    finish_reason = serializers.CharField()
    timings_ms = serializers.DictField(child=serializers.FloatField())
    usage = serializers.DictField(child=serializers.IntegerField())


class CitedDocumentSerializer(serializers.Serializer[Any]):
    id = serializers.UUIDField()
    title = serializers.CharField()
    version_id = serializers.UUIDField()


class StoredCitationSerializer(serializers.Serializer[Any]):
    """Without document and quote when the caller may not read the source any more."""

    number = serializers.IntegerField()
    document = CitedDocumentSerializer(allow_null=True)
    quote = serializers.CharField(allow_null=True)
    locator = LocatorSerializer(allow_null=True)
    verified = serializers.BooleanField()
    available = serializers.BooleanField()


class StoredSourceSerializer(serializers.Serializer[Any]):
    number = serializers.IntegerField()
    document = CitedDocumentSerializer(allow_null=True)
    text = serializers.CharField(allow_null=True)
    locator = LocatorSerializer(allow_null=True)
    available = serializers.BooleanField()


class AnswerErrorSerializer(serializers.Serializer[Any]):
    code = serializers.CharField()
    detail = serializers.CharField()


class NarrowingSerializer(serializers.Serializer[Any]):
    """Where an answer was looked for: the filters that were chosen, and those its words asked for.

    `understood` is there once it was searched.
    """

    filters = FiltersBody(required=False)
    ignored = serializers.ListField(child=serializers.CharField(), required=False)
    understood = UnderstoodSerializer(required=False)


class AnswerSerializer(MessageSerializer):
    conversation = serializers.UUIDField()
    citations = StoredCitationSerializer(many=True)
    sources = StoredSourceSerializer(many=True)
    abstained = serializers.BooleanField()
    support = SupportSerializer()
    searched = SearchedSerializer()
    follow_ups = serializers.ListField(
        child=serializers.CharField(),
        help_text="Questions proposed after it; they come some seconds after its end.",
    )
    narrowing = NarrowingSerializer()
    finish_reason = serializers.CharField(allow_blank=True)
    model = serializers.CharField(allow_blank=True)
    effort = serializers.CharField(allow_blank=True, help_text="Empty: the site's setting.")
    usage = serializers.DictField(child=serializers.IntegerField())
    timings_ms = serializers.DictField(child=serializers.FloatField())
    error = AnswerErrorSerializer(allow_null=True)
    feedback = FeedbackSerializer(allow_null=True)
    finished_at = serializers.DateTimeField(allow_null=True)


def conversation_json(conversation: Conversation) -> dict[str, Any]:
    return {
        "id": str(conversation.pk),
        "title": conversation.title,
        "collections": [str(collection.pk) for collection in conversation.collections.all()],
        "filters": conversation.filters,
        "created_at": conversation.created_at,
        "updated_at": conversation.updated_at,
    }


def message_json(shown: Presented) -> dict[str, Any]:
    """An answer whose sources the caller may no longer read has no text."""
    message = shown.message
    return {
        "id": str(message.pk),
        "role": message.role,
        "status": message.status,
        "text": shown.text,
        "parent": str(message.parent_id) if message.parent_id else None,
        "created_at": message.created_at,
    }


def branch_json(branch: Sequence[Placed], *, user: User) -> list[dict[str, Any]]:
    messages = presented([placed.message for placed in branch], user=user)
    return [
        message_json(shown) | {"siblings": [str(pk) for pk in placed.siblings]}
        for shown, placed in zip(messages, branch, strict=True)
    ]


def asked_json(question: Message, answer: Message, *, user: User) -> dict[str, Any]:
    return {
        "question": message_json(present(question, user=user)),
        "answer": {"id": str(answer.pk), "status": answer.status},
    }


def answer_json(answer: Message, *, user: User) -> dict[str, Any]:
    """A stored answer; its evidence is read again under the rights of this moment."""
    feedback: Feedback | None = getattr(answer, "feedback", None)
    error = {"code": answer.error_code, "detail": answer.error_detail}
    shown = present(answer, user=user)
    return message_json(shown) | {
        "conversation": str(answer.conversation_id),
        "citations": [_citation_json(view) for view in shown.citations],
        "sources": [source_json(view) for view in shown.read_sources],
        "abstained": answer.abstained,
        "support": shown.support,
        "searched": shown.searched,
        "follow_ups": shown.follow_ups,
        "narrowing": answer.narrowing,
        "finish_reason": answer.finish_reason,
        "model": answer.model,
        "effort": answer.effort,
        "usage": answer.usage,
        "timings_ms": answer.timings_ms,
        "error": error if answer.error_code else None,
        "feedback": feedback_json(feedback) if feedback else None,
        "finished_at": answer.finished_at,
    }


def feedback_json(feedback: Feedback) -> dict[str, Any]:
    return {
        "rating": feedback.rating,
        "reasons": feedback.reasons,
        "comment": feedback.comment,
        "created_at": feedback.created_at,
    }


def _document(view: CitationView | SourceView) -> dict[str, Any] | None:
    if not view.available:
        return None
    return {
        "id": str(view.document_id),
        "title": view.title,
        "version_id": str(view.version_id),
    }


def _citation_json(view: CitationView) -> dict[str, Any]:
    return {
        "number": view.number,
        "document": _document(view),
        "quote": view.quote,
        # Headings are words of the document too.
        "locator": view.locator.to_json() if view.available else None,
        "verified": view.verified,
        "available": view.available,
    }


def source_json(view: SourceView) -> dict[str, Any]:
    return {
        "number": view.number,
        "document": _document(view),
        "text": view.text,
        "locator": view.locator.to_json() if view.available else None,
        "available": view.available,
    }
