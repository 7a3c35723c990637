"""Filters that the words of a question ask for, where that is safe.

A year in a question is mostly about the content ("revenue in 2025"), and the time of an upload
says little about it. So a time counts only where it stands with a word for a document ("last
year's travel policy", "documents uploaded since March 2025"), a kind of file only where documents
are asked for ("PDFs about ..."), and what is negated, quoted or said twice differently counts not
at all. Words are never taken out of the query, every filter is shown and can be taken away, and
when nothing fits, all is searched and that is said.
"""

from __future__ import annotations

import re
from collections.abc import Collection as Several
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Any, Final, Literal
from uuid import UUID

from django.utils.timezone import localdate

from assistant.database import in_database
from assistant.documents.kinds import BY_NAME
from assistant.documents.models import Collection
from assistant.permissions.policy import AnyUser
from assistant.retrieval.filters import ME
from assistant.retrieval.periods import ENGLISH, GERMAN, Language, Period
from assistant.retrieval.searching import SearchResult, asearch, search

Field = Literal["time", "type", "collection", "owner"]
FIELDS: Final[tuple[Field, ...]] = ("time", "type", "collection", "owner")

# With a time understood, one of the best FEW must be among the best MANY of all documents: else
# the document that answers is probably outside, and the time was meant differently.
FEW = 3
MANY = 50
# A longer text is a story with many times and names in it.
MAX_CHARACTERS = 300


@dataclass(frozen=True, slots=True)
class Hint:
    """A filter that ``phrase`` of the question asks for; ``words`` say it to people."""

    field: Field
    words: str
    phrase: str
    filters: Mapping[str, Any]
    collections: tuple[UUID, ...] = ()


@dataclass(frozen=True, slots=True)
class Understood:
    """``is_used`` is False where the hints left nothing that fits, so that all was searched."""

    hints: tuple[Hint, ...] = ()
    is_used: bool = False


@dataclass(frozen=True, slots=True)
class _Words:
    """How one language asks for documents; all patterns are for lower-case text.

    ``nouns`` bear a time of their own, ``plurals`` are what one can have many of; ``time`` are
    patterns with the group ``time`` around a phrase that ``periods`` reads, ``adjectives`` those
    whose time is the last year or this. ``kinds`` are names of files for each kind, ``asking`` the
    patterns around such a name. ``collection`` has ``{name}`` for the name of one.
    """

    periods: Language
    uploaded: str
    time: tuple[str, ...]
    adjectives: tuple[tuple[str, int], ...]
    kinds: Mapping[str, str]
    asking: tuple[str, ...]
    collection: tuple[str, ...]
    mine: str


