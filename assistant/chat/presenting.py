"""Stored answers, shown under the reader's rights of this moment."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from functools import cached_property
from typing import Any
from uuid import UUID

from django.db.models import Case, F, TextField, When
from django.db.models.functions import Substr

from assistant.chat.models import UNFINISHED, Citation, Message
from assistant.documents.locators import Locator
from assistant.documents.models import Collection, Document, VersionText
from assistant.permissions.policy import AnyUser

UNAVAILABLE = "Source no longer available"


@dataclass(frozen=True, slots=True)
class SourceView:
    """A numbered source. What the reader may not see any more has no text and no title.

    ``dated`` is when its version was stored; ``is_superseded``: a newer one answers by now.
    ``text`` is None as well where it was not asked for.
    """

    number: int
    document_id: UUID | None
    version_id: UUID | None
    title: str
    collection_name: str
    locator: Locator
    available: bool
    dated: datetime | None = None
    is_superseded: bool = False
    text: str | None = None


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


class Presented:
    """A question or a stored answer as ``user`` may see it; each part is read when asked for."""

    def __init__(self, message: Message, evidence: _Evidence) -> None:
        self.message = message
        self.user = evidence.user
        self._evidence = evidence

    @cached_property
    def citations(self) -> list[CitationView]:
        """In the order of their markers."""
        views: list[CitationView] = []
        for row in self._evidence.citations.get(self.message.pk, ()):
            document = self._evidence.document(row.document_id) if row.version_id else None
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

    @cached_property
    def sources(self) -> list[SourceView]:
        """The numbered passages that the model was offered, without their text."""
        return [self._source(source) for source in self.message.sources]

    def _source(self, source: Mapping[str, Any]) -> SourceView:
        number, locator = source["number"], Locator.from_json(source["locator"])
        version = UUID(source["version"])
        document = self._evidence.document(source["document"])
        dated = self._evidence.dates.get(version)
        if document is None or dated is None:
            return SourceView(number, None, None, UNAVAILABLE, "", locator, False)
        return SourceView(
            number=number,
            document_id=document.pk,
            version_id=version,
            title=document.title,
            collection_name=document.collection.name,
            locator=locator,
            available=True,
            dated=dated,
            is_superseded=document.current_version_id != version,
        )

    @cached_property
    def read_sources(self) -> list[SourceView]:
        """``sources`` with their text, read from the versions now."""
        texts = _texts(self.sources, self.user)
        return [
            replace(source, text=text) for source, text in zip(self.sources, texts, strict=True)
        ]

    @cached_property
    def is_fully_available(self) -> bool:
        """Whether the reader may still read what the answer was made from: else its text is
        withheld.

        That is every cited source, or every offered one when nothing is cited.
        """
        if self.message.role == Message.Role.QUESTION:  # it was made from nothing
            return True
        return all(item.available for item in self.citations or self.sources)

    @property
    def is_withheld(self) -> bool:
        """Of a finished answer, whether it may no longer be shown."""
        return self.message.status not in UNFINISHED and not self.is_fully_available

    @property
    def text(self) -> str:
        """Empty when it is withheld."""
        return self.message.text if self.is_fully_available else ""

    @property
    def support(self) -> dict[str, Any]:
        """What the sentences of the text stand on; empty when the text is withheld."""
        return self.message.support if self.is_fully_available else {}

    @property
    def follow_ups(self) -> list[str]:
        """Questions proposed after it; none when its text is withheld."""
        return (self.message.follow_ups or []) if self.is_fully_available else []

    @cached_property
    def searched(self) -> dict[str, Any]:
        """What was looked through when nothing was found, without collections hidden by now.

        Empty for an answer that found something.
        """
        searched = self.message.searched
        if not searched:
            return {}
        visible = Collection.objects.for_user(self.user).filter(pk__in=searched["collections"])
        names = [{"id": str(each.pk), "name": each.name} for each in visible.order_by("name", "pk")]
        return {**searched, "collections": names}


def presented(messages: Iterable[Message], *, user: AnyUser) -> list[Presented]:
    """All of them: what they were made from is read together."""
    messages = list(messages)
    evidence = _Evidence(messages, user)
    return [Presented(message, evidence) for message in messages]


def present(message: Message, *, user: AnyUser) -> Presented:
    (shown,) = presented([message], user=user)
    return shown


class _Evidence:
    """What some answers were made from, as far as ``user`` may read it now."""

    def __init__(self, messages: Sequence[Message], user: AnyUser) -> None:
        self.user = user
        self._answers = [each for each in messages if each.role == Message.Role.ANSWER]

    @cached_property
    def citations(self) -> dict[UUID, list[Citation]]:
        """By the answer."""
        found: dict[UUID, list[Citation]] = {}
        rows = Citation.objects.filter(answer__in=[answer.pk for answer in self._answers])
        for row in rows.order_by("ordinal"):
            found.setdefault(row.answer_id, []).append(row)
        return found

    def document(self, pk: UUID | str | None) -> Document | None:
        return self._documents.get(str(pk))

    @cached_property
    def _documents(self) -> dict[str, Document]:
        cited = {row.document_id for rows in self.citations.values() for row in rows}
        offered = {each["document"] for answer in self._answers for each in answer.sources}
        wanted = {str(pk) for pk in cited | offered if pk is not None}
        if not wanted:
            return {}
        rows = Document.objects.readable_by(self.user).filter(pk__in=wanted)
        shown = rows.select_related("collection").only(
            "title", "current_version", "collection__name"
        )
        return {str(document.pk): document for document in shown}

    @cached_property
    def dates(self) -> dict[UUID, datetime]:
        """When each version that still has a text was stored."""
        wanted = {each["version"] for answer in self._answers for each in answer.sources}
        if not wanted:
            return {}
        rows = VersionText.objects.readable_by(self.user).filter(version__in=wanted)
        return dict(rows.values_list("version_id", "version__created_at"))


def _texts(sources: Sequence[SourceView], user: AnyUser) -> list[str | None]:
    """Only what lies between them is read: a version can be a book, with a box for each line."""
    spans: dict[UUID, tuple[int, int]] = {}
    for source in sources:
        if source.version_id is not None:
            start, end = source.locator.char_start, source.locator.char_end
            first, last = spans.get(source.version_id, (start, end))
            spans[source.version_id] = (min(first, start), max(last, end))
    if not spans:
        return [None] * len(sources)
    between = Case(
        *(
            When(version=version, then=Substr(F("text"), start + 1, end - start))
            for version, (start, end) in spans.items()
        ),
        output_field=TextField(),
    )
    rows = VersionText.objects.readable_by(user).filter(version__in=spans)
    found = dict(rows.values_list("version_id", between))
    texts: list[str | None] = []
    for source in sources:
        text = found.get(source.version_id)
        if text is not None and source.version_id is not None:
            begin = spans[source.version_id][0]
            text = text[source.locator.char_start - begin : source.locator.char_end - begin]
        texts.append(text)
    return texts
