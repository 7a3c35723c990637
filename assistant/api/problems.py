"""Every error of the API as ``application/problem+json`` (RFC 9457), in words that say what to do.

What is absent and what the caller may not see are the same 404, byte for byte.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any, Final

import redis.exceptions
from django.conf import settings
from django.core.exceptions import (
    NON_FIELD_ERRORS,
    ObjectDoesNotExist,
    RequestDataTooBig,
    SuspiciousOperation,
    TooManyFieldsSent,
    TooManyFilesSent,
    ValidationError,
)
from django.core.exceptions import PermissionDenied as DjangoPermissionDenied
from django.db import InterfaceError, OperationalError
from django.http import Http404, HttpRequest, HttpResponse, UnreadablePostError
from kombu.exceptions import OperationalError as BrokerError
from rest_framework import exceptions, status
from rest_framework.renderers import JSONRenderer
from rest_framework.response import Response

from inference.types import EngineError
from ingestion.errors import IngestionError

log = logging.getLogger(__name__)

CONTENT_TYPE: Final = "application/problem+json"
RETRY_AFTER_SECONDS: Final = 5
NOT_FOUND_DETAIL: Final = "There is nothing here that you may see."
_STORE_ERRORS: Final = (
    OperationalError,
    InterfaceError,
    redis.exceptions.RedisError,
    BrokerError,
)
_INGESTION_STATUS: Final[Mapping[str, int]] = {
    "empty_file": status.HTTP_400_BAD_REQUEST,
    "too_large": status.HTTP_413_REQUEST_ENTITY_TOO_LARGE,
    "unsupported_type": status.HTTP_415_UNSUPPORTED_MEDIA_TYPE,
    "type_mismatch": status.HTTP_415_UNSUPPORTED_MEDIA_TYPE,
    "embedder_unavailable": status.HTTP_503_SERVICE_UNAVAILABLE,
    "storage": status.HTTP_503_SERVICE_UNAVAILABLE,
    "internal": status.HTTP_500_INTERNAL_SERVER_ERROR,
}
_REFUSED_STATUS: Final[Mapping[str, int]] = {
    "llm_overloaded": status.HTTP_503_SERVICE_UNAVAILABLE,
    "limit_reached": status.HTTP_429_TOO_MANY_REQUESTS,
}


@dataclass(frozen=True, slots=True)
class Problem:
    """One error answer. ``code`` is stable; ``errors`` maps a field to its sentences."""

    status: int
    detail: str
    code: str = ""
    errors: Mapping[str, Any] | None = None
    headers: Mapping[str, str] = field(default_factory=dict)

    def body(self) -> dict[str, Any]:
        title = HTTPStatus(self.status).phrase
        body: dict[str, Any] = {
            "type": f"urn:problem:{self.code}" if self.code else "about:blank",
            "title": title,
            "status": self.status,
            "detail": self.detail,
        }
        if self.code:
            body["code"] = self.code
        if self.errors:
            body["errors"] = dict(self.errors)
        return body

    def response(self) -> Response:
        return Response(
            self.body(), status=self.status, headers=self.headers, content_type=CONTENT_TYPE
        )


class ProblemError(exceptions.APIException):
    """Raise a Problem from a view."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem.detail)
        self.problem = problem


NOT_FOUND: Final = Problem(status.HTTP_404_NOT_FOUND, NOT_FOUND_DETAIL)


def handle(error: Exception, context: Mapping[str, Any]) -> Response:
    """The exception handler of every API view: nothing leaves as HTML or with a stack trace."""
    problem = problem_of(error)
    if problem.status == status.HTTP_500_INTERNAL_SERVER_ERROR:
        log.error("api request failed", exc_info=error)
    elif problem.status > status.HTTP_500_INTERNAL_SERVER_ERROR:
        log.warning("api request refused: %s", error)
    return problem.response()


def problem_of(error: Exception) -> Problem:
    """What to tell the caller about ``error``; unknown ones give away nothing."""
    if isinstance(error, ProblemError):
        return error.problem
    if isinstance(error, (Http404, ObjectDoesNotExist, exceptions.NotFound)):
        return NOT_FOUND
    if isinstance(error, exceptions.APIException):
        return _from_rest(error)
    if isinstance(error, ValidationError):
        return _from_validation(error)
    if isinstance(error, IngestionError):
        return _from_ingestion(error)
    if isinstance(error, EngineError):
        return _from_engine(error)
    return _from_platform(error)


