"""What an answer was made from, and the same question asked again on today's index."""

from __future__ import annotations

from typing import Any, ClassVar
from uuid import UUID

from rest_framework import exceptions, serializers
from rest_framework.request import Request
from rest_framework.response import Response

from assistant.api.answer_shapes import StoredSourceSerializer, source_json
from assistant.api.base import AsyncAPIView, in_thread
from assistant.api.schema import operation
from assistant.audit.models import record
from assistant.chat import bundling
from assistant.chat.models import Bundle

_TAGS = ["answers"]


class ScoredSourceSerializer(StoredSourceSerializer):
    score = serializers.FloatField()


class BundleSerializer(serializers.Serializer[Any]):
    """Text and prompt are null where the caller may not read every source."""

    answer = serializers.UUIDField()
    question = serializers.CharField()
    text = serializers.CharField(allow_null=True)
    queries = serializers.ListField(child=serializers.CharField())
    sources = ScoredSourceSerializer(many=True)
    rights_hash = serializers.CharField(help_text="SHA-256 of the collections that were readable.")
    prompt_digest = serializers.CharField(help_text="SHA-256 of the prompt's messages.")
    prompt = serializers.ListField(
        child=serializers.ListField(child=serializers.CharField()),
        allow_null=True,
        help_text="Role and text of each message, for as long as the site keeps them.",
    )
    instructions = serializers.DictField(
        child=serializers.JSONField(allow_null=True),
        help_text="SHA-256 and tokens of the instructions in the prompt: of the `site`, of"
        " `collections`; `left_out` are collections whose instructions had no room.",
    )
    model = serializers.CharField()
    sampling = serializers.DictField(child=serializers.JSONField())
    timings_ms = serializers.DictField(child=serializers.FloatField())
    created_at = serializers.DateTimeField()


class ComparedSerializer(serializers.Serializer[Any]):
    """A passage that was offered then, or is now; a rank of null means that it was not."""

    title = serializers.CharField()
    document_id = serializers.UUIDField(allow_null=True)
    then = serializers.IntegerField(allow_null=True)
    now = serializers.IntegerField(allow_null=True)
    then_score = serializers.FloatField(allow_null=True)
    now_score = serializers.FloatField(allow_null=True)
    is_new_version = serializers.BooleanField()


class ReplaySerializer(serializers.Serializer[Any]):
    text = serializers.CharField()
    abstained = serializers.BooleanField()
    error = serializers.CharField(allow_blank=True)
    compared = ComparedSerializer(many=True)
    timings_ms = serializers.DictField(child=serializers.FloatField())


class _BundleView(AsyncAPIView):
    def found(self, pk: UUID, action: str) -> Bundle:
        """Own answers, and those whose sources the caller manages; recorded when another's."""
        bundle = bundling.bundle_for(self.person, pk)
        if bundle is None:
            raise exceptions.NotFound
        if bundle.answer.conversation.user_id != self.person.pk:
            record(self.person, action, bundle.answer)
        return bundle


class BundleView(_BundleView):
    @operation("get_bundle", responses={200: BundleSerializer}, errors=[404], tags=_TAGS)
    async def get(self, request: Request, pk: UUID) -> Response:
        """What an answer was made from, for its reader and for managers of all its sources."""
        return Response(await in_thread(self._json, pk))

    def _json(self, pk: UUID) -> dict[str, Any]:
        bundle = self.found(pk, "answer.inspect")
        account = bundling.account_of(bundle, user=self.person)
        answer = bundle.answer
        return {
            "answer": str(answer.pk),
            "question": account.question,
            "text": None if account.is_withheld else account.text,
            "queries": bundle.queries,
            "sources": [
                source_json(view) | {"score": source["score"]}
                for view, source in zip(account.sources, answer.sources, strict=True)
            ],
            "rights_hash": bundle.rights_hash,
            "prompt_digest": answer.prompt_digest,
            "prompt": account.prompt,
            "instructions": bundle.instructions,
            "model": answer.model,
            "sampling": bundle.sampling,
            "timings_ms": answer.timings_ms,
            "created_at": bundle.created_at,
        }


class ReplayView(_BundleView):
    read_actions: ClassVar[frozenset[str]] = frozenset({"post"})

    @operation(
        "replay_answer",
        request=None,
        responses={200: ReplaySerializer},
        errors=[404],
        tags=_TAGS,
    )
    async def post(self, request: Request, pk: UUID) -> Response:
        """Ask the same again, on today's index and under the caller's own rights, and compare."""
        bundle = await in_thread(self.found, pk, "answer.replay")
        made = await bundling.replay(bundle, user=self.person)
        return Response(
            {
                "text": made.text,
                "abstained": made.abstained,
                "error": made.error,
                "compared": [ComparedSerializer(row).data for row in made.compared],
                "timings_ms": made.timings_ms,
            }
        )