_EN_NOUNS = (
    r"(?:documents?|files?|pdfs?|e-?mails?|reports?|polic(?:y|ies)|presentations?|slides"
    r"|spreadsheets?|handbooks?|manuals?|guides?|guidelines?|minutes|contracts?|memos?"
    r"|newsletters?|agreements?|uploads?)\b"
)
_EN_PLURALS = (
    r"(?:documents|files|pdfs|e-?mails|reports|policies|presentations|slides|spreadsheets|memos"
    r"|newsletters|minutes|contracts|uploads)\b"
)
_EN_UPLOADED = r"(?:uploaded|added)"
_EN_VERBS = r"(?:uploaded|added|published|updated|changed|written|issued|released|created)"
_DE_NOUNS = (
    r"\w*(?:dokumente?s?|dateie?n?|pdfs?|e-?mails?|berichte?s?|richtlinien?|protokolle?s?"
    r"|präsentation(?:en)?|tabellen?|handb(?:uch|ücher)s?|leitf(?:aden|äden)|verträge?"
    r"|vertrag|ordnung|rundschreiben)\b"
)
_DE_PLURALS = (
    r"\w*(?:dokumente|dateien|pdfs|e-?mails|berichte|richtlinien|protokolle|präsentationen"
    r"|tabellen|verträge|rundschreiben)\b"
)
_DE_UPLOADED = r"(?:hochgeladen\w*|hinzugefügt\w*)"
_LANGUAGES = (
    _Words(
        periods=ENGLISH,
        uploaded=_EN_UPLOADED,
        time=(
            rf"\b(?P<time>(?:last|this) (?:year|month|week))['’]s (?:[\w-]+ ){{0,2}}{_EN_NOUNS}",
            rf"\b{_EN_PLURALS}(?: (?:that|which) (?:was|were|have been|has been))? {_EN_VERBS}"
            rf" (?P<time>{ENGLISH.pattern})",
            rf"\b{_EN_PLURALS} (?:from )?(?P<time>(?:since|after|before) {ENGLISH.point})",
            rf"\b{_EN_NOUNS} (?P<time>(?:from|of|for|dated) (?:{ENGLISH.point}"
            r"|(?:last|this) (?:year|month|week)\b))",
            rf"\b{_EN_PLURALS} from (?P<time>{ENGLISH.past} (?:\d{{1,2}}|"
            rf"{'|'.join(ENGLISH.numbers)}) (?:{ENGLISH.unit}))",
        ),
        adjectives=(),
        kinds={
            "pdf": r"pdfs|pdf (?:files|documents)",
            "word": r"word (?:files|documents)",
            "slides": r"presentations|slide decks|powerpoint (?:files|presentations)|powerpoints",
            "table": r"spreadsheets|excel (?:files|sheets|tables|workbooks)",
            "mail": r"e-?mails",
            "web": r"web ?pages",
        },
        asking=(
            r"^(?:please )?(?:(?:find|show|list|get|give|search|search for|look for)(?: me)? )?"
            r"(?:(?:all|any|the|our|my) )*(?:{kind})"
            r" (?:about|on|regarding|concerning|mentioning|that mention|which mention|from|of"
            r"|uploaded|added|published|since)\b",
            r"^which (?:{kind}) (?:mention|describe|contain|explain|say|are about)\b",
            r"\b(?:search|look) (?:only )?(?:in|through) (?:(?:all|the|our|my) )*(?:{kind})\b",
        ),
        collection=(
            r"\b(?:in|within|from) (?:the |our |my )?{name} collection\b",
            r"\b(?:in|within|from) (?:the )?collection {name}(?!\w)",
        ),
        mine=rf"\b{_EN_PLURALS} (?:that )?i (?:have )?uploaded\b"
        rf"|\b{_EN_PLURALS} uploaded by me\b|\bmy uploads\b",
    ),
    _Words(
        periods=GERMAN,
        uploaded=_DE_UPLOADED,
        time=(
            rf"\b{_DE_NOUNS} (?P<time>(?:vom|aus dem|des) (?:letzten|vergangenen|vorigen)"
            r" (?:jahr(?:es)?|monats?)\b)",
            rf"\b{_DE_NOUNS} (?P<time>aus diesem (?:jahr|monat)\b)",
            rf"\b{_DE_NOUNS} (?P<time>(?:aus|von|vom|für) {GERMAN.point})",
            rf"\b{_DE_PLURALS} (?P<time>(?:seit|nach|vor) {GERMAN.point})",
            rf"\b{_DE_PLURALS}, die (?P<time>{GERMAN.pattern})"
            rf" (?:{_DE_UPLOADED}|veröffentlicht|geändert|erstellt)\b",
            rf"\b{_DE_UPLOADED} (?:\w+ )?{_DE_PLURALS} (?P<time>{GERMAN.pattern})",
        ),
        adjectives=(
            (rf"\b(?:letzt|vor)jährigen? (?:\w+ ){{0,1}}{_DE_NOUNS}", 1),
            (rf"\b{_DE_NOUNS} (?:des|vom|aus dem) vorjahre?s?\b", 1),
            (rf"\bdiesjährigen? (?:\w+ ){{0,1}}{_DE_NOUNS}", 0),
        ),
        kinds={
            "pdf": r"pdfs|pdf-?(?:dateien|dokumente)",
            "word": r"word-?(?:dateien|dokumente)",
            "slides": r"präsentationen|powerpoint-?(?:dateien|präsentationen)",
            "table": r"excel-?(?:dateien|tabellen)|tabellenblätter",
            "mail": r"e-?mails",
            "web": r"web-?seiten",
        },
        asking=(
            r"^(?:bitte )?(?:(?:zeige?|finde?|suche?|liste|gib)(?: mir)? )?"
            r"(?:(?:alle|die|unsere|meine) )*(?:{kind})"
            r" (?:über|zu|zum|zur|von|aus|seit|mit dem wort)\b",
            r"^welche (?:{kind}) (?:erwähnen|beschreiben|enthalten|erklären)\b",
            r"\b(?:suche?) (?:nur )?in (?:(?:allen|den|unseren|meinen) )*(?:{kind})\b",
        ),
        collection=(
            r"\b(?:in|aus) der sammlung {name}(?!\w)",
            r"\b(?:in|aus) der {name}[ -]sammlung\b",
        ),
        mine=rf"\b{_DE_PLURALS}, die ich hochgeladen habe\b|\bvon mir {_DE_UPLOADED}",
    ),
)
_NEGATED = re.compile(
    r"\b(?:not|no|never|except|excluding|without|other than|instead of|nicht|außer|ohne|keine?n?)\b"
    r"|n['’]t\b"
)
_QUOTED = re.compile(r"[\"“”„«»][^\"“”„«»]*[\"“”„«»]")
_KIND = re.compile("|".join(names for words in _LANGUAGES for names in words.kinds.values()))
_TIMED = re.compile(r"\d|\b(?:last|past|this|letzt|vergangen|vorig|vorj|diese|diesj)")
_ABOUT_COLLECTIONS = re.compile(r"\bcollection\b|sammlung\b", re.IGNORECASE)


