"""Passages for a query, under the caller's rights."""

from __future__ import annotations

from typing import Any, ClassVar

from django.conf import settings
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
from assistant.retrieval import Passage, asearch

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
    """All of them must hold. `created_*` is when the version was uploaded."""

    document_ids = serializers.ListField(
        child=serializers.UUIDField(), required=False, max_length=1000
    )
    media_types = serializers.ListField(
        child=serializers.CharField(max_length=100), required=False, max_length=100
    )
    created_after = serializers.DateTimeField(required=False)
    created_before = serializers.DateTimeField(required=False)
    metadata = serializers.DictField(child=serializers.CharField(), required=False)


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
    filters = serializers.DictField(required=False, allow_null=True)

    def validate_query(self, value: str) -> str:
        return checked_length(value, name="query")


class SearchRequest(SearchBody):
    """As documented; ``filters`` itself is checked where it becomes SQL."""

    filters = FiltersBody(required=False)  # type: ignore[assignment]


class SearchResultSerializer(serializers.Serializer[Any]):
    document = DocumentReferenceSerializer()
    collection = serializers.UUIDField()
    text = serializers.CharField()
    score = serializers.FloatField(help_text="Higher is better; comparable within one answer.")
    locator = LocatorSerializer()


class SearchResponse(serializers.Serializer[Any]):
    results = SearchResultSerializer(many=True)
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
        request=SearchRequest,
        responses={200: SearchResponse},
        errors=[400, 404, 413, 415, 502],
        example={"query": "How many days of leave do I have?", "limit": 5},
        tags=["search"],
    )
    async def post(self, request: Request) -> Response:
        """The passages that answer a query best, best first; several of one document may come."""
        body = SearchBody(data=request.data)
        body.is_valid(raise_exception=True)
        sent = body.validated_data
        found = await asearch(
            sent["query"],
            user=self.person,
            collections=sent.get("collections"),
            limit=sent["limit"],
            mode=sent["mode"],
            filters=sent.get("filters"),
            rerank=sent["rerank"],
        )
        return Response(
            {
                "results": [passage_json(passage) for passage in found.passages],
                "timings_ms": found.timings_ms,
            }
        )
