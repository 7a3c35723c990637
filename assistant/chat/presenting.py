"""Sources and citations of a stored answer, shown under the reader's rights of this moment."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from assistant.chat.models import Message
from assistant.documents.locators import Locator
from assistant.documents.models import Collection, Document, VersionText
from assistant.permissions.policy import AnyUser

UNAVAILABLE = "Source no longer available"


@dataclass(frozen=True, slots=True)
class SourceView:
    """A numbered source. What the reader may not see any more has no text and no title.

    ``dated`` is when its version was stored; ``is_superseded``: a newer one answers by now.
    """

    number: int
    document_id: UUID | None
    version_id: UUID | None
    title: str
    collection_name: str
    text: str | None
    locator: Locator
    available: bool
    dated: datetime | None = None
    is_superseded: bool = False


@dataclass(frozen=True, slots=True)
class CitationView:
    """A numbered citation; quote and link are there only while the source is."""

    number: int
    document_id: UUID | None
    version_id: UUID | None
    title: str
    quote: str | None
    locator: Locator
    verified: bool
    available: bool


def _visible_documents(answer: Message, user: AnyUser, ids: set[str]) -> dict[str, Document]:
    documents = Document.objects.readable_by(user).filter(pk__in=ids).select_related("collection")
    return {str(document.pk): document for document in documents}


def sources_for(answer: Message, *, user: AnyUser) -> list[SourceView]:
    """The numbered passages that the model was offered, their text read from the versions now."""
    documents = _visible_documents(answer, user, {s["document"] for s in answer.sources})
    stored = VersionText.objects.readable_by(user).filter(
        version__in=[s["version"] for s in answer.sources]
    )
    texts = {str(text.version_id): text for text in stored.select_related("version")}
    views: list[SourceView] = []
    for source in answer.sources:
        locator = Locator.from_json(source["locator"])
        document = documents.get(source["document"])
        text = texts.get(source["version"])
        if document is None or text is None:
            views.append(
                SourceView(source["number"], None, None, UNAVAILABLE, "", None, locator, False)
            )
            continue
        views.append(
            SourceView(
                number=source["number"],
                document_id=document.pk,
                version_id=UUID(source["version"]),
                title=document.title,
                collection_name=document.collection.name,
                text=text.text[locator.char_start : locator.char_end],
                locator=locator,
                available=True,
                dated=text.version.created_at,
                is_superseded=document.current_version_id != text.version_id,
            )
        )
    return views


def citations_for(answer: Message, *, user: AnyUser) -> list[CitationView]:
    """The citations in the order of their markers."""
    rows = list(answer.citations.all())
    documents = _visible_documents(
        answer, user, {str(row.document_id) for row in rows if row.document_id}
    )
    views: list[CitationView] = []
    for row in rows:
        document = documents.get(str(row.document_id)) if row.version_id else None
        views.append(
            CitationView(
                number=row.number,
                document_id=document.pk if document else None,
                version_id=row.version_id if document else None,
                title=document.title if document else UNAVAILABLE,
                quote=row.quote if document else None,
                locator=Locator.from_json(row.locator),
                verified=row.verified,
                available=document is not None,
            )
        )
    return views


def is_fully_available(answer: Message, *, user: AnyUser) -> bool:
    """Whether ``user`` may still read what the answer was made from: else its text is withheld.

    That is every cited source, or every offered one when nothing is cited.
    """
    if answer.role == Message.Role.QUESTION:  # it was made from nothing
        return True
    evidence = citations_for(answer, user=user) or sources_for(answer, user=user)
    return all(item.available for item in evidence)


def text_for(answer: Message, *, user: AnyUser) -> str:
    """The answer's text, empty when it is withheld."""
    return answer.text if is_fully_available(answer, user=user) else ""


def support_for(answer: Message, *, user: AnyUser) -> dict[str, Any]:
    """What the sentences of the text stand on; empty when the text is withheld."""
    support: dict[str, Any] = answer.support
    return support if is_fully_available(answer, user=user) else {}


def follow_ups_for(answer: Message, *, user: AnyUser) -> list[str]:
    """Questions proposed after it; none when its text is withheld."""
    questions: list[str] = answer.follow_ups or []
    return questions if is_fully_available(answer, user=user) else []


def searched_for(answer: Message, *, user: AnyUser) -> dict[str, Any]:
    """What was looked through when nothing was found; collections that are hidden now are left out.

    Empty for an answer that found something.
    """
    if not answer.searched:
        return {}
    visible = Collection.objects.for_user(user).filter(pk__in=answer.searched["collections"])
    names = [{"id": str(each.pk), "name": each.name} for each in visible.order_by("name", "pk")]
    return {**answer.searched, "collections": names}
