"""Collections and the documents in them."""

from __future__ import annotations

from urllib.parse import urlencode
from uuid import UUID

from django.contrib import messages
from django.contrib.auth.decorators import login_required
from django.core.exceptions import ValidationError
from django.core.paginator import Paginator
from django.http import HttpResponse
from django.shortcuts import redirect, render
from django.urls import reverse
from django.views.decorators.http import require_GET, require_http_methods, require_POST

from assistant.documents import actions
from assistant.documents.models import Collection, Document
from assistant.permissions.policy import abilities, manages_any, role_on
from assistant.permissions.roles import Role
from assistant.web.access import collection_for, readable_collection
from assistant.web.forms import CollectionForm, CollectionSettingsForm
from assistant.web.library import (
    FILTERS,
    PAGE_SIZE,
    documents_of,
    readable_collections,
    roles_of,
    rows_of,
    totals_of,
)
from assistant.web.requests import SignedInRequest, text_of
from ingestion.actions import cancel_jobs, retry_jobs
from ingestion.admission import SUPPORTED, SUPPORTED_IN_WORDS
from ingestion.batches import failures_of, latest_jobs, recent_batches
from ingestion.models import IngestionJob, JobStatus
from ingestion.progress import blocked_queues

MAX_AT_ONCE = 500


@login_required
@require_http_methods(["GET", "POST"])
def library(request: SignedInRequest) -> HttpResponse:
    """The collections one can read; a POST creates one."""
    form = CollectionForm(request.POST or None)
    if request.method == "POST" and form.is_valid():
        collection = actions.create_collection(
            name=form.cleaned_data["name"],
            description=form.cleaned_data["description"],
            actor=request.user,
        )
        return redirect("collection", pk=collection.pk)
    roles = roles_of(request.user)
    collections = [(c, roles.get(c.pk, "reader")) for c in readable_collections(request.user)]
    waits = any(getattr(c, "working", 0) and c.pk in roles for c, _ in collections)
    return render(
        request,
        "web/library.html",
        {
            "collections": collections,
            "form": form,
            "manages_any": manages_any(request.user),
            "blocked": next(iter(blocked_queues().values()), None) if waits else None,
        },
        status=422 if form.errors else 200,
    )


@login_required
@require_GET
def collection(request: SignedInRequest, pk: UUID) -> HttpResponse:
    context = _table(request, readable_collection(request.user, pk))
    context["recent"] = recent_batches(pk, user=request.user)
    return render(request, "web/collection.html", context)


@login_required
@require_GET
def documents(request: SignedInRequest, pk: UUID) -> HttpResponse:
    """The table alone: fetched while typing a filter, turning a page and waiting for progress."""
    shown = readable_collection(request.user, pk)
    context = _table(request, shown)
    response = render(request, "web/_documents.html", context)
    page = reverse("collection", args=[pk])
    response.headers["HX-Replace-Url"] = f"{page}?{context['query']}" if context["query"] else page
    return response


@login_required
@require_POST
def bulk(request: SignedInRequest, pk: UUID) -> HttpResponse:
    """Retry, cancel or delete the chosen documents; ids of other collections do nothing.

    ``retry-failed`` takes no documents: it retries all that failed for the reason ``code``.
    """
    action = text_of(request.POST, "action", limit=20)
    target = collection_for(request.user, pk, Role.CONTRIBUTOR, action=f"documents.{action}")
    chosen = (
        Document.objects.for_user(request.user, Role.CONTRIBUTOR)
        .filter(collection=target, pk__in=_uuids(request.POST.getlist("documents")))
        .select_related("latest_version")
    )
    jobs = IngestionJob.objects.for_user(request.user, Role.CONTRIBUTOR).filter(
        version__in=[d.latest_version_id for d in chosen if d.latest_version_id]
    )
    if action == "retry":
        words = _count(retry_jobs(jobs, actor=request.user), "Retrying {}.")
    elif action == "retry-failed":
        failed = latest_jobs(
            request.user,
            version__document__collection=target,
            status=JobStatus.FAILED,
            error_code=text_of(request.POST, "code"),
        )
        words = _count(retry_jobs(failed, actor=request.user), "Retrying {}.")
    elif action == "cancel":
        words = _count(cancel_jobs(jobs, actor=request.user), "Cancelled {}.")
    elif action == "delete":
        for document in chosen:
            actions.delete_document(document, actor=request.user)
        words = _count(len(chosen), "Deleted {}.")
    else:
        return HttpResponse("Unknown action.", status=400, content_type="text/plain")
    if request.htmx:
        return render(request, "web/_documents.html", _table(request, target) | {"said": words})
    messages.success(request, words)
    return redirect("collection", pk=pk)


