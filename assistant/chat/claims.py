"""Whether a sentence says what a quote says, as far as words can tell.

No model decides here: a word, a number, a name or a negation that differs is a difference, and a
sentence with one is not verified. Sharing most words is not enough: "20 days" and "not 20 days" do.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from difflib import SequenceMatcher
from typing import Final

from assistant.chat.quoting import normalise
from inference.extractive import terms

_TOKEN: Final = re.compile(r"\d+(?:[.,:/-]\d+)*|[^\W\d_]+(?:'[^\W\d_]+)?|[%€$£]")
_THOUSANDS: Final = re.compile(r"\d{1,3}(?:,\d{3})+$")
_ITEM: Final = re.compile(r"^\s*(?:[-*+•>]\s+|\(?\d{1,3}[.)]\s+)+")
# "one" and "ein" are mostly no numbers.
_ENGLISH: Final = (
    "two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen"
    " seventeen eighteen nineteen twenty"
)
_GERMAN: Final = (
    "zwei drei vier fünf sechs sieben acht neun zehn elf zwölf dreizehn vierzehn fünfzehn sechzehn"
    " siebzehn achtzehn neunzehn zwanzig"
)
_NUMBERS: Final = {
    **{word: str(n) for text in (_ENGLISH, _GERMAN) for n, word in enumerate(text.split(), 2)},
    **{"thirty": "30", "forty": "40", "fifty": "50", "sixty": "60", "ninety": "90"},
    **{"dreißig": "30", "vierzig": "40", "fünfzig": "50", "hundred": "100", "hundert": "100"},
}
_UNITS: Final = {
    name: group[0]
    for group in (
        ("second", "seconds", "sekunde", "sekunden"),
        ("minute", "minutes", "minuten"),
        ("hour", "hours", "stunde", "stunden"),
        ("day", "days", "tag", "tage", "tagen"),
        ("week", "weeks", "woche", "wochen"),
        ("month", "months", "monat", "monate", "monaten"),
        ("year", "years", "jahr", "jahre", "jahren"),
        ("percent", "%", "prozent"),
        ("euro", "euros", "€", "eur"),
        ("dollar", "dollars", "$", "usd"),
        ("pound", "pounds", "£"),
        ("mb", "megabyte", "megabytes"),
        ("gb", "gigabyte", "gigabytes"),
        ("metre", "metres", "meter", "meters"),
        ("kilometre", "kilometres", "kilometer", "kilometers", "km"),
        ("mile", "miles"),
    )
    for name in group
}
_BEFORE: Final = frozenset({"€", "$", "£"})
_NEGATIONS_TEXT: Final = (
    "not no never none without cannot neither nor nobody nothing unless except excluding hardly"
    " kein keine keinen keinem keiner keines nicht nie niemals ohne niemand nichts weder außer"
    " pas jamais sans aucun aucune nunca sin ningún ninguna"
)
_NEGATIONS: Final = frozenset(_NEGATIONS_TEXT.split())
# Before a quotation they turn it.
_DENIALS: Final = frozenset(
    ["false", "wrong", "incorrect", "untrue", "myth", "falsch", "unwahr", "faux", "falso"]
)
# Words of one line exclude each other.
_EXCLUSIVE: Final = tuple(
    frozenset(line.split())
    for line in (
        "allowed forbidden prohibited banned",
        "permitted forbidden prohibited banned",
        "may must",
        "mandatory optional voluntary",
        "required optional voluntary",
        "before after",
        "more less fewer",
        "most least",
        "maximum minimum",
        "always never sometimes",
        "increase decrease",
        "increases decreases",
        "include exclude",
        "includes excludes",
        "above below",
        "internal external",
        "paid unpaid",
        "approved rejected",
        "public private",
        "enable disable",
        "enabled disabled",
        "open closed",
        "first last",
        "daily weekly monthly quarterly yearly annually",
        "monday tuesday wednesday thursday friday saturday sunday",
        "january february march april june july august september october november december",
        "erlaubt verboten untersagt",
        "vor nach",
        "mehr weniger",
        "darf muss",
        "immer nie manchmal",
        "montag dienstag mittwoch donnerstag freitag samstag sonntag",
        "januar februar märz april mai juni juli august september oktober november dezember",
    )
)
# How people and models say where a sentence comes from; not part of what it claims.
_FRAMING_TEXT: Final = (
    "short summary according handbook document documents policy guide passage source text says"
    " states notes mentions explains describes"
)
_FRAMING: Final = frozenset(_FRAMING_TEXT.split())
# How far before a word a negation still counts for it.
_REACH: Final = 4
# Equal words around a difference that make the sentence a copy with a changed word.
_COPIED: Final = 2


def without_bullet(claim: str) -> str:
    return _ITEM.sub("", claim).strip(" *_>•-")


def differs(claim: str, quote: str, *, about: str = "") -> bool:
    """Whether ``claim`` says something that ``quote`` does not, or says it otherwise.

    ``about`` is what else is known of the quote: the document's title and its headings.
    """
    said, found = _tokens(without_bullet(claim)), _tokens(quote)
    known = frozenset(found) | frozenset(_tokens(about))
    return (
        contradicts(claim, quote, about=about)
        or _has_strange_name(claim, known)
        or _is_altered(said, found, known)
    )


def contradicts(claim: str, quote: str, *, about: str = "") -> bool:
    """Whether numbers, units, negations or words that exclude each other differ."""
    said, found = _tokens(without_bullet(claim)), _tokens(quote)
    return (
        not set(_numbers(said)) <= set(_numbers(found)) | set(_numbers(_tokens(about)))
        or _units_differ(said, found)
        or _negation_differs(said, found)
        or _excluded(said, found)
    )


def adds(around: str, quote: str, *, about: str = "") -> bool:
    """Whether the words around a quotation turn it or add a number that the quote lacks."""
    said = _tokens(without_bullet(around))
    known = set(_numbers([*_tokens(quote), *_tokens(about)]))
    turning = _NEGATIONS | _DENIALS
    return not set(_numbers(said)) <= known or not turning.isdisjoint(said)


def measures(text: str) -> dict[str, frozenset[str]]:
    """The numbers of a text by the unit beside them, such as ``{"day": {"30"}}``."""
    found: dict[str, frozenset[str]] = {}
    for number, unit in _measured(_tokens(text)):
        found[unit] = found.get(unit, frozenset()) | {number}
    return found


def _tokens(text: str) -> list[str]:
    found = []
    for token in _TOKEN.findall(normalise(text).text):
        if _THOUSANDS.match(token):
            token = token.replace(",", "")
        if token.endswith("n't"):
            found += [token[:-3], "not"]
            continue
        token = token.removesuffix("'s")
        found.append(_NUMBERS.get(token, token))
    return found


def _numbers(tokens: Sequence[str]) -> Iterator[str]:
    return (token for token in tokens if token[0].isdigit())


def _measured(tokens: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Numbers with the unit that stands beside them."""
    for at, token in enumerate(tokens):
        if not token[0].isdigit():
            continue
        if at and tokens[at - 1] in _BEFORE:
            yield token, _UNITS[tokens[at - 1]]
            continue
        # "20 working days"
        unit = next((_UNITS[word] for word in tokens[at + 1 : at + 3] if word in _UNITS), "")
        if unit:
            yield token, unit


