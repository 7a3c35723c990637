"""Words for a stretch of time, English and German, as calendar days.

One more language is one more ``Language``. A phrase that can be read in two ways is not read.
"""

from __future__ import annotations

import re
from calendar import monthrange
from dataclasses import dataclass
from datetime import date, timedelta


@dataclass(frozen=True, slots=True)
class Period:
    """From ``first`` up to and including ``last``; None is open. ``words`` are for people."""

    first: date | None
    last: date | None
    words: str


@dataclass(frozen=True, slots=True)
class Language:
    """Regular expressions, to be matched against lower-case text.

    ``months`` are in order; ``this`` and ``last`` come before a unit, ``since`` and the like before
    a month or year. ``past`` is the whole phrase for the last so many units.
    """

    months: tuple[str, ...]
    units: tuple[tuple[str, str], ...]
    this: str
    last: str
    since: str
    after: str
    before: str
    in_: str
    past: str
    numbers: tuple[str, ...]

    @property
    def month(self) -> str:
        return "|".join(self.months)

    @property
    def unit(self) -> str:
        return "|".join(pattern for pattern, _ in self.units)

    @property
    def point(self) -> str:
        """A day, a month, a quarter or a year."""
        return (
            rf"(?:\d{{4}}-\d\d-\d\d|(?:{self.month})\s+(?:19|20)\d\d|q[1-4]\s+(?:19|20)\d\d"
            rf"|(?:19|20)\d\d)(?![\d-])"
        )

    @property
    def pattern(self) -> str:
        """Any phrase that ``read`` understands, as one group without a name."""
        return (
            rf"(?:(?:{self.since}|{self.after}|{self.before}|{self.in_})\s+{self.point}"
            rf"|(?:{self.in_}\s+)?(?:{self.this}|{self.last})\s+(?:{self.unit})\b"
            rf"|(?:{self.in_}\s+)?(?:{self.past})\s+"
            rf"(?:\d{{1,2}}|{'|'.join(self.numbers)})\s+(?:{self.unit})\b)"
        )

    def read(self, phrase: str, *, today: date) -> Period | None:
        """The period of a phrase that ``pattern`` matched; None for days that do not exist."""
        text = phrase.lower()
        if found := re.search(rf"({self.point})", text):
            days = self._days_of(found[1])
            if days is None:
                return None
            first, last = days
            if re.match(self.since, text):
                return Period(first, None, f"since {_words(first, last)}")
            if re.match(self.after, text):
                return Period(last + timedelta(days=1), None, f"after {_words(first, last)}")
            if re.match(self.before, text):
                return Period(None, first - timedelta(days=1), f"before {_words(first, last)}")
            return Period(first, last, _words(first, last))
        unit = next((name for pattern, name in self.units if re.search(pattern, text)), None)
        if unit is None:
            return None
        if found := re.search(rf"(?:{self.past})\s+(\d{{1,2}}|{'|'.join(self.numbers)})\b", text):
            count = int(found[1]) if found[1].isdigit() else self.numbers.index(found[1]) + 2
            first = _back(today, unit, count)
            return Period(first, today, f"since {_day(first)}")
        return _calendar(today, unit, back=1 if re.search(rf"\b(?:{self.last})\b", text) else 0)

    def _days_of(self, point: str) -> tuple[date, date] | None:
        try:
            if point[4:5] == "-":
                day = date.fromisoformat(point)
                return day, day
            year = int(point[-4:])
            if point.startswith("q"):
                month = 3 * int(point[1]) - 2
                return date(year, month, 1), _end_of_month(year, month + 2)
            for number, name in enumerate(self.months, start=1):
                if re.match(rf"(?:{name})\s", point):
                    return date(year, number, 1), _end_of_month(year, number)
            return date(year, 1, 1), date(year, 12, 31)
        except ValueError:
            return None


def _end_of_month(year: int, month: int) -> date:
    return date(year, month, monthrange(year, month)[1])


def _calendar(today: date, unit: str, *, back: int) -> Period:
    """The whole calendar week, month or year, ``back`` of them ago. Weeks begin on Monday."""
    if unit == "year":
        first, last = date(today.year - back, 1, 1), date(today.year - back, 12, 31)
    elif unit == "month":
        months = today.year * 12 + today.month - 1 - back
        first = date(months // 12, months % 12 + 1, 1)
        last = _end_of_month(first.year, first.month)
    else:
        first = today - timedelta(days=today.weekday() + 7 * back)
        last = first + timedelta(days=6)
    return Period(first, last, _words(first, last))


def _back(today: date, unit: str, count: int) -> date:
    days = {"day": 1, "week": 7, "month": 30, "year": 365}[unit]
    return today - timedelta(days=days * count)


def _words(first: date, last: date) -> str:
    if first == last:
        return _day(first)
    if (first.month, first.day, last.month, last.day) == (1, 1, 12, 31):
        return str(first.year) if first.year == last.year else f"{first.year} to {last.year}"
    if first.day == 1 and last == _end_of_month(first.year, first.month):
        return f"{first:%B %Y}"
    return f"{_day(first)} to {_day(last)}"


def _day(day: date) -> str:
    return f"{day.day} {day:%B %Y}"


ENGLISH = Language(
    months=(
        "january|jan",
        "february|feb",
        "march|mar",
        "april|apr",
        "may",
        "june|jun",
        "july|jul",
        "august|aug",
        "september|sept|sep",
        "october|oct",
        "november|nov",
        "december|dec",
    ),
    units=(
        (r"years?\b(?:['’]s)?", "year"),
        (r"months?\b(?:['’]s)?", "month"),
        (r"weeks?\b(?:['’]s)?", "week"),
        (r"days?\b", "day"),
    ),
    this="this",
    last="last",
    since="since",
    after="after",
    before="before|until",
    in_="from|of|for|in|during|dated",
    past="(?:the )?(?:last|past)",
    numbers=("two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"),
)
GERMAN = Language(
    months=(
        "januar|jan",
        "februar|feb",
        "märz",
        "april|apr",
        "mai",
        "juni|jun",
        "juli|jul",
        "august|aug",
        "september|sept|sep",
        "oktober|okt",
        "november|nov",
        "dezember|dez",
    ),
    units=(
        (r"jahr(?:e|en|es|s)?\b", "year"),
        (r"monat(?:e|en|s)?\b", "month"),
        (r"wochen?\b", "week"),
        (r"tag(?:e|en)?\b", "day"),
    ),
    this=r"diese[mrs]?",
    last=r"(?:letzte|vergangene|vorige)[mnrs]?",
    since="seit",
    after="nach",
    before="vor|bis",
    in_="aus dem|aus der|aus|vom|von|des|der|für|im|in der|in diesem|in",
    past="(?:den )?(?:letzten|vergangenen)",
    numbers=("zwei", "drei", "vier", "fünf", "sechs", "sieben", "acht", "neun", "zehn"),
)
