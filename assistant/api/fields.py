"""Serializer parts shared by the endpoints. Serializers are allow-lists: the rest is ignored."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from typing import Any, Final

from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers
from rest_framework.exceptions import ParseError

from assistant.api.parsers import loads

_METADATA_BYTES: Final = 64 * 1024
# Who does something is known from the credential, and what it is called from the server.
_NEVER_FROM_CLIENTS: Final = frozenset(
    {"id", "pk", "user", "user_id", "owner", "owner_id", "created_by", "created_by_id", "tenant"}
)


class BodySerializer(serializers.Serializer[Any]):
    """A request body. Unknown names are ignored; choosing an id or an owner is refused."""

    @classmethod
    def read(cls, data: Any) -> dict[str, Any]:
        """What ``data`` says, checked. Raises ValidationError.

        Reading keeps nothing, so all requests share the fields: to copy them takes milliseconds.
        """
        checked: dict[str, Any] = _one_of(cls).run_validation(data)
        return checked

    def to_internal_value(self, data: Any) -> Any:
        if isinstance(data, Mapping):
            chosen = sorted(_NEVER_FROM_CLIENTS.intersection(data) - set(self.fields))
            if chosen:
                raise serializers.ValidationError(
                    {name: ["This cannot be chosen. Leave it out."] for name in chosen}
                )
        return super().to_internal_value(data)


@cache
def _one_of(kind: type[BodySerializer]) -> BodySerializer:
    return kind()


@extend_schema_field(OpenApiTypes.OBJECT)
class MetadataField(serializers.Field[dict[str, Any], Any, dict[str, Any], Any]):
    """An object; in a form, an object as JSON text. At most 64 KiB."""

    def to_internal_value(self, data: Any) -> dict[str, Any]:
        if isinstance(data, str):
            try:
                data = loads(data)
            except ParseError as error:
                raise serializers.ValidationError(str(error.detail)) from None
        if not isinstance(data, dict):
            raise serializers.ValidationError('This must be a JSON object such as {"team": "HR"}.')
        if len(json.dumps(data)) > _METADATA_BYTES:
            raise serializers.ValidationError("The metadata is larger than 64 KiB.")
        return data

    def to_representation(self, value: dict[str, Any]) -> dict[str, Any]:
        return value


def source_url_field() -> serializers.URLField:
    return serializers.URLField(
        required=False,
        allow_blank=True,
        max_length=2000,
        help_text="Where the document lives; shown as a link beside citations.",
    )


def external_id_field(*, required: bool) -> serializers.CharField:
    return serializers.CharField(
        required=required,
        allow_blank=not required,
        max_length=500,
        help_text="Your own name for the document, unique in the collection: the same name again"
        " is a new version.",
    )


class PageBoxSerializer(serializers.Serializer[Any]):
    """Fractions of the page's width and height, origin top left; pages count from 1."""

    page = serializers.IntegerField()
    x0 = serializers.FloatField()
    y0 = serializers.FloatField()
    x1 = serializers.FloatField()
    y1 = serializers.FloatField()


class LocatorSerializer(serializers.Serializer[Any]):
    """Where a text is in its version: a half-open range of characters and how to find it."""

    page = serializers.IntegerField(required=False)
    heading_path = serializers.ListField(child=serializers.CharField(), required=False)
    char_start = serializers.IntegerField()
    char_end = serializers.IntegerField()
    boxes = PageBoxSerializer(many=True, required=False)


class DocumentReferenceSerializer(serializers.Serializer[Any]):
    """How an answer or a search names a document."""

    id = serializers.UUIDField()
    external_id = serializers.CharField(allow_null=True)
    title = serializers.CharField()
    version = serializers.IntegerField()
    version_id = serializers.UUIDField()
    source_url = serializers.CharField(allow_blank=True)
    collection = serializers.UUIDField()
