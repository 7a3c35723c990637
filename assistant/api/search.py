"""Passages for a query, under the caller's rights."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from django.conf import settings
from django.core.exceptions import ValidationError
from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from assistant.api.base import AsyncAPIView
from assistant.api.fields import (
    BodySerializer,
    DocumentReferenceSerializer,
    LocatorSerializer,
)
from assistant.api.schema import operation
from assistant.chat.answering import document_json
from assistant.documents.kinds import KINDS
from assistant.retrieval import Passage
from assistant.retrieval.filters import check
from assistant.retrieval.understanding import FIELDS, as_json, asearch_understanding

MAX_COLLECTIONS = 1000


def collections_field() -> serializers.ListField:
    return serializers.ListField(
        child=serializers.UUIDField(),
        required=False,
        allow_null=True,
        max_length=MAX_COLLECTIONS,
        help_text="Look only here. Without it: everything the caller may read. One that is absent"
        " or not for the caller makes the whole request 404.",
    )


def checked_length(text: str, *, name: str) -> str:
    """Raises ValidationError in words when a question is longer than the site allows."""
    limit = settings.MAX_QUESTION_CHARACTERS
    if len(text) > limit:
        raise serializers.ValidationError(
            f"The {name} has {len(text):,} characters; at most {limit:,} are allowed. Shorten it,"
            " or upload the long text as a document and ask about it."
        )
    return text


class FiltersBody(serializers.Serializer[Any]):
    """All of them must hold. Times are half-open: from `*_after` on, before `*_before`."""

    types = serializers.ListField(
        child=serializers.ChoiceField(choices=[kind.name for kind in KINDS]), required=False
    )
    media_types = serializers.ListField(child=serializers.CharField(), required=False)
    dated_after = serializers.DateField(
        required=False,
        help_text="What the document is of: `date`, `published` or `year` of its metadata, else a"
        " year in its title, path or file name, else its upload.",
    )
    dated_before = serializers.DateField(required=False)
    created_after = serializers.DateTimeField(
        required=False, help_text="When the version that answers was uploaded."
    )
    created_before = serializers.DateTimeField(required=False)
    updated_after = serializers.DateTimeField(
        required=False, help_text="When the document last changed."
    )
    updated_before = serializers.DateTimeField(required=False)
    uploaded_by = serializers.ListField(
        child=serializers.CharField(),
        required=False,
        help_text="E-mail addresses of who uploaded the version that answers; `me` for yourself.",
    )
    folder = serializers.CharField(
        required=False, help_text="Such as `HR/Travel`, with all that lies below it."
    )
    metadata = serializers.DictField(
        required=False, help_text="A key with a value, or with a list of which one is enough."
    )
    document_ids = serializers.ListField(child=serializers.UUIDField(), required=False)


@extend_schema_field(FiltersBody)
class FiltersField(serializers.DictField):
    """Checked where it becomes SQL, and kept as it was sent."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(required=False, allow_null=True, **kwargs)

    def to_internal_value(self, data: Any) -> Any:
        value = super().to_internal_value(data)
        try:
            check(value)
        except ValidationError as error:
            raise serializers.ValidationError(error.message_dict) from None
        return value


def understand_field() -> serializers.BooleanField:
    return serializers.BooleanField(
        default=True,
        help_text="Whether words such as “documents uploaded since March 2025” narrow the search;"
        " `understood` tells what was read. Filters that are sent count before words.",
    )


def ignored_of(sent: Mapping[str, Any]) -> tuple[str, ...]:
    return () if sent["understand"] else FIELDS


class SearchBody(BodySerializer):
    query = serializers.CharField(
        error_messages={
            "blank": "Write what to search for.",
            "required": "Write what to search for.",
        }
    )
    collections = collections_field()
    limit = serializers.IntegerField(default=10, min_value=1, max_value=100)
    mode = serializers.ChoiceField(choices=["hybrid", "vector", "keyword"], default="hybrid")
    rerank = serializers.BooleanField(default=True)
    filters = FiltersField()
    understand = understand_field()

    def validate_query(self, value: str) -> str:
        return checked_length(value, name="query")


class HintSerializer(serializers.Serializer[Any]):
    """A filter that was read from the words of a question."""

    field = serializers.ChoiceField(choices=list(FIELDS))
    words = serializers.CharField(help_text="For people: “2025 only”.")
    phrase = serializers.CharField(help_text="What it was read from.")
    filters = FiltersBody()
    collections = serializers.ListField(child=serializers.UUIDField())


class UnderstoodSerializer(serializers.Serializer[Any]):
    """`is_used` is false where the hints left nothing that fits, and all was searched."""

    hints = HintSerializer(many=True)
    is_used = serializers.BooleanField()


class SearchResultSerializer(serializers.Serializer[Any]):
    document = DocumentReferenceSerializer()
    collection = serializers.UUIDField()
    text = serializers.CharField()
    score = serializers.FloatField(
        help_text="The probability that the passage answers, 0 to 1; falls down the list."
    )
    locator = LocatorSerializer()


class SearchResponse(serializers.Serializer[Any]):
    results = SearchResultSerializer(many=True)
    understood = UnderstoodSerializer()
    timings_ms = serializers.DictField(child=serializers.FloatField())


def passage_json(passage: Passage) -> dict[str, Any]:
    return {
        "document": document_json(passage),
        "collection": str(passage.collection_id),
        "text": passage.text,
        "score": round(passage.score, 6),
        "locator": passage.locator.to_json(),
    }


class SearchView(AsyncAPIView):
    read_actions: ClassVar[frozenset[str]] = frozenset({"post"})

    @operation(
        "search",
        request=SearchBody,
        responses={200: SearchResponse},
        errors=[400, 404, 413, 415, 502],
        example={"query": "How many days of leave do I have?", "limit": 5},
        tags=["search"],
    )
    async def post(self, request: Request) -> Response:
        """The passages that answer a query best, best first; several of one document may come."""
        sent = SearchBody.read(request.data)
        found, understood = await asearch_understanding(
            sent["query"],
            user=self.person,
            question=sent["query"],
            ignored=ignored_of(sent),
            collections=sent.get("collections"),
            limit=sent["limit"],
            mode=sent["mode"],
            filters=sent.get("filters"),
            rerank=sent["rerank"],
        )
        return Response(
            {
                "results": [passage_json(passage) for passage in found.passages],
                "understood": as_json(understood),
                "timings_ms": found.timings_ms,
            }
        )
