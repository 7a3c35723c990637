"""What stands around every view.

Django gives each method of its own middleware to a thread, two dozen times a request, which costs
more than many a view. Those here that neither wait nor query run where they are called; the others
keep their thread, and so do all of them without an event loop.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, cast

from asgiref.sync import iscoroutinefunction, markcoroutinefunction, sync_to_async
from csp.middleware import CSPMiddleware
from django.contrib.auth.middleware import AuthenticationMiddleware
from django.contrib.messages.middleware import MessageMiddleware
from django.contrib.sessions.middleware import SessionMiddleware
from django.http import HttpRequest
from django.http.response import HttpResponseBase
from django.middleware.clickjacking import XFrameOptionsMiddleware
from django.middleware.common import CommonMiddleware
from django.middleware.csrf import CsrfViewMiddleware
from django.middleware.security import SecurityMiddleware
from django.utils.deprecation import MiddlewareMixin
from django_prometheus.middleware import PrometheusAfterMiddleware, PrometheusBeforeMiddleware

Handler = (
    Callable[[HttpRequest], HttpResponseBase] | Callable[[HttpRequest], Awaitable[HttpResponseBase]]
)


class NoStoreMiddleware:
    """``Cache-Control: no-store`` on all that Django answers; static files are served beside it."""

    sync_capable = True
    async_capable = True

    def __init__(self, get_response: Handler) -> None:
        self.get_response = get_response
        self._is_async = iscoroutinefunction(get_response)
        if self._is_async:
            markcoroutinefunction(self)

    def __call__(self, request: HttpRequest) -> HttpResponseBase | Awaitable[HttpResponseBase]:
        if self._is_async:
            return self._acall(request)
        return _marked(cast("HttpResponseBase", self.get_response(request)))

    async def _acall(self, request: HttpRequest) -> HttpResponseBase:
        return _marked(await cast("Awaitable[HttpResponseBase]", self.get_response(request)))


def _marked(response: HttpResponseBase) -> HttpResponseBase:
    response.headers["Cache-Control"] = "no-store"
    return response


class _OnLoop(MiddlewareMixin):
    """Calls ``process_request`` and, unless it ``may_wait``, ``process_response`` on the loop."""

    def may_wait(self, request: HttpRequest) -> bool:
        """Whether ``process_response`` may query."""
        return False

    async def __acall__(self, request: HttpRequest) -> Any:
        before: Any = getattr(self, "process_request", None)
        after: Any = getattr(self, "process_response", None)
        response = before(request) if before else None
        response = response or await cast("Awaitable[Any]", self.get_response(request))
        if not after:
            return response
        if self.may_wait(request):
            return await sync_to_async(after)(request, response)
        return after(request, response)


class Metrics(_OnLoop, PrometheusBeforeMiddleware):  # type: ignore[misc]
    pass


class ViewMetrics(_OnLoop, PrometheusAfterMiddleware):  # type: ignore[misc]
    def __init__(self, get_response: Any) -> None:
        super().__init__(get_response)
        if self.async_mode:
            self.process_view = self._count

    async def _count(self, *args: Any, **kwargs: Any) -> None:
        super().process_view(*args, **kwargs)


class Security(_OnLoop, SecurityMiddleware):
    pass


class ContentSecurityPolicy(_OnLoop, CSPMiddleware):
    pass


class Sessions(_OnLoop, SessionMiddleware):
    """A session that was not changed is not saved."""

    def may_wait(self, request: HttpRequest) -> bool:
        return request.session.modified


class Common(_OnLoop, CommonMiddleware):
    pass


class Csrf(_OnLoop, CsrfViewMiddleware):
    """The token may be a field of a form, and reading that waits for the body."""

    def __init__(self, get_response: Any) -> None:
        super().__init__(get_response)
        if self.async_mode:
            self.process_view = self._check  # type: ignore[method-assign,assignment]

    async def _check(self, request: HttpRequest, callback: Any, args: Any, kwargs: Any) -> Any:
        check = super().process_view
        if getattr(callback, "csrf_exempt", False) or request.method in ("GET", "HEAD"):
            return check(request, callback, args, kwargs)
        return await sync_to_async(check)(request, callback, args, kwargs)


class Authentication(_OnLoop, AuthenticationMiddleware):
    pass


class Messages(_OnLoop, MessageMiddleware):
    """Storing what was said or read may take the session."""

    def may_wait(self, request: HttpRequest) -> bool:
        said: Any = getattr(request, "_messages", None)
        return said is not None and (said.used or said.added_new)


class FrameOptions(_OnLoop, XFrameOptionsMiddleware):
    pass
