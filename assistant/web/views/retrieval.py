"""Why a search found what it found, and how far its scores can be trusted."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from django import forms
from django.conf import settings
from django.contrib.auth.decorators import login_required
from django.http import Http404, HttpResponse, QueryDict
from django.shortcuts import render
from django.views.decorators.http import require_GET

from assistant import engines
from assistant.audit.models import record
from assistant.documents.models import Collection
from assistant.permissions.policy import manages_any
from assistant.retrieval import calibration, languages, spaces
from assistant.retrieval.understanding import FIELDS, search_understanding
from assistant.users.models import User
from assistant.web.explaining import explain, spoken
from assistant.web.narrowing import NarrowForm, readable_kinds
from assistant.web.reliability import plot_of
from assistant.web.requests import SignedInRequest
from inference.types import EngineError

PASSAGES = 12


class ExplainForm(NarrowForm):
    """``ignore`` are the fields that the words may not narrow."""

    q = forms.CharField(max_length=1000, error_messages={"required": "Write a question first."})
    collections = forms.ModelMultipleChoiceField(Collection.objects.none(), required=False)
    mode = forms.ChoiceField(
        choices=[
            ("hybrid", "Both arms"),
            ("vector", "Vector arm alone"),
            ("keyword", "Keyword arm alone"),
        ],
        required=False,
    )
    plain_order = forms.BooleanField(required=False)
    ignore = forms.MultipleChoiceField(choices=[(name, name) for name in FIELDS], required=False)

    def __init__(self, *args: Any, user: User, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        chosen = self.fields["collections"]
        assert isinstance(chosen, forms.ModelMultipleChoiceField)
        chosen.queryset = Collection.objects.for_user(user)


@login_required
@require_GET
def retrieval(request: SignedInRequest) -> HttpResponse:
    """For who manages a collection: a search as themselves, step by step. Else there is no page."""
    if not manages_any(request.user):
        record(request.user, "retrieval.explain", denied=True)
        raise Http404
    form = ExplainForm(request.GET or None, user=request.user)
    context: dict[str, Any] = {
        "form": form,
        "kinds": readable_kinds(request.user),
        "collections": list(Collection.objects.for_user(request.user)),
    }
    is_asked = "q" in request.GET
    if is_asked and form.is_valid():
        context |= _searched(form, request)
    given = form.cleaned_data if is_asked and form.is_valid() else {}
    context["chosen"] = {
        "types": given.get("types", []),
        "collections": {collection.pk for collection in given.get("collections", ())},
        "mode": given.get("mode") or "hybrid",
    }
    return render(
        request,
        "web/retrieval.html",
        context,
        status=422 if is_asked and form.errors else 200,
    )


def _searched(form: ExplainForm, request: SignedInRequest) -> dict[str, Any]:
    given = form.cleaned_data
    collections: list[UUID] = [collection.pk for collection in given["collections"]]
    try:
        result, understood = search_understanding(
            given["q"],
            user=request.user,
            question=given["q"],
            ignored=given["ignore"],
            collections=collections or None,
            filters=form.filters(),
            mode=given["mode"] or "hybrid",
            rerank=not given["plain_order"],
            limit=PASSAGES,
            explain=True,
        )
    except EngineError as error:
        return {"failure": error.detail}
    return {
        "explained": explain(result),
        "understood": understood,
        "without": [(hint, _without(request.GET, hint.field)) for hint in understood.hints],
    }


def _without(given: QueryDict, field: str) -> str:
    """The address of the same search that does not read ``field`` from the words."""
    changed = given.copy()
    changed.appendlist("ignore", field)
    return changed.urlencode()


@login_required
@require_GET
def quality(request: SignedInRequest) -> HttpResponse:
    """For superusers; for all others there is no such page."""
    if not request.user.is_superuser:
        record(request.user, "retrieval.quality", denied=True)
        raise Http404
    advice = languages.advice()
    calibrated = calibration.current(
        spaces.active(), settings.RERANKER_MODEL if engines.reranker() else ""
    )
    return render(
        request,
        "web/retrieval_quality.html",
        {
            "advice": advice,
            "uncovered": 100 * advice.uncovered if advice else 0,
            "spoken": spoken(advice) if advice else [],
            "calibrated": calibrated,
            "plot": plot_of(calibrated),
            "threshold": 100 * calibrated.threshold,
            "answered": 100 * calibrated.answered,
            "false_answers": 100 * calibrated.false_answers,
        },
    )
