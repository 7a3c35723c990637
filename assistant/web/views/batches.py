"""Files that were sent together: how far they are, what failed and why, for contributors."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from django.contrib import messages
from django.contrib.auth.decorators import login_required
from django.db.models import Min, QuerySet
from django.http import Http404, HttpResponse
from django.shortcuts import redirect, render
from django.utils.cache import patch_vary_headers
from django.views.decorators.http import require_GET, require_POST

from assistant.documents.models import Collection
from assistant.permissions.roles import Role
from assistant.web.access import collection_for
from assistant.web.requests import SignedInRequest, text_of
from ingestion import batches
from ingestion.actions import cancel_jobs, retry_jobs
from ingestion.models import OPEN_STATUSES, JobStatus
from ingestion.progress import about, blocked_queues


@login_required
@require_GET
def batch(request: SignedInRequest, pk: UUID, batch: UUID) -> HttpResponse:
    """A page; for htmx, which asks again while something is unfinished, only its changing part."""
    target = collection_for(request.user, pk, Role.CONTRIBUTOR, action="batch.view")
    context = _context(target, batch, _jobs(request, target, batch))
    template = "web/_batch.html" if request.htmx else "web/batch.html"
    response = render(request, template, context)
    patch_vary_headers(response, ["HX-Request"])
    return response


@login_required
@require_POST
def change(request: SignedInRequest, pk: UUID, batch: UUID) -> HttpResponse:
    """``retry`` what failed, all of it or what failed for the reason ``code``; ``cancel``."""
    action = text_of(request.POST, "action", limit=20)
    target = collection_for(request.user, pk, Role.CONTRIBUTOR, action=f"batch.{action}")
    jobs = _jobs(request, target, batch)
    if action == "retry":
        failed = jobs.filter(status=JobStatus.FAILED)
        if code := text_of(request.POST, "code"):
            failed = failed.filter(error_code=code)
        words = f"Retrying {_files(retry_jobs(failed, actor=request.user))}."
    elif action == "cancel":
        unfinished = jobs.filter(status__in=OPEN_STATUSES)
        words = f"Cancelled {_files(cancel_jobs(unfinished, actor=request.user))}."
    else:
        return HttpResponse("Unknown action.", status=400, content_type="text/plain")
    if request.htmx:
        context = _context(target, batch, jobs) | {"said": words}
        return render(request, "web/_batch.html", context)
    messages.success(request, words)
    return redirect("batch", pk=pk, batch=batch)


def _jobs(request: SignedInRequest, target: Collection, batch: UUID) -> QuerySet[Any]:
    """Raises Http404 when the collection has nothing of that batch."""
    jobs = batches.latest_jobs(request.user, version__document__collection=target, batch=batch)
    if not jobs.exists():
        raise Http404
    return jobs


def _context(target: Collection, batch: UUID, jobs: QuerySet[Any]) -> dict[str, Any]:
    totals = batches.totals_of(jobs)
    stopped = blocked_queues() if totals.open else {}
    eta = batches.eta_of(jobs) if totals.open and not stopped else None
    return {
        "collection": target,
        "batch": batch,
        "started_at": jobs.aggregate(at=Min("version__created_at"))["at"],
        "totals": totals,
        "time_left": about(eta),
        "failures": batches.failures_of(jobs) if totals.failed else [],
        "blocked": next(iter(stopped.values()), None),
    }


def _files(number: int) -> str:
    return "1 file" if number == 1 else f"{number:,} files"
