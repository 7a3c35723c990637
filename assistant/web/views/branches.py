"""Editing a question, asking again, going from branch to branch; each shows the whole thread."""

from __future__ import annotations

from uuid import UUID

from django.contrib.auth.decorators import login_required
from django.core.exceptions import ValidationError
from django.http import HttpResponse, QueryDict
from django.shortcuts import redirect, render
from django.urls import reverse
from django.views.decorators.http import require_GET, require_POST

from assistant.chat import actions, choosing
from assistant.chat.models import Conversation
from assistant.chat.presenting import present
from assistant.retrieval.understanding import FIELDS
from assistant.web.access import own_answer, own_message, own_question
from assistant.web.answers import view_of
from assistant.web.forms import AgainForm
from assistant.web.requests import SignedInRequest
from assistant.web.thread import HISTORY_CHANGED, refused, turns_of


@login_required
@require_POST
def edit(request: SignedInRequest, pk: UUID) -> HttpResponse:
    """Ask a question of one's own in other words, on a branch that begins where it stands.

    Model and effort stay those of its last answer.
    """
    question = own_question(request.user, pk)
    answer = question.children.latest("ordinal")
    try:
        actions.ask(
            question.conversation_id,
            content=request.POST.get("content", ""),
            user=request.user,
            parent=question.parent_id,
            effort=answer.effort,
            model=choosing.name_of(request.user, answer),
        )
    except ValidationError as error:
        return refused(request, " ".join(error.messages))
    return _thread(request, question.conversation)


@login_required
@require_POST
def ask_again(request: SignedInRequest, pk: UUID) -> HttpResponse:
    """Have the question of an answer answered once more.

    ``widen`` asks it without the filters that were chosen, ``ignore`` without what was understood
    from its words.
    """
    answer = own_answer(request.user, pk)
    form = AgainForm(request.POST)
    if not form.is_valid():
        return refused(request, "There is no such effort or model. Reload the page and choose.")
    try:
        actions.ask_again(
            answer,
            user=request.user,
            effort=form.cleaned_data["effort"] if "effort" in request.POST else None,
            model=form.cleaned_data["model"] if "model" in request.POST else None,
            filters={} if "widen" in request.POST else None,
            ignored=[*answer.narrowing.get("ignored", ()), *_fields(request.POST)],
        )
    except ValidationError as error:
        return refused(request, " ".join(error.messages))
    return _thread(request, answer.conversation)


@login_required
@require_POST
def choose(request: SignedInRequest, pk: UUID) -> HttpResponse:
    """Show the branch that goes through a message."""
    message = own_message(request.user, pk)
    actions.choose_branch(message)
    return _thread(request, message.conversation, at=f"{message.role}-{message.pk}")


@login_required
@require_GET
def follow_ups(request: SignedInRequest, pk: UUID) -> HttpResponse:
    """What is proposed after an answer; asked for until it is there, or will not come any more."""
    answer = view_of(present(own_answer(request.user, pk), user=request.user))
    response = render(request, "web/_follow_ups.html", {"answer": answer})
    if not answer.awaits_follow_ups:
        response.headers["HX-Trigger"] = HISTORY_CHANGED  # the title has come as well
    return response


def _thread(request: SignedInRequest, shown: Conversation, *, at: str = "") -> HttpResponse:
    shown.refresh_from_db()
    if not request.htmx:
        place = at or f"answer-{shown.leaf_id}"
        return redirect(f"{reverse('conversation', args=[shown.pk])}#{place}")
    turns = turns_of(shown, user=request.user)
    response = render(request, "web/_thread.html", {"turns": turns})
    response.headers["HX-Trigger"] = HISTORY_CHANGED
    return response


def _fields(given: QueryDict) -> list[str]:
    return [name for name in given.getlist("ignore") if name in FIELDS]
