"""Who is calling: a bearer token of a program, or the session of a signed-in browser."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from rest_framework import authentication, exceptions, permissions
from rest_framework.request import Request

from assistant.users.models import ApiToken, TokenScope, User

if TYPE_CHECKING:  # rest_framework.views loads this module while it is being imported
    from rest_framework.views import APIView

# A token is 46 characters; what is far longer is not worth hashing.
_LONGEST_TOKEN: Final = 200


class TokenAuthentication(authentication.BaseAuthentication):
    """``Authorization: Bearer ka_…`` and nothing else: no query string, no other header.

    A request with that header stands or falls by it, whatever cookies it carries.
    """

    def authenticate(self, request: Request) -> tuple[User, ApiToken] | None:
        header: str | None = request.META.get("HTTP_AUTHORIZATION")
        if header is None:
            return None
        scheme, _, token = header.partition(" ")
        token = token.strip()
        if (
            scheme.lower() != "bearer"
            or not token.startswith(ApiToken.PREFIX)
            or len(token) > _LONGEST_TOKEN
            or not token.isascii()
        ):
            raise exceptions.AuthenticationFailed(
                f"Send `Authorization: Bearer {ApiToken.PREFIX}…` with an API token."
            )
        row = ApiToken.resolve(token)
        if row is None:
            raise exceptions.AuthenticationFailed(
                "This token is unknown, expired or revoked. Make a new one."
            )
        return row.user, row

    def authenticate_header(self, request: Request) -> str:
        return 'Bearer realm="api"'


def token_of(request: Request) -> ApiToken | None:
    """The token that stands for the caller, None for a browser's session."""
    return request.auth if isinstance(request.auth, ApiToken) else None


class SessionAuthentication(authentication.SessionAuthentication):
    """The browser's session cookie, with CSRF checked on every unsafe method."""

    def enforce_csrf(self, request: Any) -> None:
        try:
            super().enforce_csrf(request)
        except exceptions.PermissionDenied:
            raise exceptions.PermissionDenied(
                "The CSRF token is missing or wrong. Reload the page; programs use an API token."
            ) from None


class TokenScopePermission(permissions.BasePermission):
    """A token does no more than its scopes say; a session has all scopes of its user."""

    def has_permission(self, request: Request, view: APIView) -> bool:
        token = request.auth
        if not isinstance(token, ApiToken):
            return True
        needed = required_scope(request, view)
        if needed in token.scopes:
            return True
        raise exceptions.PermissionDenied(
            f"This token has no {needed} scope. Use one made with `--scope {needed}`."
        )


def required_scope(request: Request, view: APIView) -> str:
    """``read`` for safe methods and for what the view declares as reading, else ``write``."""
    if request.method in permissions.SAFE_METHODS:
        return TokenScope.READ.value
    declared = getattr(view, "read_actions", frozenset[str]())
    action = getattr(view, "action", None) or (request.method or "").lower()
    return TokenScope.READ.value if action in declared else TokenScope.WRITE.value
