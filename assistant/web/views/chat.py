"""Asking and reading answers. Writing happens in ``assistant.chat.actions``."""

from __future__ import annotations

import json
import re
from typing import Any
from uuid import UUID, uuid4

from django.contrib.auth.decorators import login_required
from django.core.exceptions import ValidationError
from django.db import transaction
from django.http import HttpResponse
from django.shortcuts import redirect, render
from django.urls import reverse
from django.views.decorators.http import require_GET, require_http_methods, require_POST

from assistant.chat import actions, choosing
from assistant.chat.branching import placed
from assistant.chat.models import Conversation, Message
from assistant.chat.presenting import present
from assistant.documents.models import Collection, Document
from assistant.web.access import own_answer, own_conversation
from assistant.web.answers import REASONS, view_of
from assistant.web.context import history_of
from assistant.web.forms import FeedbackForm, QuestionForm, TitleForm
from assistant.web.library import readable_collections
from assistant.web.narrowing import NarrowForm, readable_kinds, shown
from assistant.web.requests import SignedInRequest
from assistant.web.thread import HISTORY_CHANGED, new_turn, refused, turn_of, turns_of
from assistant.web.views.attachments import ATTACHMENTS_CHANGED, attach_files, attached_rows
from ingestion.admission import SUPPORTED

_EXAMPLES = (
    "What should I know about “{}”?",
    "Which rules are there for “{}”?",
    "Summarise the key points of “{}”.",
    "Whom do I ask about “{}”?",
)


@login_required
@require_http_methods(["GET", "POST"])
def chat(request: SignedInRequest) -> HttpResponse:
    """A new chat; the first question makes the conversation."""
    if request.method == "POST":
        form = QuestionForm(request.POST, user=request.user)
        if not form.is_valid():
            return refused(request, _first_error(form))
        try:
            with transaction.atomic():  # a question that is refused leaves no empty conversation
                conversation = actions.create_conversation(
                    user=request.user,
                    collections=[c.pk for c in form.cleaned_data["collections"]],
                    filters=form.filters(),
                )
                attach_files(conversation, request)
                _ask(conversation, form, request)
        except ValidationError as error:
            return refused(request, " ".join(error.messages))
        return _open(request, reverse("conversation", args=[conversation.pk]))
    return _new_chat(request)


@login_required
@require_http_methods(["GET", "POST"])
def conversation(request: SignedInRequest, pk: UUID) -> HttpResponse:
    """The thread; a POST asks the next question and answers with the two new turns."""
    thread = own_conversation(request.user, pk)
    if request.method == "POST":
        form = QuestionForm(request.POST, user=request.user)
        if not form.is_valid():
            return refused(request, _first_error(form))
        try:
            with transaction.atomic():
                _choose_collections(thread, form.cleaned_data["collections"], request)
                actions.set_filters(thread, form.filters(thread.filters))
                attach_files(thread, request)
                question, answer = _ask(thread, form, request)
        except ValidationError as error:
            return refused(request, " ".join(error.messages))
        if not request.htmx:
            return redirect(f"{reverse('conversation', args=[thread.pk])}#answer-{answer.pk}")
        response = render(request, "web/_turns.html", new_turn(question, answer, user=request.user))
        response.headers["HX-Trigger"] = f"{HISTORY_CHANGED}, {ATTACHMENTS_CHANGED}"
        return response
    return render(
        request,
        "web/conversation.html",
        {"conversation": thread, "turns": turns_of(thread, user=request.user)}
        | attached_rows(thread, user=request.user)
        | _picker(request, thread),
    )


@login_required
@require_GET
def history(request: SignedInRequest) -> HttpResponse:
    """The list in the sidebar; ``current`` names the open conversation."""
    return render(
        request,
        "web/_history.html",
        {"history": history_of(request.user), "current": request.GET.get("current", "")},
    )


@login_required
@require_http_methods(["GET", "POST"])
def rename(request: SignedInRequest, pk: UUID) -> HttpResponse:
    thread = own_conversation(request.user, pk)
    form = TitleForm(request.POST or None, initial={"title": thread.title})
    if request.method == "POST" and form.is_valid():
        actions.rename_conversation(thread, title=form.cleaned_data["title"], user=request.user)
        if not request.htmx:
            return redirect("conversation", pk=thread.pk)
        thread.refresh_from_db()
        return render(request, "web/_history_entry.html", {"entry": thread, "current": ""})
    template = "web/_rename.html" if request.htmx else "web/rename.html"
    return render(request, template, {"entry": thread, "form": form})


@login_required
@require_POST
def delete(request: SignedInRequest, pk: UUID) -> HttpResponse:
    actions.delete_conversation(own_conversation(request.user, pk), user=request.user)
    if not request.htmx:
        return redirect("chat")
    if request.htmx.current_url_abs_path == reverse("conversation", args=[pk]):
        return HttpResponse(headers={"HX-Redirect": reverse("chat")})
    return HttpResponse()


@login_required
@require_GET
def answer_fragment(request: SignedInRequest, pk: UUID) -> HttpResponse:
    """One answer as it is stored now; fetched when its stream has ended."""
    answer = placed(own_answer(request.user, pk))
    return render(request, "web/_answer.html", turn_of(answer, user=request.user))


