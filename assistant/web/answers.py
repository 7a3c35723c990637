"""An answer as the page shows it: safe text, and the sources and quotes behind its numbers."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import date, datetime
from typing import Any
from urllib.parse import urlencode
from uuid import UUID

from django.urls import reverse
from django.utils.safestring import SafeString

from assistant.chat.abstaining import is_sent, manages_all
from assistant.chat.choosing import name_of
from assistant.chat.models import UNFINISHED, Message
from assistant.chat.presenting import Presented
from assistant.chat.suggesting import are_coming
from assistant.documents.locators import Locator
from assistant.web.narrowing import Chip, shown
from assistant.web.rendering import CITATION, render_answer

REASONS = ("Not correct", "Incomplete", "Wrong sources", "Out of date", "Hard to follow")


@dataclass(frozen=True, slots=True)
class Quote:
    text: str
    is_verified: bool
    url: str


@dataclass(slots=True)
class SourceCard:
    """One numbered source. ``url`` is "" when the reader may not open it (any more)."""

    number: int
    title: str
    collection_name: str
    where: str
    url: str
    dated: datetime | None = None
    is_superseded: bool = False
    quotes: list[Quote] = field(default_factory=list)
    # Where each marker of this number points to, in the order of the text.
    marker_urls: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Conflict:
    """Two sources that give different numbers for one thing, with the days of their versions."""

    number: int
    other: int
    says: str
    other_says: str
    dated: date
    other_dated: date


@dataclass(frozen=True, slots=True)
class AnswerView:
    """``cited`` are the sources whose numbers occur in the text, ``others`` were read only.

    ``searched`` is what was looked through when nothing was found; ``is_sent``: the question went
    to the managers, who are others unless ``is_managers_own``. ``awaits_follow_ups``: they may come
    in a moment. ``choice`` names the model where it is not the site's own. ``is_withheld``: the
    reader lost a source that the text was made from, so the text is not shown.
    """

    message: Message
    html: SafeString = field(default_factory=SafeString)
    cited: tuple[SourceCard, ...] = ()
    others: tuple[SourceCard, ...] = ()
    is_withheld: bool = False
    conflicts: tuple[Conflict, ...] = ()
    searched: dict[str, Any] = field(default_factory=dict)
    is_sent: bool = False
    is_managers_own: bool = False
    follow_ups: tuple[str, ...] = ()
    awaits_follow_ups: bool = False
    choice: str = ""

    @property
    def chips(self) -> list[Chip]:
        """The filters that were chosen for it."""
        chips: list[Chip] = shown(self.message.narrowing.get("filters", {}))["chips"]
        return chips

    @property
    def understood(self) -> dict[str, Any]:
        """What its question's words narrowed, as ``understanding.as_json`` has it."""
        found: dict[str, Any] = self.message.narrowing.get("understood", {})
        return found

    @property
    def is_open(self) -> bool:
        return self.message.status in UNFINISHED


def view_of(shown: Presented) -> AnswerView:
    """Rights are asked now, not remembered from when the answer was written."""
    answer = shown.message
    if answer.status in UNFINISHED:
        return AnswerView(answer)
    if shown.is_withheld:
        return AnswerView(answer, is_withheld=True)
    cards = {
        source.number: SourceCard(
            number=source.number,
            title=source.title,
            collection_name=source.collection_name,
            where=where(source.locator) if source.available else "",
            url=_url(source.document_id, source.version_id, source.locator),
            dated=source.dated,
            is_superseded=source.is_superseded,
        )
        for source in shown.sources
    }
    for citation in shown.citations:
        if (card := cards.get(citation.number)) is None or not citation.quote:
            continue
        url = _url(citation.document_id, citation.version_id, citation.locator)
        card.marker_urls.append(url)
        if not any(quote.text == citation.quote for quote in card.quotes):
            card.quotes.append(Quote(citation.quote, citation.verified, url))
    for card in cards.values():
        card.quotes.sort(key=lambda quote: not quote.is_verified)
    links = {n: card.marker_urls or [card.url] for n, card in cards.items() if card.url}
    numbers = {
        int(number) for found in CITATION.findall(answer.text) for number in found.split(",")
    }
    bases = answer.support.get("sentences", ())
    return AnswerView(
        answer,
        render_answer(
            answer.text, links, unsupported=[s["end"] for s in bases if s["basis"] == "none"]
        ),
        tuple(card for card in cards.values() if card.number in numbers),
        tuple(card for card in cards.values() if card.number not in numbers),
        conflicts=tuple(_conflict(each) for each in answer.support.get("conflicts", ())),
        searched=shown.searched,
        is_sent=answer.abstained and is_sent(answer),
        is_managers_own=bool(shown.searched) and _is_managers_own(shown),
        follow_ups=tuple(shown.follow_ups),
        awaits_follow_ups=are_coming(answer),
        choice=name_of(shown.user, answer),
    )


def _is_managers_own(shown: Presented) -> bool:
    searched = [each["id"] for each in shown.searched["collections"]]
    return manages_all(searched, user=shown.user)


def _conflict(found: dict[str, Any]) -> Conflict:
    first, second = (date.fromisoformat(day) for day in found["dated"])
    values = tuple(f"{value} {found['unit']}" for value in found["values"])
    return Conflict(found["number"], found["other"], values[0], values[1], first, second)


def where(locator: Locator) -> str:
    """``Leave › Parental leave · page 3``; "" when the document has neither headings nor pages."""
    parts = [" › ".join(locator.heading_path[-2:])] if locator.heading_path else []
    if locator.page is not None:
        parts.append(f"page {locator.page}")
    return " · ".join(parts)


def _url(document_id: UUID | None, version_id: UUID | None, locator: Locator) -> str:
    if document_id is None or version_id is None:
        return ""
    place = {"v": str(version_id), "start": locator.char_start, "end": locator.char_end}
    return f"{reverse('document', args=[document_id])}?{urlencode(place)}#passage"
