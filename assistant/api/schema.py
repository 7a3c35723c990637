"""The OpenAPI document: one decorator for operations, and the view that serves it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, TypeVar

from django.conf import settings
from drf_spectacular.extensions import OpenApiAuthenticationExtension
from drf_spectacular.openapi import AutoSchema
from drf_spectacular.renderers import OpenApiJsonRenderer
from drf_spectacular.utils import (
    OpenApiExample,
    OpenApiParameter,
    OpenApiResponse,
    extend_schema,
)
from drf_spectacular.views import SpectacularAPIView
from rest_framework import permissions, serializers
from rest_framework.settings import api_settings

from assistant.api.authentication import (
    SessionAuthentication,
    TokenAuthentication,
    TokenScopePermission,
)
from assistant.api.problems import CONTENT_TYPE, Problem
from assistant.users.models import ApiToken

F = TypeVar("F", bound=Callable[..., Any])

_WORDS: Final[Mapping[int, str]] = {
    400: "The request is not valid; `errors` says what by field.",
    401: "No credential, or one that is unknown, expired or revoked.",
    403: "The credential or the role on a visible collection does not allow it.",
    404: "Absent, or not for the caller: the two cannot be told apart.",
    409: "It does not fit the present state, or an answer is still being written.",
    413: "Larger than allowed.",
    415: "The body, or the uploaded file, is of a type that cannot be read.",
    422: "The uploaded file cannot be taken; `detail` says why and what to do.",
    429: "A limit of the caller is used up; `Retry-After` says when to ask again.",
    502: "A model server refused the request.",
    503: "A part of the system does not answer; `Retry-After` says when to try again.",
}


class ProblemSerializer(serializers.Serializer[Any]):
    """RFC 9457. `code` is stable, `detail` is for people, `errors` is by field."""

    type = serializers.CharField(help_text="`urn:problem:<code>` or `about:blank`")
    title = serializers.CharField()
    status = serializers.IntegerField()
    detail = serializers.CharField()
    code = serializers.CharField(required=False)
    errors = serializers.DictField(required=False)  # type: ignore[assignment]  # a field, not the property


def operation(
    operation_id: str,
    *,
    responses: Mapping[Any, Any],
    errors: Sequence[int] = (),
    request: Any = None,
    parameters: Sequence[Any] = (),
    example: Mapping[str, Any] | None = None,
    tags: Sequence[str],
) -> Callable[[F], F]:
    """Describe one operation. Every operation can answer 401, 403 and 503."""
    documented = dict(responses)
    for code in sorted({401, 403, 503, *errors}):
        documented[(code, CONTENT_TYPE)] = OpenApiResponse(
            ProblemSerializer,
            description=_WORDS[code],
            examples=[_problem_example(code)] if code in _EXAMPLES else [],
        )
    examples = []
    if example is not None:
        examples.append(OpenApiExample("Example", value=dict(example), request_only=True))
    described: Callable[[F], F] = extend_schema(
        operation_id=operation_id,
        request=request,
        responses=documented,
        parameters=list(parameters),
        examples=examples,
        tags=list(tags),
    )
    return described


_EXAMPLES: Final[Mapping[int, Problem]] = {
    404: Problem(404, "There is nothing here that you may see."),
    413: Problem(
        413,
        "The file is larger than the 100 MiB allowed here. Split it, or ask an administrator to"
        " raise the limit.",
        code="too_large",
    ),
    422: Problem(
        422,
        "The file is protected by a password. Save a copy without the password and upload that.",
        code="password_protected",
    ),
}


def _problem_example(code: int) -> OpenApiExample:
    return OpenApiExample(f"Problem {code}", value=_EXAMPLES[code].body(), response_only=True)


ID_PARAMETER: Final = OpenApiParameter("id", str, OpenApiParameter.PATH)


class SchemaView(SpectacularAPIView):
    """OpenAPI 3 as JSON, for whoever may use the API."""

    renderer_classes = [OpenApiJsonRenderer]
    authentication_classes = api_settings.DEFAULT_AUTHENTICATION_CLASSES
    permission_classes = [permissions.IsAuthenticated, TokenScopePermission]
    http_method_names = ["get", "head"]
    schema = AutoSchema()


class _BearerScheme(OpenApiAuthenticationExtension):  # type: ignore[no-untyped-call]
    target_class = TokenAuthentication
    name = "token"

    def get_security_definition(self, auto_schema: Any) -> dict[str, Any]:
        return {"type": "http", "scheme": "bearer", "bearerFormat": f"{ApiToken.PREFIX}…"}


class _SessionScheme(OpenApiAuthenticationExtension):  # type: ignore[no-untyped-call]
    target_class = SessionAuthentication
    name = "session"
    priority = 1

    def get_security_definition(self, auto_schema: Any) -> dict[str, Any]:
        return {"type": "apiKey", "in": "cookie", "name": settings.SESSION_COOKIE_NAME}