@login_required
@require_POST
def stop(request: SignedInRequest, pk: UUID) -> HttpResponse:
    answer = own_answer(request.user, pk)
    actions.stop_answer(answer, user=request.user)
    if "application/json" in request.headers.get("Accept", ""):
        return HttpResponse(status=204)
    return redirect("conversation", pk=answer.conversation_id)


@login_required
@require_http_methods(["GET", "POST"])
def feedback(request: SignedInRequest, pk: UUID) -> HttpResponse:
    """Thumbs; a thumb down is stored at once and then asks why."""
    answer = own_answer(request.user, pk)
    form = FeedbackForm(request.POST or None)
    if request.method == "POST" and form.is_valid():
        given = form.cleaned_data
        actions.rate_answer(
            answer,
            rating=given["rating"],
            reasons=given["reasons"],
            comment=given["comment"],
            user=request.user,
        )
        if not request.htmx:
            return redirect("conversation", pk=answer.conversation_id)
        answer = own_answer(request.user, pk)
    asks_why = (
        request.method == "POST"
        and request.POST.get("rating") == "down"
        and "detailed" not in request.POST
    )
    return render(
        request,
        "web/_feedback.html",
        {
            "answer": view_of(present(answer, user=request.user)),
            "asks_why": asks_why,
            "reasons": REASONS,
            "is_thanked": request.method == "POST" and not asks_why,
        },
    )


def _ask(
    thread: Conversation, form: QuestionForm, request: SignedInRequest
) -> tuple[Message, Message]:
    """After the answer that the page ends with: another page may show another branch meanwhile."""
    return actions.ask(
        thread.pk,
        content=form.cleaned_data["content"],
        user=request.user,
        model=form.cleaned_data["model"],
        parent=form.cleaned_data["after"] or "leaf",
        idempotency_key=form.cleaned_data["key"] or None,
    )


def _choose_collections(
    thread: Conversation, chosen: list[Collection], request: SignedInRequest
) -> None:
    ids = {collection.pk for collection in chosen}
    if ids != set(thread.collections.values_list("pk", flat=True)):
        actions.set_collections(thread, list(ids), user=request.user)


def _picker(request: SignedInRequest, thread: Conversation | None) -> dict[str, object]:
    """Collections to choose from, and the key that makes a double click one question."""
    chosen = set(thread.collections.values_list("pk", flat=True)) if thread else set()
    if thread is None:
        chosen = {UUID(v) for v in request.GET.getlist("collection") if _is_uuid(v)}
    collections = list(Collection.objects.for_user(request.user))
    return {
        "model": choosing.name_of(request.user, thread.leaf) if thread and thread.leaf else "",
        "extensions": ",".join(SUPPORTED),
        "collections": collections,
        "chosen": {c.pk for c in collections if c.pk in chosen},
        "kinds": readable_kinds(request.user),
        "narrow": shown(thread.filters if thread else _asked_filters(request)),
        "key": uuid4(),
    }


def _asked_filters(request: SignedInRequest) -> dict[str, Any]:
    """Filters in the address of a new chat; what cannot be read is as if it were not there."""
    form = NarrowForm(request.GET)
    return form.filters() if form.is_valid() else {}


def _new_chat(request: SignedInRequest) -> HttpResponse:
    documents = Document.objects.for_user(request.user).filter(
        current_version__isnull=False, disabled_at=None
    )
    collections = readable_collections(request.user)
    return render(
        request,
        "web/chat.html",
        {
            "document_count": documents.count(),
            "collection_count": collections.count(),
            "examples": _examples(request),
        }
        | _picker(request, None),
    )


def _examples(request: SignedInRequest) -> list[str]:
    """Questions that can be answered here, made from the names of what was added last."""
    titles = (
        Document.objects.for_user(request.user)
        .filter(current_version__isnull=False, disabled_at=None)
        .order_by("-updated_at")
        .values_list("title", flat=True)[:20]
    )
    topics = dict.fromkeys(topic for title in titles if (topic := _topic(title)))
    return [words.format(topic) for words, topic in zip(_EXAMPLES, topics, strict=False)]


def _topic(title: str) -> str:
    """``travel-guide_2.md`` as ``travel guide 2``; "" for names that say nothing."""
    stem = re.sub(r"\.[a-z0-9]{1,5}$", "", title, flags=re.IGNORECASE)
    words = " ".join(re.split(r"[\s_-]+", stem)).strip()
    says_nothing = words.lower() in {"index", "readme", "license", "untitled", "about"}
    return "" if says_nothing or not 4 <= len(words) <= 60 else words


def _is_uuid(value: str) -> bool:
    try:
        UUID(value)
    except ValueError:
        return False
    return True


def _open(request: SignedInRequest, url: str) -> HttpResponse:
    """Go to a page: without a full reload where htmx asks."""
    if not request.htmx:
        return redirect(url)
    place = {"path": url, "target": "#main", "select": "#main", "swap": "outerHTML show:none"}
    return HttpResponse(headers={"HX-Location": json.dumps(place)})


def _first_error(form: QuestionForm) -> str:
    if "collections" in form.errors:
        return "A chosen collection is no longer available. Choose again."
    return str(next(iter(form.errors.values()))[0])
