"""Who may read, contribute and manage: the access list of one collection."""

from __future__ import annotations

from uuid import UUID

from django.contrib import messages
from django.contrib.auth.decorators import login_required
from django.contrib.auth.models import Group
from django.core.exceptions import ValidationError
from django.http import HttpResponse, QueryDict
from django.shortcuts import redirect, render
from django.views.decorators.http import require_http_methods

from assistant.documents.models import Collection
from assistant.permissions.actions import GrantSpec, replace_grants
from assistant.permissions.models import Grant
from assistant.permissions.policy import has_role
from assistant.permissions.roles import Role
from assistant.web.access import collection_for
from assistant.web.requests import SignedInRequest


@login_required
@require_http_methods(["GET", "POST"])
def share(request: SignedInRequest, pk: UUID) -> HttpResponse:
    """The whole list is sent at once: ``subject`` and ``role`` in pairs, and one line to add."""
    target = collection_for(request.user, pk, Role.MANAGER, action="grants.replace")
    problems: list[str] = []
    if request.method == "POST":
        try:
            replace_grants(target.pk, _specs(request.POST), actor=request.user)
        except ValidationError as error:
            problems = error.messages
        else:
            if not has_role(request.user, Role.MANAGER, collection_id=target.pk):
                messages.success(request, "Saved. You no longer manage this collection.")
                return redirect("library")
            messages.success(request, "Saved. It counts from the next question on.")
            return redirect("collection-share", pk=pk)
    return render(
        request,
        "web/collection_share.html",
        {
            "collection": target,
            "grants": [_line(grant) for grant in _grants(target)],
            "roles": [(role.slug, role.label) for role in Role],
            "groups": _groups(request),
            "problems": problems,
            "given": request.POST,
        },
        status=422 if problems else 200,
    )


def _grants(target: Collection) -> list[Grant]:
    return list(
        Grant.objects.filter(collection=target)
        .select_related("user", "group")
        .order_by("-role", "user__email", "group__name")
    )


def _line(grant: Grant) -> dict[str, str]:
    """One grant as the form's words for it."""
    if grant.user is not None:
        kind, key, name = "user", grant.user.email, str(grant.user)
    elif grant.group is not None:
        kind, key, name = "group", grant.group.name, grant.group.name
    else:
        kind, key, name = "everyone", "", "Everyone who can sign in"
    role = Role(grant.role).slug
    return {"kind": kind, "subject": f"{kind}:{key}", "name": name, "role": role}


def _specs(sent: QueryDict) -> list[GrantSpec]:
    """Raises ValidationError for a role or a subject that does not exist."""
    pairs = list(zip(sent.getlist("subject"), sent.getlist("role"), strict=False))
    if sent.get("new_kind") == "everyone" or sent.get("new_name", "").strip():
        subject = f"{sent.get('new_kind', '')}:{sent.get('new_name', '').strip()}"
        pairs.append((subject, sent.get("new_role", "")))
    return [_spec(subject, role) for subject, role in pairs if role != "remove"]


def _spec(subject: str, role: str) -> GrantSpec:
    kind, _, name = subject.partition(":")
    try:
        held = Role.of(role)
    except KeyError:
        raise ValidationError(f"There is no role {role[:40]}.") from None
    match kind:
        case "user":
            return GrantSpec(held, user=name)
        case "group":
            return GrantSpec(held, group=name)
        case "everyone":
            return GrantSpec(held, everyone=True)
    raise ValidationError("Choose a person, a group or everyone.")


def _groups(request: SignedInRequest) -> list[str]:
    """Names to suggest: one's own groups, all of them for an administrator."""
    groups = Group.objects.all() if request.user.is_superuser else request.user.groups.all()
    return list(groups.order_by("name").values_list("name", flat=True))
