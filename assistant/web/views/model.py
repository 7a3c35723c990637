"""The embedding model of the site: which one is searched, and moving to another."""

from __future__ import annotations

from django.contrib import messages
from django.contrib.auth.decorators import login_required
from django.http import Http404, HttpResponse
from django.shortcuts import redirect, render
from django.views.decorators.http import require_http_methods

from assistant.audit.models import record
from assistant.retrieval import reembedding, spaces
from assistant.web.requests import SignedInRequest
from inference.embedding_models import KNOWN_MODELS


@login_required
@require_http_methods(["GET", "POST"])
def embedding_model(request: SignedInRequest) -> HttpResponse:
    """For superusers; for all others there is no such page."""
    if not request.user.is_superuser:
        record(request.user, "embedding-model", denied=True)
        raise Http404
    if request.method == "POST":
        try:
            messages.success(request, _change(request))
        except reembedding.ReembedError as error:
            messages.error(request, str(error))
        return redirect("embedding-model")
    return render(
        request,
        "web/embedding_model.html",
        {
            "active": spaces.active(),
            "previous": reembedding.previous(),
            "progress": reembedding.progress(),
            "known": [model.name for model in KNOWN_MODELS],
        },
    )


def _change(request: SignedInRequest) -> str:
    """Do what was asked; returns what to say. Raises ReembedError."""
    action = request.POST.get("action", "")
    if action == "start":
        model = request.POST.get("model", "").strip()
        if not model:
            raise reembedding.ReembedError("Name a model first.")
        space = reembedding.start(
            model, actor=request.user, base_url=request.POST.get("base_url", "").strip()
        )
        return f"The documents are being embedded with {space.model}. You can leave this page."
    if action == "rollback":
        space = reembedding.go_back(actor=request.user)
        return f"Going back to {space.model}."
    if action == "cancel":
        stopped = reembedding.cancel(actor=request.user)
        return "Stopped. The present model stays." if stopped else "Nothing was under way."
    if action == "drop":
        dropped = reembedding.drop_unused(actor=request.user)
        return f"Dropped the vectors of {', '.join(dropped)}." if dropped else "Nothing to drop."
    raise reembedding.ReembedError("Unknown action.")
