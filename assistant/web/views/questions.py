"""Questions that found no answer: sent by who asked, seen by who could add what is missing."""

from __future__ import annotations

from uuid import UUID

from django.contrib.auth.decorators import login_required
from django.core.exceptions import ValidationError
from django.http import Http404, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.views.decorators.http import require_GET, require_POST

from assistant.audit.models import record
from assistant.chat.abstaining import close_question, send_question
from assistant.chat.models import OpenQuestion
from assistant.chat.presenting import present
from assistant.permissions.policy import manages_any
from assistant.web.access import own_answer
from assistant.web.answers import view_of
from assistant.web.requests import SignedInRequest

SHOWN = 200


@login_required
@require_POST
def send(request: SignedInRequest, pk: UUID) -> HttpResponse:
    """To the managers of the collections that were searched for this answer."""
    answer = own_answer(request.user, pk)
    problem = ""
    try:
        send_question(answer, user=request.user)
    except ValidationError as error:
        problem = " ".join(error.messages)
    if not request.htmx:
        return redirect("conversation", pk=answer.conversation_id)
    seen = {"answer": view_of(present(answer, user=request.user)), "problem": problem}
    return render(request, "web/_searched.html", seen)


@login_required
@require_GET
def open_questions(request: SignedInRequest) -> HttpResponse:
    """For who manages a collection; else there is no page."""
    if not manages_any(request.user):
        record(request.user, "questions.read", denied=True)
        raise Http404
    wanted = request.GET.get("status", "")
    status = wanted if wanted in OpenQuestion.Status.values else OpenQuestion.Status.OPEN
    found = OpenQuestion.objects.for_user(request.user).filter(status=status)
    return render(
        request,
        "web/open_questions.html",
        {
            "questions": found.select_related("asker")[:SHOWN],
            "status": status,
            "statuses": OpenQuestion.Status.choices,
        },
    )


@login_required
@require_POST
def open_question(request: SignedInRequest, pk: UUID) -> HttpResponse:
    """Says what became of it."""
    question = get_object_or_404(OpenQuestion.objects.for_user(request.user), pk=pk)
    status = request.POST.get("status", "")
    if status in OpenQuestion.Status.values:
        close_question(question, status=status, user=request.user)
    return redirect("open-questions")
