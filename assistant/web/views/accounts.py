"""Signing in and out, one's password and one's API tokens."""

from __future__ import annotations

from uuid import UUID

from django.contrib import messages
from django.contrib.auth import update_session_auth_hash
from django.contrib.auth.decorators import login_required
from django.contrib.auth.forms import AuthenticationForm, PasswordChangeForm
from django.contrib.auth.views import LoginView, LogoutView
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.utils import timezone
from django.views.decorators.debug import sensitive_post_parameters
from django.views.decorators.http import require_http_methods, require_POST

from assistant.audit.models import record
from assistant.users.models import ApiToken, User
from assistant.web.forms import TokenForm
from assistant.web.requests import SignedInRequest
from assistant.web.tokens import create_token, revoke_token


class SignIn(LoginView):
    """E-mail and password; django-axes counts the failures."""

    redirect_authenticated_user = True

    def form_valid(self, form: AuthenticationForm) -> HttpResponse:
        response = super().form_valid(form)
        user = form.get_user()
        assert isinstance(user, User)
        record(user, "user.sign_in", user)
        return response


class SignOut(LogoutView):
    def post(self, request: HttpRequest, *args: object, **kwargs: object) -> HttpResponse:
        if isinstance(request.user, User):
            record(request.user, "user.sign_out", request.user)
        return super().post(request, *args, **kwargs)


@login_required
@require_http_methods(["GET"])
def account(request: SignedInRequest) -> HttpResponse:
    return _page(request, PasswordChangeForm(request.user), TokenForm())


@sensitive_post_parameters()
@login_required
@require_POST
def change_password(request: SignedInRequest) -> HttpResponse:
    """Every other session of this person ends; this one goes on."""
    form = PasswordChangeForm(request.user, request.POST)
    if not form.is_valid():
        return _page(request, form, TokenForm(), status=422)
    form.save()
    update_session_auth_hash(request, request.user)
    record(request.user, "user.change_password", request.user)
    messages.success(request, "Your password was changed. Other devices are signed out.")
    return redirect("account")


@login_required
@require_POST
def add_token(request: SignedInRequest) -> HttpResponse:
    """Shows the token in the answer to this request and never again."""
    form = TokenForm(request.POST)
    if not form.is_valid():
        return _page(request, PasswordChangeForm(request.user), form, status=422)
    given = form.cleaned_data
    token = create_token(
        user=request.user,
        name=given["name"],
        can_write=given["can_write"],
        days=given["days"],
    )
    return _page(request, PasswordChangeForm(request.user), TokenForm(), new_token=token)


@login_required
@require_POST
def remove_token(request: SignedInRequest, pk: UUID) -> HttpResponse:
    token = get_object_or_404(ApiToken.objects.filter(user=request.user), pk=pk)
    revoke_token(token, user=request.user)
    messages.success(request, "The token was revoked. Programs that use it get no answer any more.")
    return redirect("account")


def _page(
    request: SignedInRequest,
    password_form: PasswordChangeForm,
    token_form: TokenForm,
    *,
    new_token: str = "",
    status: int = 200,
) -> HttpResponse:
    password_form.fields["old_password"].widget.attrs.pop("autofocus", None)
    tokens = ApiToken.objects.filter(user=request.user, revoked_at=None)
    context = {
        "password_form": password_form,
        "token_form": token_form,
        "tokens": tokens,
        "new_token": new_token,
        "now": timezone.now(),
    }
    return render(request, "web/account.html", context, status=status)
