"""What an answer was made from: kept with it, shown to who may see it, and made again."""

from __future__ import annotations

from contextlib import aclosing
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any
from uuid import UUID

from django.conf import settings
from django.utils import timezone

from assistant.chat.events import CitationFound, Delta, Done, Failed, Sources
from assistant.chat.models import Bundle, Message
from assistant.chat.presenting import SourceView, present
from assistant.chat.turn import Turn
from assistant.database import in_database
from assistant.documents.models import Collection, Document
from assistant.permissions.policy import AnyUser, collections_with_role, is_person
from assistant.permissions.roles import Role


def keep(turn: Turn) -> None:
    """Store the bundle of an answer that ended; called with its row."""
    assert turn.answer_id is not None
    sampling: dict[str, Any] = {}
    prompt = None
    instructed: dict[str, Any] = {}
    if (request := turn.request) is not None:
        sampling = {
            "effort": request.effort,
            "temperature": request.temperature,
            "max_tokens": request.max_tokens,
        }
        offered = turn.passages[: len(request.sources)]
        instructed = turn.instructions.within({p.collection_id for p in offered}).to_json()
        if settings.PROMPT_RETENTION_DAYS > 0:
            prompt = [[message.role, message.content] for message in request.messages]
    Bundle.objects.create(
        answer_id=turn.answer_id,
        queries=[turn.query],
        rights_hash=turn.rights_hash,
        sampling=sampling,
        prompt=prompt,
        instructions=instructed,
    )


def forget_old_prompts() -> int:
    """Take away prompts older than the site keeps them; returns how many."""
    old = timezone.now() - timedelta(days=settings.PROMPT_RETENTION_DAYS)
    return Bundle.objects.filter(created_at__lt=old, prompt__isnull=False).update(prompt=None)


def bundle_for(user: AnyUser, answer_id: UUID) -> Bundle | None:
    """The bundle of an answer of one's own, or of one whose every source one manages.

    A superuser sees all. None is the same for what is absent and what is not for ``user``.
    """
    if not is_person(user):
        return None
    found = (
        Bundle.objects.select_related("answer__conversation", "answer__parent")
        .filter(answer=answer_id)
        .first()
    )
    if found is None or found.answer.conversation.user_id == user.pk or user.is_superuser:
        return found
    documents = {source["document"] for source in found.answer.sources}
    managed = Document.objects.filter(
        pk__in=documents, collection__in=collections_with_role(user, Role.MANAGER)
    )
    return found if documents and managed.count() == len(documents) else None


@dataclass(frozen=True, slots=True)
class Account:
    """A bundle as ``user`` may see it: evidence only where they may read all of it."""

    bundle: Bundle
    question: str
    text: str
    sources: list[SourceView]
    prompt: list[list[str]] | None
    is_withheld: bool


def account_of(bundle: Bundle, *, user: AnyUser) -> Account:
    answer = bundle.answer
    sources = present(answer, user=user).read_sources
    withheld = not all(source.available for source in sources)
    return Account(
        bundle,
        _question_of(answer),
        "" if withheld else answer.text,
        sources,
        None if withheld else bundle.prompt,
        withheld,
    )


def _question_of(answer: Message) -> str:
    return answer.parent.text if answer.parent else ""


@dataclass(frozen=True, slots=True)
class Compared:
    """One passage, then and now; a rank of None means that it was not among those offered."""

    title: str
    document_id: UUID | None
    then: int | None
    now: int | None
    then_score: float | None = None
    now_score: float | None = None
    is_new_version: bool = False


@dataclass(slots=True)
class Replay:
    """The answer made again, on the index and under the rights of whoever asked for it."""

    text: str = ""
    passages: list[dict[str, Any]] = field(default_factory=list)
    citations: list[CitationFound] = field(default_factory=list)
    abstained: bool = False
    error: str = ""
    timings_ms: dict[str, float] = field(default_factory=dict)
    compared: list[Compared] = field(default_factory=list)


async def replay(bundle: Bundle, *, user: AnyUser) -> Replay:
    """Ask again what was searched for, as ``user``, and set the two side by side."""
    # The flow imports the recording of answers, which keeps bundles.
    from assistant.chat.answering import answer_once

    made = Replay()
    inputs = await _inputs(bundle, user)
    produced = answer_once(user=user, **inputs)
    async with aclosing(produced):
        async for event in produced:
            if isinstance(event, Sources):
                made.passages = event.passages
            elif isinstance(event, Delta):
                made.text += event.text
            elif isinstance(event, CitationFound):
                made.citations.append(event)
            elif isinstance(event, Failed):
                made.error = event.detail
            elif isinstance(event, Done):
                made.abstained, made.timings_ms = event.abstained, event.timings_ms
    made.compared = await in_database(_compare)(bundle, made.passages, user)
    return made


@in_database
def _inputs(bundle: Bundle, user: AnyUser) -> dict[str, Any]:
    """Attached files are their owner's alone."""
    answer, conversation = bundle.answer, bundle.answer.conversation
    chosen = list(conversation.collections.values_list("pk", flat=True))
    readable = Collection.objects.for_user(user).filter(pk__in=chosen)
    return {
        "question": next(iter(bundle.queries), "") or _question_of(answer),
        "collections": list(readable.values_list("pk", flat=True)) if chosen else None,
        "filters": answer.narrowing.get("filters") or None,
        "attachments": conversation.attachments_id if conversation.user_id == user.pk else None,
    }


def _compare(bundle: Bundle, passages: list[dict[str, Any]], user: AnyUser) -> list[Compared]:
    """Passages that overlap in a document are the same; what ``user`` may not read has no name."""
    views = {view.number: view for view in present(bundle.answer, user=user).sources}
    left = list(passages)
    rows: list[Compared] = []
    for source in bundle.answer.sources:
        match = next((p for p in left if _is_same(source, p)), None)
        if match is not None:
            left.remove(match)
        view = views[source["number"]]
        rows.append(
            Compared(
                view.title,
                view.document_id,
                source["number"],
                match["number"] if match else None,
                source["score"],
                match["score"] if match else None,
                match is not None and match["document"]["version_id"] != source["version"],
            )
        )
    for passage in left:
        document = passage["document"]
        now = {"now": passage["number"], "now_score": passage["score"]}
        rows.append(Compared(document["title"], UUID(document["id"]), None, **now))
    return rows


def _is_same(then: dict[str, Any], now: dict[str, Any]) -> bool:
    old, new = then["locator"], now["locator"]
    return bool(
        then["document"] == now["document"]["id"]
        and old["char_start"] < new["char_end"]
        and new["char_start"] < old["char_end"]
    )