@login_required
@require_http_methods(["GET", "POST"])
def settings(request: SignedInRequest, pk: UUID) -> HttpResponse:
    """Name, description and instructions for the model."""
    target = collection_for(request.user, pk, Role.MANAGER, action="collection.update")
    form = CollectionSettingsForm(request.POST or None, initial=_settings_of(target))
    if request.method == "POST" and form.is_valid():
        try:
            actions.update_collection(
                target,
                name=form.cleaned_data["name"],
                description=form.cleaned_data["description"],
                instructions=form.cleaned_data["instructions"],
                actor=request.user,
            )
        except ValidationError as error:
            form.add_error(None, error)
        else:
            messages.success(request, "Saved. It counts from the next question on.")
            return redirect("collection", pk=pk)
    context = {"collection": target, "form": form}
    return render(
        request, "web/collection_settings.html", context, status=422 if form.errors else 200
    )


@login_required
@require_POST
def delete(request: SignedInRequest, pk: UUID) -> HttpResponse:
    """Needs the collection's name, typed: everything in it goes."""
    target = collection_for(request.user, pk, Role.MANAGER, action="collection.delete")
    if request.POST.get("confirm", "").strip() != target.name.strip():
        form = CollectionSettingsForm(initial=_settings_of(target))
        return render(
            request,
            "web/collection_settings.html",
            {
                "collection": target,
                "form": form,
                "delete_error": "That is not the name of this collection. Nothing was deleted.",
            },
            status=422,
        )
    actions.delete_collection(target, actor=request.user)
    messages.success(request, f"“{target.name}” was deleted.")
    return redirect("library")


def _settings_of(shown: Collection) -> dict[str, str]:
    names = CollectionSettingsForm.base_fields
    return {name: getattr(shown, name) for name in names}


def _table(request: SignedInRequest, shown: Collection) -> dict[str, object]:
    """Context of the documents table, with the filters of the query string or the form."""
    given = request.GET if request.method == "GET" else request.POST
    name, status = text_of(given, "q"), text_of(given, "status")
    status = status if status in FILTERS else ""
    batch = next(iter(_uuids([given.get("batch", "")])), None)
    found = documents_of(shown, user=request.user, name=name, status=status, batch=batch)
    page = Paginator(found, PAGE_SIZE).get_page(given.get("page"))
    query = {
        "q": name,
        "status": status,
        "batch": str(batch) if batch else "",
        "page": str(page.number) if page.number > 1 else "",
    }
    can = abilities(role_on(request.user, shown.pk))
    totals = totals_of(shown, user=request.user)
    stopped = blocked_queues() if totals.working else {}
    failed = latest_jobs(request.user, version__document__collection=shown)
    filters = {key: value for key, value in query.items() if value and key != "page"}
    return {
        "collection": shown,
        "abilities": can,
        "page": page,
        "rows": rows_of(page, stopped=stopped),
        "totals": totals,
        "blocked": next(iter(stopped.values()), None) if can["contribute"] else None,
        "failures": failures_of(failed) if status == "failed" and can["contribute"] else [],
        "q": name,
        "status": status,
        "batch": batch,
        "query": urlencode({key: value for key, value in query.items() if value}),
        "filter_query": urlencode(filters),
        "supported": SUPPORTED_IN_WORDS,
        "extensions": ",".join(SUPPORTED),
    }


def _uuids(values: list[str]) -> list[UUID]:
    found: list[UUID] = []
    for value in values[:MAX_AT_ONCE]:
        try:
            found.append(UUID(value))
        except ValueError:
            continue
    return found


def _count(number: int, words: str) -> str:
    return words.format("1 document" if number == 1 else f"{number} documents")
