from django.http import HttpRequest, HttpResponse, HttpResponseBase
from django.urls import URLPattern, URLResolver, include, path
from django.views import defaults

from assistant.api import openai, problems
from assistant.web.views import errors

urlpatterns: list[URLPattern | URLResolver] = [
    path("api/", include("assistant.api.urls")),
    path("v1/", include("assistant.api.openai_urls")),
    path("", include("assistant.web.urls")),
]


def _is_api(request: HttpRequest) -> bool:
    return request.path.startswith("/api/")


def handler404(request: HttpRequest, exception: Exception) -> HttpResponseBase:
    """A path that leads nowhere looks like an id that never was, in the caller's own format."""
    if request.path.startswith("/v1/"):
        return openai.not_found(request)
    if _is_api(request):
        return problems.not_found(request)
    return defaults.page_not_found(request, exception)


def handler500(request: HttpRequest) -> HttpResponse:
    is_program = _is_api(request) or request.path.startswith("/v1/")
    return problems.server_error(request) if is_program else errors.server_error(request)
