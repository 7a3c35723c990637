"""The "Narrow" control: what may be chosen, what was chosen, and the chips that say it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Any, Final

from django import forms
from django.utils.dateparse import parse_date

from assistant.documents.kinds import BY_NAME, KINDS, Kind, kinds_of
from assistant.documents.models import Document
from assistant.users.models import User

# The filters that this control sets; others, set through the API, it shows and keeps.
_OWN: Final = frozenset({"types", "dated_after", "dated_before"})


@dataclass(frozen=True, slots=True)
class Chip:
    """One filter in words. ``name`` is the form field to clear, ``value`` which of its values."""

    name: str
    value: str
    words: str


class NarrowForm(forms.Form):
    """``types``, and what documents are of, from ``since`` up to and including ``until``."""

    types = forms.MultipleChoiceField(
        choices=[(kind.name, kind.words) for kind in KINDS], required=False
    )
    since = forms.DateField(
        required=False, error_messages={"invalid": "The first day is no date such as 2026-01-31."}
    )
    until = forms.DateField(
        required=False, error_messages={"invalid": "The last day is no date such as 2026-01-31."}
    )
    drop_others = forms.BooleanField(required=False)

    def clean(self) -> dict[str, Any]:
        cleaned = super().clean() or self.cleaned_data
        since, until = cleaned.get("since"), cleaned.get("until")
        if since and until and since > until:
            self.add_error("until", "The last day lies before the first.")
        return cleaned

    def filters(self, present: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """What was chosen as filters; those of ``present`` that are not set here stay."""
        given = self.cleaned_data
        kept = {} if given["drop_others"] else dict(present or {})
        filters = {name: value for name, value in kept.items() if name not in _OWN}
        if given["types"]:
            filters["types"] = given["types"]
        if given["since"]:
            filters["dated_after"] = given["since"].isoformat()
        if given["until"]:
            filters["dated_before"] = (given["until"] + timedelta(days=1)).isoformat()
        return filters


def readable_kinds(user: User) -> list[Kind]:
    """Only kinds of which ``user`` may read a document are offered."""
    found = (
        Document.objects.for_user(user)
        .filter(current_version__isnull=False, disabled_at=None)
        .order_by()
        .values_list("current_version__media_type", flat=True)
        .distinct()
    )
    return kinds_of(frozenset(found))


def shown(filters: Mapping[str, Any]) -> dict[str, Any]:
    """``filters`` as the control shows them: the form's fields, and the chips."""
    since, last = _day(filters, "dated_after"), _day(filters, "dated_before")
    until = last - timedelta(days=1) if last else None
    types = [name for name in filters.get("types", ()) if name in BY_NAME]
    chips = [Chip("types", name, BY_NAME[name].words) for name in types]
    if since:
        chips.append(Chip("since", "", f"From {_words(since)}"))
    if until:
        chips.append(Chip("until", "", f"Up to {_words(until)}"))
    others = sorted(filters.keys() - _OWN)
    if others:
        chips.append(Chip("drop_others", "", f"Also by {', '.join(others).replace('_', ' ')}"))
    return {
        "types": types,
        "since": since.isoformat() if since else "",
        "until": until.isoformat() if until else "",
        "others": others,
        "chips": chips,
    }


def _day(filters: Mapping[str, Any], name: str) -> date | None:
    """Filters were checked when they were set; a time of day is no matter here."""
    return parse_date(str(filters.get(name, ""))[:10])


def _words(day: date) -> str:
    return f"{day.day} {day:%B %Y}"
