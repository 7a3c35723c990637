"""Collections and who may use them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, ClassVar
from uuid import UUID

from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers, status
from rest_framework.request import Request
from rest_framework.response import Response

from assistant.api.base import ScopedViewSet, page_of
from assistant.api.fields import BodySerializer
from assistant.api.schema import operation
from assistant.documents import actions
from assistant.documents.models import Collection
from assistant.permissions.actions import GrantSpec, replace_grants
from assistant.permissions.models import Grant
from assistant.permissions.policy import AnyUser, abilities
from assistant.permissions.roles import Role

_ROLES = [role.slug for role in Role]
_TAGS = ["collections"]


@extend_schema_field({"type": "string", "enum": _ROLES}, component_name="CollectionRole")
class RoleField(serializers.ChoiceField):
    def __init__(self, **kwargs: Any) -> None:
        super().__init__(choices=_ROLES, **kwargs)


class CollectionBody(BodySerializer):
    name = serializers.CharField(max_length=200)
    description = serializers.CharField(required=False, allow_blank=True, max_length=10_000)


class CollectionChangesBody(CollectionBody):
    instructions = serializers.CharField(
        required=False,
        allow_blank=True,
        max_length=100_000,
        help_text="For the model, when passages of this collection are used. How many tokens they"
        " may have is the site's setting.",
    )


class AbilitiesSerializer(serializers.Serializer[Any]):
    read = serializers.BooleanField()
    contribute = serializers.BooleanField()
    manage = serializers.BooleanField()


class CollectionSerializer(serializers.Serializer[Any]):
    id = serializers.UUIDField()
    name = serializers.CharField()
    description = serializers.CharField(allow_blank=True)
    instructions = serializers.CharField(
        allow_blank=True, allow_null=True, help_text="For the model. Null for all but managers."
    )
    role = RoleField(help_text="The caller's own role.")
    abilities = AbilitiesSerializer()
    created_at = serializers.DateTimeField()


class GrantBody(serializers.Serializer[Any]):
    """One of `user`, `group` and `everyone`, and a role."""

    user = serializers.EmailField(required=False)
    group = serializers.CharField(required=False, max_length=150)
    everyone = serializers.BooleanField(required=False)
    role = RoleField()

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        named = [key for key in ("user", "group", "everyone") if attrs.get(key)]
        if len(named) != 1:
            raise serializers.ValidationError("Name exactly one of user, group and everyone.")
        return attrs


class GrantsBody(BodySerializer):
    grants = serializers.ListField(child=GrantBody(), max_length=1000)


def roles_on(user: AnyUser, collections: Iterable[Collection]) -> dict[UUID, Role]:
    """The role of ``user`` on each of these readable collections, in two queries."""
    roles = {collection.pk: Role.READER for collection in collections}
    for role in (Role.CONTRIBUTOR, Role.MANAGER):
        reached = Collection.objects.for_user(user, role).filter(pk__in=roles)
        roles.update(dict.fromkeys(reached.values_list("pk", flat=True), role))
    return roles


def collection_json(collection: Collection, role: Role) -> dict[str, Any]:
    return {
        "id": str(collection.pk),
        "name": collection.name,
        "description": collection.description,
        "instructions": collection.instructions if role >= Role.MANAGER else None,
        "role": role.slug,
        "abilities": abilities(role),
        "created_at": collection.created_at,
    }


def grant_json(grant: Grant) -> dict[str, Any]:
    role = Role(grant.role).slug
    if grant.everyone:
        return {"everyone": True, "role": role}
    if grant.user is not None:
        return {"user": grant.user.email, "role": role}
    assert grant.group is not None
    return {"group": grant.group.name, "role": role}


class CollectionViewSet(ScopedViewSet):
    queryset = Collection.objects.all()
    serializer_class = CollectionSerializer
    basename = "collection"
    roles: ClassVar[dict[str, Role]] = {
        "list": Role.READER,
        "create": Role.READER,  # of nothing: whoever can sign in may make one, and manages it
        "retrieve": Role.READER,
        "partial_update": Role.MANAGER,
        "destroy": Role.MANAGER,
        "grants": Role.MANAGER,
        "replace_grants": Role.MANAGER,
    }

    @operation("list_collections", responses={200: CollectionSerializer(many=True)}, tags=_TAGS)
    def list(self, request: Request) -> Response:
        """Collections that the caller may read."""
        rows = page_of(self, self.get_queryset())
        roles = roles_on(request.user, rows)
        return self.get_paginated_response([collection_json(row, roles[row.pk]) for row in rows])

    @operation(
        "create_collection",
        request=CollectionBody,
        responses={201: CollectionSerializer},
        errors=[400, 413, 415],
        example={"name": "Handbook", "description": "How we work"},
        tags=_TAGS,
    )
    def create(self, request: Request) -> Response:
        """Make a collection. Its creator manages it, and nobody else sees it yet."""
        body = CollectionBody(data=request.data)
        body.is_valid(raise_exception=True)
        collection = actions.create_collection(
            name=body.validated_data["name"],
            description=body.validated_data.get("description", ""),
            actor=self.person,
        )
        return Response(collection_json(collection, Role.MANAGER), status=status.HTTP_201_CREATED)

    @operation("get_collection", responses={200: CollectionSerializer}, errors=[404], tags=_TAGS)
    def retrieve(self, request: Request, pk: UUID) -> Response:
        """One collection."""
        return self._one(self.get_object())

    @operation(
        "update_collection",
        request=CollectionChangesBody(partial=True),
        responses={200: CollectionSerializer},
        errors=[400, 404, 413, 415],
        tags=_TAGS,
    )
    def partial_update(self, request: Request, pk: UUID) -> Response:
        """Rename or describe it, or give the model instructions for what it writes from it."""
        collection = self.get_object()
        body = CollectionChangesBody(data=request.data, partial=True)
        body.is_valid(raise_exception=True)
        actions.update_collection(
            collection,
            name=body.validated_data.get("name", collection.name),
            description=body.validated_data.get("description", collection.description),
            instructions=body.validated_data.get("instructions"),
            actor=self.person,
        )
        return self._one(collection)

    @operation("delete_collection", responses={204: None}, errors=[404], tags=_TAGS)
    def destroy(self, request: Request, pk: UUID) -> Response:
        """Delete it with all its documents. From that moment nothing of it answers."""
        actions.delete_collection(self.get_object(), actor=self.person)
        return Response(status=status.HTTP_204_NO_CONTENT)

    @operation("get_grants", responses={200: GrantsBody}, errors=[404], tags=_TAGS)
    def grants(self, request: Request, pk: UUID) -> Response:
        """Who has which role on the collection."""
        return Response({"grants": self._grants(self.get_object())})

    @operation(
        "replace_grants",
        request=GrantsBody,
        responses={200: GrantsBody},
        errors=[400, 404, 413, 415],
        example={
            "grants": [
                {"user": "ada@example.com", "role": "manager"},
                {"group": "engineering", "role": "contributor"},
                {"everyone": True, "role": "reader"},
            ]
        },
        tags=_TAGS,
    )
    def replace_grants(self, request: Request, pk: UUID) -> Response:
        """Make this the whole access list. It counts from the next request on."""
        collection = self.get_object()
        body = GrantsBody(data=request.data)
        body.is_valid(raise_exception=True)
        specs = [
            GrantSpec(
                role=Role.of(grant["role"]),
                user=grant.get("user"),
                group=grant.get("group"),
                everyone=grant.get("everyone", False),
            )
            for grant in body.validated_data["grants"]
        ]
        replace_grants(collection.pk, specs, actor=self.person)
        return Response({"grants": self._grants(collection)})

    def _one(self, collection: Collection) -> Response:
        role = roles_on(self.person, [collection])[collection.pk]
        return Response(collection_json(collection, role))

    @staticmethod
    def _grants(collection: Collection) -> Sequence[dict[str, Any]]:
        rows = Grant.objects.filter(collection=collection).select_related("user", "group")
        return [grant_json(row) for row in rows.order_by("-role", "pk")]
