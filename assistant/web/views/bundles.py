"""How an answer was made: its evidence, and the same question asked again on today's index."""

from __future__ import annotations

from uuid import UUID

from asgiref.sync import async_to_sync
from django.contrib.auth.decorators import login_required
from django.http import Http404, HttpResponse
from django.shortcuts import render
from django.utils.safestring import SafeString
from django.views.decorators.http import require_http_methods

from assistant.audit.models import record
from assistant.chat import bundling
from assistant.chat.bundling import Replay
from assistant.web.rendering import render_answer
from assistant.web.requests import SignedInRequest

_STAGES = {
    "embed": "Question to vector",
    "wait": "Waiting for a turn",
    "vector": "Search by meaning",
    "keyword": "Search by words",
    "rerank": "Reordering",
    "retrieval": "Retrieval in all",
    "thinking": "Until it began to think",
    "first_token": "Until the first word",
    "total": "Until the last word",
}


@login_required
@require_http_methods(["GET", "POST"])
def bundle(request: SignedInRequest, pk: UUID) -> HttpResponse:
    """A POST replays it under the rights of whoever looks, and shows both side by side."""
    found = bundling.bundle_for(request.user, pk)
    if found is None:
        raise Http404
    is_own = found.answer.conversation.user_id == request.user.pk
    if not is_own:
        action = "answer.replay" if request.method == "POST" else "answer.inspect"
        record(request.user, action, found.answer)
    made: Replay | None = None
    if request.method == "POST":
        made = async_to_sync(bundling.replay)(found, user=request.user)
    account = bundling.account_of(found, user=request.user)
    timings = found.answer.timings_ms
    return render(
        request,
        "web/bundle.html",
        {
            "account": account,
            "answer": found.answer,
            "is_own": is_own,
            "then": _html(account.text),
            "replay": made,
            "now": _html(made.text) if made else "",
            "sources": list(zip(account.sources, found.answer.sources, strict=True)),
            "timings": [(words, timings[key]) for key, words in _STAGES.items() if key in timings],
            "sampling": [(k.replace("_", " "), v) for k, v in found.sampling.items() if v],
        },
    )


def _html(text: str) -> SafeString:
    """Without links behind the numbers: those of then and of now are in the table."""
    return render_answer(text, {})