def _from_platform(error: Exception) -> Problem:
    if isinstance(error, DjangoPermissionDenied):
        return Problem(status.HTTP_403_FORBIDDEN, str(error) or "You may not do this.")
    if isinstance(error, RequestDataTooBig):
        limit = settings.DATA_UPLOAD_MAX_MEMORY_SIZE // (1024 * 1024)
        return Problem(
            status.HTTP_413_REQUEST_ENTITY_TOO_LARGE,
            f"The request is larger than {limit} MiB. Send it in several parts.",
            code="too_large",
        )
    if isinstance(error, (TooManyFieldsSent, TooManyFilesSent)):
        return Problem(status.HTTP_400_BAD_REQUEST, "The form has too many fields or files.")
    if isinstance(error, (SuspiciousOperation, UnreadablePostError)):
        return Problem(status.HTTP_400_BAD_REQUEST, "The request could not be read.")
    if isinstance(error, _STORE_ERRORS):
        return _unavailable("The database or the message broker does not answer. Try again soon.")
    if isinstance(error, OSError):
        log.error("storage failed", exc_info=error)
        return _unavailable(
            "The file could not be stored. Try again; if this lasts, tell an administrator."
        )
    return Problem(
        status.HTTP_500_INTERNAL_SERVER_ERROR,
        "Something went wrong on our side. It was logged; if it happens again, tell an"
        " administrator.",
        code="internal",
    )


def _unavailable(detail: str, code: str = "unavailable") -> Problem:
    return Problem(
        status.HTTP_503_SERVICE_UNAVAILABLE,
        detail,
        code=code,
        headers={"Retry-After": str(RETRY_AFTER_SECONDS)},
    )


def _come_again(code: str, detail: str, seconds: int | None) -> Problem:
    """There is no place in the line for the model, or the caller has used what is allowed."""
    headers = {"Retry-After": str(seconds or RETRY_AFTER_SECONDS)}
    return Problem(_REFUSED_STATUS[code], detail, code=code, headers=headers)


def _from_rest(error: exceptions.APIException) -> Problem:
    headers: dict[str, str] = {}
    if challenge := getattr(error, "auth_header", None):
        headers["WWW-Authenticate"] = challenge
    if wait := getattr(error, "wait", None):
        headers["Retry-After"] = str(int(wait))
    if isinstance(error, exceptions.ValidationError):
        errors = field_errors(error.detail)
        return Problem(error.status_code, first_sentence(errors), code="invalid", errors=errors)
    return Problem(error.status_code, str(error.detail), headers=headers)


def _from_validation(error: ValidationError) -> Problem:
    code = getattr(error, "code", None) or next(
        (inner.code for inner in getattr(error, "error_list", []) if inner.code), None
    )
    if isinstance(code, str) and code in _REFUSED_STATUS:
        params = getattr(error, "params", None) or {}
        wait = params.get("retry_after")
        return _come_again(code, " ".join(error.messages), wait)
    if code == "busy":
        return Problem(status.HTTP_409_CONFLICT, " ".join(error.messages), code="busy")
    if hasattr(error, "error_dict"):
        errors: dict[str, Any] = {
            ("detail" if name == NON_FIELD_ERRORS else name): list(messages)
            for name, messages in error.message_dict.items()
        }
        return Problem(
            status.HTTP_400_BAD_REQUEST, first_sentence(errors), code="invalid", errors=errors
        )
    return Problem(status.HTTP_400_BAD_REQUEST, " ".join(error.messages), code="invalid")


def _from_ingestion(error: IngestionError) -> Problem:
    code = str(error.code)
    number = _INGESTION_STATUS.get(code, status.HTTP_422_UNPROCESSABLE_ENTITY)
    if number == status.HTTP_503_SERVICE_UNAVAILABLE:
        return _unavailable(error.detail, code)
    return Problem(number, error.detail, code=code, errors={"file": [error.detail]})


def _from_engine(error: EngineError) -> Problem:
    if error.code in _REFUSED_STATUS:
        return _come_again(error.code, error.detail, error.retry_after)
    if error.retryable:
        return _unavailable(error.detail, error.code)
    return Problem(status.HTTP_502_BAD_GATEWAY, error.detail, code=error.code)


def field_errors(detail: Any) -> dict[str, Any]:
    """DRF's error structure with plain strings; errors of no field are under ``detail``."""
    if isinstance(detail, Mapping):
        return {
            ("detail" if name == "non_field_errors" else str(name)): _plain(value)
            for name, value in detail.items()
        }
    return {"detail": _plain(detail)}


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return field_errors(value)
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return str(value)


def first_sentence(errors: Mapping[str, Any]) -> str:
    """``field: words`` of the first error, for clients that show only ``detail``."""
    name, value = next(iter(errors.items()), ("detail", "The request is not valid."))
    while isinstance(value, (list, Mapping)) and value:
        value = value[0] if isinstance(value, list) else next(iter(value.values()))
    return str(value) if name == "detail" else f"{name}: {value}"


def plain_response(problem: Problem) -> HttpResponse:
    """For places outside a REST view, such as Django's own error handlers."""
    return HttpResponse(
        JSONRenderer().render(problem.body()),
        status=problem.status,
        headers=dict(problem.headers),
        content_type=CONTENT_TYPE,
    )


def not_found(request: HttpRequest, *args: object, **kwargs: object) -> HttpResponse:
    """The API's answer to a path that leads nowhere, the same as for an absent id."""
    return plain_response(NOT_FOUND)


def server_error(request: HttpRequest) -> HttpResponse:
    """What went wrong outside of a REST view, such as a session that could not be loaded."""
    error = sys.exc_info()[1]
    return plain_response(problem_of(error if isinstance(error, Exception) else Exception()))
