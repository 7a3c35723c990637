"""Filters of a search: read from what was sent, written as SQL inside the statement that ranks.

A filter only ever narrows what the scope lets through. What is sent is a mapping such as
``{"types": ["pdf"], "dated_after": "2025-01-01"}``, which is also how a conversation keeps it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import date, datetime, timedelta
from typing import Any, Final
from uuid import UUID

from django.core.exceptions import ValidationError
from django.utils.dateparse import parse_date, parse_datetime
from django.utils.timezone import is_aware, localdate, make_aware

from assistant.documents.kinds import BY_NAME, KINDS
from assistant.permissions.policy import AnyUser
from assistant.users.models import User

ME: Final = "me"
_MAX_VALUES = 1000
_MAX_CHARACTERS = 500
# Metadata keys that say what a document is of, the first that is there counts.
DATE_KEYS: Final = ("date", "published", "year")
_NAME = "concat_ws(' ', d.title, d.path, v.filename)"
_YEAR = r"(?<!\d)((?:19|20)\d\d)(?!\d)"
_SAID = "left(coalesce(" + ", ".join(f"d.metadata ->> '{key}'" for key in DATE_KEYS) + "), 10)"


def narrowing(filters: Mapping[str, Any], *, user: AnyUser, params: dict[str, Any]) -> str:
    """Conditions on document ``d`` and version ``v``, each led by AND; values go into ``params``.

    Raises ValidationError with words for each field that is unknown or malformed.
    """
    read = _read(filters)
    params |= {f"filter_{name}": value for name, value in read.items() if name != "metadata"}
    conditions = [_CONDITIONS[name] for name in read if name in _CONDITIONS]
    if "uploaded_by" in read:
        params["filter_uploaded_by"] = _ids_of(read["uploaded_by"], user)
    for i, (key, wanted) in enumerate(read.get("metadata", {}).items()):
        params |= {f"meta_key_{i}": key, f"meta_values_{i}": wanted}
        conditions.append(
            f"(d.metadata ->> %(meta_key_{i})s = ANY(%(meta_values_{i})s)"
            f" OR jsonb_typeof(d.metadata -> %(meta_key_{i})s) = 'array'"
            f" AND d.metadata -> %(meta_key_{i})s ?| %(meta_values_{i})s)"
        )
    conditions += _dated(read, params)
    return "".join(f" AND {condition}" for condition in conditions)


def check(filters: Mapping[str, Any]) -> None:
    """Raises ValidationError with words for each field that is unknown or malformed."""
    _read(filters)


def _read(filters: Mapping[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    errors: dict[str, list[str]] = {}
    for name, value in filters.items():
        if name not in _READERS:
            known = ", ".join(_READERS)
            errors[str(name)] = [f"There is no filter {str(name)[:50]!r}. Filters are {known}."]
            continue
        try:
            found[name] = _READERS[name](value)
        except ValueError as error:
            errors[name] = [f"The filter {name} takes {error}."]
    if errors:
        raise ValidationError(errors)
    return found


def _dated(read: Mapping[str, Any], params: dict[str, Any]) -> list[str]:
    """The period a document is of: its metadata say, else a year in its names, else its upload.

    Dates in metadata are ISO 8601 text, perhaps only a year or a month, so bounds are cut to the
    same length and compared as text.
    """
    after: datetime | None = read.get("dated_after")
    before: datetime | None = read.get("dated_before")
    if after is None and before is None:
        return []
    first = localdate(after) if after else date.min
    last = localdate(before - timedelta(microseconds=1)) if before else date.max
    params |= {
        "dated_first": first.isoformat(),
        "dated_last": last.isoformat(),
        "dated_first_year": f"{first.year:04d}",
        "dated_last_year": f"{last.year:04d}",
        "filter_dated_after": after,
        "filter_dated_before": before,
    }
    return [
        f"""CASE
            WHEN {_SAID} ~ '^\\d{{4}}(-\\d\\d){{0,2}}$'
            THEN {_SAID} >= left(%(dated_first)s, length({_SAID}))
                AND {_SAID} <= left(%(dated_last)s, length({_SAID}))
            WHEN {_NAME} ~ '{_YEAR}'
            THEN EXISTS (
                SELECT FROM regexp_matches({_NAME}, '{_YEAR}', 'g') AS year
                WHERE year[1] BETWEEN %(dated_first_year)s AND %(dated_last_year)s
            )
            ELSE v.created_at >= coalesce(%(filter_dated_after)s, '-infinity'::timestamptz)
                AND v.created_at < coalesce(%(filter_dated_before)s, 'infinity'::timestamptz)
        END"""
    ]


def _ids_of(addresses: Sequence[str], user: AnyUser) -> list[UUID]:
    """Looked up here: the role that reads passages may not read addresses."""
    found = list(User.objects.filter(email__in=addresses).values_list("pk", flat=True))
    if ME in addresses and isinstance(user, User):
        found.append(user.pk)
    return found


def _strings(value: object) -> list[str]:
    words = "a list of texts"
    if not isinstance(value, Sequence) or isinstance(value, str | bytes):
        raise ValueError(words)
    if len(value) > _MAX_VALUES:
        raise ValueError(f"at most {_MAX_VALUES:,} values")
    return [_string(item) for item in value]


def _string(value: object) -> str:
    if isinstance(value, bool):
        text = "true" if value else "false"
    elif isinstance(value, str | int | float | UUID):
        text = str(value)
    else:
        raise ValueError("texts and numbers only")
    if "\0" in text or len(text) > _MAX_CHARACTERS:
        raise ValueError(f"texts of at most {_MAX_CHARACTERS} characters, without NUL")
    return text


def _ids(value: object) -> list[UUID]:
    found = []
    for item in _strings(value):
        try:
            found.append(UUID(item))
        except ValueError:
            raise ValueError(f"document ids; {item[:50]!r} is none") from None
    return found


def _media_types(value: object) -> list[str]:
    found: list[str] = []
    for name in _strings(value):
        if name not in BY_NAME:
            known = ", ".join(kind.name for kind in KINDS)
            raise ValueError(f"a list of {known}; {name[:50]!r} is none of them")
        found += BY_NAME[name].media_types
    return found


def _time(value: object) -> datetime:
    text = str(value)
    try:
        moment = value if isinstance(value, datetime) else parse_datetime(text)
        if moment is None and (day := parse_date(text)) is not None:
            moment = datetime(day.year, day.month, day.day)  # noqa: DTZ001  made aware below
        if moment is not None:
            moment = moment if is_aware(moment) else make_aware(moment)
    except (ValueError, OverflowError):
        moment = None
    # The first and the last year have days that another time zone cannot write.
    if moment is None or not 1 < moment.year < 9999:
        raise ValueError("a date or time such as 2026-01-31")
    return moment


def _metadata(value: object) -> dict[str, list[str]]:
    if not isinstance(value, Mapping) or len(value) > 50:
        raise ValueError('an object of at most 50 keys such as {"team": "HR"}')
    return {
        _string(key): _strings(wanted) if isinstance(wanted, list) else [_string(wanted)]
        for key, wanted in value.items()
    }


def _folder(value: object) -> str:
    folder = value.strip().strip("/") if isinstance(value, str) else ""
    if not folder:
        raise ValueError("the name of a folder such as HR/Travel")
    return _string(folder) + "/"


_READERS: Final[dict[str, Callable[[Any], Any]]] = {
    "document_ids": _ids,
    "types": _media_types,
    "media_types": _strings,
    "created_after": _time,
    "created_before": _time,
    "updated_after": _time,
    "updated_before": _time,
    "dated_after": _time,
    "dated_before": _time,
    "uploaded_by": lambda value: [who.lower() for who in _strings(value)],
    "folder": _folder,
    "metadata": _metadata,
}
_CONDITIONS: Final = {
    "document_ids": "d.id = ANY(%(filter_document_ids)s)",
    "types": "v.media_type = ANY(%(filter_types)s)",
    "media_types": "v.media_type = ANY(%(filter_media_types)s)",
    "created_after": "v.created_at >= %(filter_created_after)s",
    "created_before": "v.created_at < %(filter_created_before)s",
    "updated_after": "d.updated_at >= %(filter_updated_after)s",
    "updated_before": "d.updated_at < %(filter_updated_before)s",
    "uploaded_by": "v.created_by_id = ANY(%(filter_uploaded_by)s)",
    "folder": """d.id IN (
        WITH RECURSIVE inside AS (
            SELECT id FROM documents_document
            WHERE parent_id IS NULL AND starts_with(path, %(filter_folder)s)
            UNION ALL
            SELECT part.id FROM documents_document part JOIN inside ON part.parent_id = inside.id
        )
        SELECT id FROM inside
    )""",
}
