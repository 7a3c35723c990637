"""What people see when something breaks; named by the root URLconf."""

from __future__ import annotations

import sys

from django.db import InterfaceError, OperationalError
from django.http import HttpRequest, HttpResponse
from django.template import loader

RETRY_SECONDS = 5


def server_error(request: HttpRequest) -> HttpResponse:
    """503 while the database is away, else 500. The templates need neither database nor request."""
    error = sys.exc_info()[1]
    if isinstance(error, OperationalError | InterfaceError):
        return HttpResponse(
            loader.get_template("503.html").render(),
            status=503,
            headers={"Retry-After": str(RETRY_SECONDS)},
        )
    return HttpResponse(loader.get_template("500.html").render(), status=500)