def understand(
    question: str, *, today: date, names: Mapping[str, Several[UUID]] | None = None
) -> tuple[Hint, ...]:
    """The filters that the words ask for; at most one of each field.

    ``names`` are the collections that may be named, with the ids of those of that name.
    """
    text = " ".join(question.lower().split())
    if len(text) > MAX_CHARACTERS or _NEGATED.search(text):
        return ()
    named = _collection(text, names or {})
    text = _QUOTED.sub(lambda quoted: " " * len(quoted[0]), text)
    hints = [
        named,
        _only(_times(text, today=today)),
        _only(_kinds(text)),
        next(
            (
                Hint("owner", "Uploaded by you", found[0], {"uploaded_by": [ME]})
                for words in _LANGUAGES
                if (found := re.search(words.mine, text))
            ),
            None,
        ),
    ]
    return tuple(hint for hint in hints if hint is not None)


def _only(hints: Iterator[Hint]) -> Hint | None:
    """The one that all agree on; None when there is none, or when they differ."""
    found = list(hints)
    return found[0] if found and all(hint.filters == found[0].filters for hint in found) else None


def _times(text: str, *, today: date) -> Iterator[Hint]:
    if not _TIMED.search(text):  # most questions: saves the rest
        return
    for words in _LANGUAGES:
        for pattern in words.time:
            for found in re.finditer(pattern, text):
                period = words.periods.read(found["time"], today=today)
                if period is not None:
                    is_upload = re.search(rf"\b{words.uploaded}\b", found[0]) is not None
                    yield _time_hint(period, found[0], is_upload=is_upload)
        for pattern, back in words.adjectives:
            for found in re.finditer(pattern, text):
                year = today.year - back
                period = Period(date(year, 1, 1), date(year, 12, 31), str(year))
                yield _time_hint(period, found[0], is_upload=False)


def _time_hint(period: Period, phrase: str, *, is_upload: bool) -> Hint:
    kind = "created" if is_upload else "dated"
    filters = {}
    if period.first:
        filters[f"{kind}_after"] = period.first.isoformat()
    if period.last:
        filters[f"{kind}_before"] = (period.last + timedelta(days=1)).isoformat()
    words = f"Uploaded {period.words}" if is_upload else f"{period.words} only"
    return Hint("time", words[:1].upper() + words[1:], phrase, filters)


def _kinds(text: str) -> Iterator[Hint]:
    if not _KIND.search(text):  # as above
        return
    for words in _LANGUAGES:
        for kind, names in words.kinds.items():
            for pattern in words.asking:
                if found := re.search(pattern.replace("{kind}", names), text):
                    yield Hint("type", f"{BY_NAME[kind].words} only", found[0], {"types": [kind]})


def _collection(text: str, names: Mapping[str, Several[UUID]]) -> Hint | None:
    """The one readable collection that is named; two of the same name are ambiguous."""
    if not _ABOUT_COLLECTIONS.search(text):
        return None
    found = []
    for name, ids in names.items():
        escaped = rf"[\"“„]?{re.escape(' '.join(name.lower().split()))}[\"”“]?"
        patterns = (p.replace("{name}", escaped) for w in _LANGUAGES for p in w.collection)
        match = next((m for pattern in patterns if (m := re.search(pattern, text))), None)
        if match:
            found.append((match[0], name, ids))
    # "the travel policies collection" names "travel policies", not "policies" within it.
    found.sort(key=lambda item: -len(item[1]))
    if not found or len(found[0][2]) != 1:
        return None
    phrase, name, ids = found[0]
    return Hint("collection", f"In {name} only", phrase, {}, tuple(ids))