def _units_differ(said: Sequence[str], found: Sequence[str]) -> bool:
    held: dict[str, set[str]] = {}
    for number, unit in _measured(found):
        held.setdefault(number, set()).add(unit)
    return any(number in held and unit not in held[number] for number, unit in _measured(said))


def _negated(tokens: Sequence[str]) -> Iterator[tuple[str, bool]]:
    """Each content word, and whether a negation stands close before it."""
    for at, token in enumerate(tokens):
        if token not in _NEGATIONS and len(token) > 2:
            for stem in terms(token):
                yield stem, any(word in _NEGATIONS for word in tokens[max(0, at - _REACH) : at])


def _negation_differs(said: Sequence[str], found: Sequence[str]) -> bool:
    claimed, held = set(_negated(said)), set(_negated(found))
    shared = {word for word, _ in claimed} & {word for word, _ in held}
    turned = {
        word
        for word in shared
        if not {is_negated for each, is_negated in claimed if each == word}
        & {is_negated for each, is_negated in held if each == word}
    }
    if turned:
        return True
    # A negation of words that the quote does not have.
    return not _NEGATIONS.isdisjoint(said) and _NEGATIONS.isdisjoint(found)


def _excluded(said: Sequence[str], found: Sequence[str]) -> bool:
    claimed, held = set(said), set(found)
    return any(
        bool(claimed & line) and bool(held & line) and not claimed & held & line
        for line in _EXCLUSIVE
    )


def _has_strange_name(claim: str, known: frozenset[str]) -> bool:
    """A capitalised word within the sentence that stands nowhere in what is known."""
    words = re.findall(r"[^\W_]+", without_bullet(claim))
    names = [
        word
        for at, word in enumerate(words)
        if len(word) > 1 and word[0].isupper() and (at > 0 or word[1:] != word[1:].lower())
    ]
    # German capitalises every noun, and titles every word: no names can be told apart there.
    if len(names) * 3 > len(words) and not any(word.isupper() for word in names):
        return False
    stems = {stem for word in known for stem in terms(word)}
    return any(
        word.casefold() not in known and not set(terms(word)) <= stems
        for word in names
        if not word[0].isdigit()
    )


def _is_altered(said: Sequence[str], found: Sequence[str], known: frozenset[str]) -> bool:
    """Copied words on both sides of a word that the source does not have."""
    stems = {stem for word in known for stem in terms(word)}
    opcodes = SequenceMatcher(None, said, found, autojunk=False).get_opcodes()
    for at, (kind, start, end, *_) in enumerate(opcodes):
        if kind not in {"replace", "insert", "delete"} or start == end:
            continue
        before = opcodes[at - 1] if at else None
        after = opcodes[at + 1] if at + 1 < len(opcodes) else None
        copied_before = start == 0 or (before is not None and before[2] - before[1] >= _COPIED)
        copied_after = end == len(said) or (after is not None and after[2] - after[1] >= _COPIED)
        if (copied_before and copied_after) and not (start == 0 and end == len(said)):
            added = [word for word in said[start:end] if word not in _FRAMING]
            strange = {stem for word in added for stem in terms(word)} - stems
            if strange:
                return True
    return False
