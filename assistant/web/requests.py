"""What a view behind ``login_required`` receives."""

from __future__ import annotations

from django.http import HttpRequest
from django_htmx.middleware import HtmxDetails

from assistant.users.models import User


class SignedInRequest(HttpRequest):
    user: User
    htmx: HtmxDetails