def readable_names(question: str, *, user: AnyUser) -> dict[str, list[UUID]]:
    """Names that may be understood are those that ``user`` may read, and no others."""
    names: dict[str, list[UUID]] = {}
    if _ABOUT_COLLECTIONS.search(question):
        same: dict[str, str] = {}
        for pk, name in Collection.objects.for_user(user).values_list("pk", "name"):
            names.setdefault(same.setdefault(name.casefold(), name), []).append(pk)
    return names


def hints_for(
    question: str,
    *,
    names: Mapping[str, Several[UUID]],
    collections: Sequence[UUID] | None = None,
    filters: Mapping[str, Any] | None = None,
    ignored: Several[str] = (),
) -> tuple[Hint, ...]:
    """What to understand, given what was chosen by hand, which always counts before words.

    ``names`` as in ``understand``; ``ignored`` are fields that the asking person took away.
    """
    chosen = filters or {}
    taken: set[str] = set(ignored)
    if collections is not None:
        taken.add("collection")
    if any(name.startswith(("created_", "updated_", "dated_")) for name in chosen):
        taken.add("time")
    if "types" in chosen or "media_types" in chosen:
        taken.add("type")
    if "uploaded_by" in chosen:
        taken.add("owner")
    found = understand(question, today=localdate(), names=names)
    return tuple(hint for hint in found if hint.field not in taken)


def as_json(understood: Understood) -> dict[str, Any]:
    """As it is told and kept: what was read from the words, and whether it counted."""
    return {
        "hints": [
            {
                "field": hint.field,
                "words": hint.words,
                "phrase": hint.phrase,
                "filters": dict(hint.filters),
                "collections": [str(pk) for pk in hint.collections],
            }
            for hint in understood.hints
        ],
        "is_used": understood.is_used,
    }


Course = Generator[dict[str, Any], SearchResult, tuple[SearchResult, Understood]]


def _course(hints: tuple[Hint, ...], options: Mapping[str, Any]) -> Course:
    """The searches to make, one after the other, as keyword arguments; results are sent in."""
    if not hints:
        return (yield dict(options)), Understood()
    narrowed = dict(options)
    narrowed["filters"] = dict(options.get("filters") or {})
    for hint in hints:
        narrowed["filters"] |= hint.filters
        if hint.collections:
            narrowed["collections"] = hint.collections
    few = yield narrowed
    fits = bool(few.passages)
    if fits and any(hint.field == "time" for hint in hints):
        many = yield {**options, "limit": MANY, "budget": None, "rerank": False, "explain": False}
        known = {passage.document_id for passage in many.passages}
        fits = any(passage.document_id in known for passage in few.passages[:FEW])
    if fits:
        return few, Understood(hints, is_used=True)
    return (yield dict(options)), Understood(hints, is_used=False)


def search_understanding(
    query: str, *, user: AnyUser, question: str, ignored: Several[str] = (), **options: Any
) -> tuple[SearchResult, Understood]:
    """``search`` narrowed by what the words of ``question`` ask for; ``options`` are its own."""
    names = readable_names(question, user=user)
    course = _course(hints_for(question, names=names, ignored=ignored, **_chosen(options)), options)
    wanted = next(course)
    while True:
        result = search(query, user=user, **wanted)
        try:
            wanted = course.send(result)
        except StopIteration as end:
            found: tuple[SearchResult, Understood] = end.value
            return found


async def asearch_understanding(
    query: str, *, user: AnyUser, question: str, ignored: Several[str] = (), **options: Any
) -> tuple[SearchResult, Understood]:
    """``search_understanding`` for async callers."""
    names: Mapping[str, Several[UUID]] = {}
    if _ABOUT_COLLECTIONS.search(question):  # most name none: saves a thread and a connection
        names = await in_database(readable_names)(question, user=user)
    course = _course(hints_for(question, names=names, ignored=ignored, **_chosen(options)), options)
    wanted = next(course)
    while True:
        result = await asearch(query, user=user, **wanted)
        try:
            wanted = course.send(result)
        except StopIteration as end:
            found: tuple[SearchResult, Understood] = end.value
            return found


def _chosen(options: Mapping[str, Any]) -> dict[str, Any]:
    return {name: options[name] for name in ("collections", "filters") if name in options}
