"""What every view of the API stands on: scoped rows, declared actions, async views."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, ClassVar, NoReturn, ParamSpec, TypeVar, cast
from uuid import UUID

from django.db import models
from django.http import HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from rest_framework import exceptions, permissions, viewsets
from rest_framework.negotiation import BaseContentNegotiation
from rest_framework.parsers import BaseParser
from rest_framework.renderers import BaseRenderer
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from assistant.api.authentication import TokenScopePermission
from assistant.api.pagination import NewestFirst
from assistant.api.parsers import DEFAULT_MAX_BYTES, StrictJSONParser
from assistant.audit import models as audit
from assistant.database import in_database
from assistant.documents.models import Collection
from assistant.permissions.policy import role_on
from assistant.permissions.roles import Role
from assistant.users.models import User

P = ParamSpec("P")
R = TypeVar("R")

_METHODS = ["get", "post", "put", "patch", "delete", "head"]


class OneRepresentation(BaseContentNegotiation):
    """There is one representation of everything, whatever ``Accept`` says."""

    def select_parser(self, request: Request, parsers: Iterable[BaseParser]) -> BaseParser | None:
        content_type = (request.content_type or "").split(";")[0].strip().lower()
        return next((p for p in parsers if p.media_type == content_type), None)

    def select_renderer(
        self,
        request: Request,
        renderers: Iterable[BaseRenderer],
        format_suffix: str | None = None,
    ) -> tuple[BaseRenderer, str]:
        renderer = next(iter(renderers))
        return renderer, renderer.media_type


class ApiView(APIView):
    """Common ground. ``read_actions`` names unsafe methods that a read token may call."""

    http_method_names = _METHODS
    parser_classes = (StrictJSONParser,)
    permission_classes = (permissions.IsAuthenticated, TokenScopePermission)
    content_negotiation_class = OneRepresentation
    read_actions: ClassVar[frozenset[str]] = frozenset()
    max_body_bytes: ClassVar[int] = DEFAULT_MAX_BYTES

    @property
    def person(self) -> User:
        """The caller, who is signed in: permissions ran before."""
        return cast("User", self.request.user)


class ScopedViewSet(ApiView, viewsets.GenericViewSet[Any]):
    """Rows of Collections, seen through grants before a handler runs.

    ``roles`` says for each action which role it takes on the collection. An action without an
    entry is refused, whatever its handler would do; so forgetting is impossible. ``by_id`` are
    those that read one row, which may also lie in a collection private to the caller.
    """

    pagination_class = NewestFirst
    queryset: Any
    roles: ClassVar[Mapping[str, Role]] = {}
    by_id: ClassVar[frozenset[str]] = frozenset()

    def initial(self, request: Request, *args: Any, **kwargs: Any) -> None:
        super().initial(request, *args, **kwargs)
        action = getattr(self, "action", None)
        if action is None or action not in self.roles:
            raise exceptions.MethodNotAllowed(request.method or "")
        rows = self.queryset
        is_by_id = action in self.by_id
        self.queryset = rows.readable_by(request.user) if is_by_id else rows.for_user(request.user)

    @property
    def role(self) -> Role:
        """What the current action takes."""
        return self.roles[self.action]

    def get_object(self) -> Any:
        """The row of the URL. 404 when absent or hidden, 403 when the role is too low."""
        row = self.get_queryset().filter(pk=self.kwargs["pk"]).first()
        if row is None:
            self.refuse_hidden(self.kwargs["pk"])
        path: str = row.collection_path
        collection_id = row.pk if path == "pk" else row.collection_id
        if self.action not in self.by_id:  # those take a reader, which the rows are scoped to
            require_role(self.person, self.role, collection_id, action=self.audit_name)
        return row

    @property
    def audit_name(self) -> str:
        return f"api.{self.basename}.{self.action}"

    def refuse_hidden(self, key: UUID) -> NoReturn:
        """404. An attempt to write is recorded, whether the row exists or not."""
        if self.request.method not in permissions.SAFE_METHODS:
            audit.record(self.person, self.audit_name, denied=True, object=str(key))
        raise exceptions.NotFound

    def collection_or_404(self, collection_id: UUID) -> Collection:
        """A collection named in a body or query, under the role of this action."""
        found = Collection.objects.for_user(self.request.user).filter(pk=collection_id).first()
        if found is None:
            self.refuse_hidden(collection_id)
        require_role(self.person, self.role, found.pk, action=self.audit_name)
        return found


class OwnedViewSet(ApiView, viewsets.GenericViewSet[Any]):
    """Rows of one person; everybody else, administrators included, gets 404."""

    pagination_class = NewestFirst
    queryset: Any
    actions_allowed: ClassVar[frozenset[str]] = frozenset()

    def initial(self, request: Request, *args: Any, **kwargs: Any) -> None:
        super().initial(request, *args, **kwargs)
        if getattr(self, "action", None) not in self.actions_allowed:
            raise exceptions.MethodNotAllowed(request.method or "")
        self.queryset = self.queryset.for_user(request.user)

    def get_object(self) -> Any:
        row = self.get_queryset().filter(pk=self.kwargs["pk"]).first()
        if row is None:
            raise exceptions.NotFound
        return row


def require_role(user: User, role: Role, collection_id: UUID, *, action: str) -> None:
    """Raises PermissionDenied in words, and records it, when a visible collection is not enough."""
    held = role_on(user, collection_id)
    if held is None:
        raise exceptions.NotFound
    if held < role:
        audit.record(user, action, collection_id=collection_id, denied=True)
        raise exceptions.PermissionDenied(
            f"You are {held.slug} of this collection; this takes a {role.slug}."
            " Ask a manager of the collection."
        )


class AsyncAPIView(ApiView):
    """A REST view whose handlers are coroutines.

    Authentication, permissions and error handling run in the request's thread and give their
    database connection back; while a model thinks, neither a thread nor a connection is held.
    """

    view_is_async = True  # a classproperty in Django

    async def dispatch(  # type: ignore[override]
        self, request: HttpRequest, *args: Any, **kwargs: Any
    ) -> HttpResponseBase:
        self.args, self.kwargs = args, kwargs
        self.request = self.initialize_request(request, *args, **kwargs)
        self.headers = self.default_response_headers
        try:
            await in_thread(self.initial, self.request, *args, **kwargs)
            handler = self._handler(self.request.method or "")
            response = await handler(self.request, *args, **kwargs)
        except Exception as error:  # noqa: BLE001 - the handler turns every error into a Problem
            response = await in_thread(self.handle_exception, error)
        self.response = self.finalize_response(self.request, response, *args, **kwargs)
        return _rendered(self.response)

    def _handler(self, method: str) -> Callable[..., Any]:
        name = method.lower()
        handler = getattr(self, name, None) if name in self.http_method_names else None
        if handler is None:
            raise exceptions.MethodNotAllowed(method)
        return cast("Callable[..., Any]", handler)


def _rendered(response: HttpResponseBase) -> HttpResponseBase:
    """Django gives rendering to a thread, which takes longer than writing JSON does."""
    if not isinstance(response, Response):
        return response
    response.render()
    plain = HttpResponse(response.content, status=response.status_code, headers=response.headers)
    plain.cookies = response.cookies
    return plain


async def in_thread(call: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
    """Run ``call`` in the request's thread, then give its database connection back."""
    return cast("R", await _in_thread(call, *args, **kwargs))


@in_database
def _in_thread(call: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    return call(*args, **kwargs)


def page_of(view: viewsets.GenericViewSet[Any], rows: models.QuerySet[Any]) -> list[Any]:
    """One page of ``rows``; ``view.get_paginated_response`` wraps it."""
    return cast("list[Any]", view.paginate_queryset(rows))
