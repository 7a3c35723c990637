"""What a question asks for: in how many parts, which kind of thing, and whether a sentence has it.

"When did …" wants a time and "How many …" a number: a sentence with all the words of the question
and neither of them is about the same thing and does not answer. Question words of seven languages
are known; a question in another one, or without such a word, asks for one thing of any kind.
"""

from __future__ import annotations

import re
from enum import Enum, auto
from typing import Final


class Kind(Enum):
    """What would answer."""

    NUMBER = auto()
    TIME = auto()
    NAME = auto()


_TIME: Final = (
    r"when|(?:what|which) (?:year|date|day|month|century|decade)|since when|until when"
    r"|wann|(?:welche[mns]?|welches) (?:jahr|datum|tag|monat|jahrhundert)|seit wann|bis wann"
    r"|quand|(?:quelle|quel) (?:date|année|jour|mois|siècle)|depuis quand"
    r"|cuándo|(?:qué|cuál) (?:año|fecha|día|mes|siglo)|quando|(?:che|quale|qual) (?:anno|data|ano)"
    r"|wanneer|(?:welk|welke) (?:jaar|datum|dag|maand|eeuw)"
)
_NUMBER: Final = (
    r"how (?:many|much|old|long|far|high|tall|large|big|often|fast|heavy|deep|wide|few|late|early)"
    r"|(?:what|which) (?:percent|percentage|number|amount|share|fraction|population|age)"
    r"|wie (?:viele?n?|alt|lange?|weit|hoch|groß|oft|schnell|schwer|tief|breit)|wieviele?"
    r"|combien|quel(?:le)? (?:nombre|pourcentage|âge)|cuánt[oa]s?|quant[eoia]s?|hoeveel"
    r"|hoe (?:lang|oud)"
)
_NAME: Final = r"who|whom|whose|qui|quién|quiénes|chi|quem"
_ASKED: Final = tuple(
    (kind, re.compile(rf"\b(?:{words})\b", re.IGNORECASE))
    for kind, words in ((Kind.TIME, _TIME), (Kind.NUMBER, _NUMBER), (Kind.NAME, _NAME))
)
# Words of a question that can be read by itself; "when and where was …" has too few.
_FEWEST: Final = 3
# After an "and", a word that asks, or a verb before its subject, begins another question.
_AND_ASKED: Final = {
    "and|and also": r"wh(?:at|ich|en|ere|om?|ose|y)|how|(?:do|can|may|must|should|am|will) (?:i|we)"
    r"|(?:is|are) there",
    "und|und auch": r"was|welche[mnrs]?|we[rmn]|wo(?:hin|her)?|wann|warum|wie|wieviele?"
    r"|(?:darf|kann|muss|soll|bekomme|habe) ich|gibt es",
    "et": r"que|quoi|qui|quel(?:le)?s?|quand|où|comment|combien|pourquoi|est-ce que",
    "y|e": r"qué|quién|cuál(?:es)?|cuándo|cuánt[oa]s?|dónde|cómo|chi|che cosa|quali?|quando"
    r"|quant[eoia]|dove|come|perché|quem|qual|quais|onde|como",
    "en": r"wat|wie|welke?|wanneer|waar|waarom|hoe|hoeveel",
}
_SEAMS: Final = tuple(
    (
        re.compile(rf"(?:,?\s+(?:{joins})|[?;])\s+(?=(?:{asks})\b)", re.IGNORECASE),
        re.compile(rf"\b(?:{asks})\b", re.IGNORECASE),
    )
    for joins, asks in _AND_ASKED.items()
)
# What stands for something said before: a part with one of them says nothing by itself.
_REFERS: Final = re.compile(
    r"\b(?:its?|he|him|his|she|hers?|they|them|theirs?|th(?:at|is|ese|ose)|one|ones"
    r"|er|ihn|ihm|ihre?[mnrs]?|sein(?:e[mnrs]?)?|dies(?:e[mnrs]?)?"
    r"|ils?|elles?|celui|lui|él|ell[oa]s?|ess[oa]|lo|ess[ie]|hij|hem|zij|dit|ele|isso)\b",
    re.IGNORECASE,
)
_WORD: Final = re.compile(r"[^\W_]+(?:[.,:/-]\d+)*")
_COUNTED_TEXT: Final = (
    "one two three four five six seven eight nine ten eleven twelve twenty thirty forty fifty "
    "sixty seventy eighty ninety hundred thousand million billion trillion dozen half third "
    "quarter once twice both none single double several ein eine einen einer zwei drei vier "
    "fünf sechs sieben acht neun zehn elf zwölf zwanzig hundert tausend millionen milliarden "
    "hälfte drittel viertel einmal zweimal beide keine un une deux trois quatre cinq sept huit "
    "neuf dix cent mille moitié tiers uno una dos tres cuatro cinco seis siete ocho nueve diez "
    "cien mil mitad tercio due tre quattro cinque sei sette otto nove dieci cento metà een twee "
    "drie vijf zes zeven negen tien honderd duizend helft um uma dois duas três quatro sete "
    "oito dez cem metade"
)
_COUNTED: Final = frozenset(_COUNTED_TEXT.split())
_DATED_TEXT: Final = (
    "january february march april may june july august september october november december "
    "monday tuesday wednesday thursday friday saturday sunday spring summer autumn winter "
    "century centuries today yesterday tomorrow daily weekly monthly annually januar februar "
    "märz mai juni juli oktober dezember montag dienstag mittwoch donnerstag freitag samstag "
    "sonntag frühling sommer herbst jahrhundert heute gestern morgen täglich jährlich janvier "
    "février mars avril juin juillet août septembre octobre novembre décembre lundi mardi "
    "mercredi jeudi vendredi samedi dimanche siècle enero febrero marzo abril mayo junio julio "
    "agosto septiembre octubre noviembre diciembre lunes martes jueves viernes sábado domingo "
    "siglo gennaio febbraio aprile maggio giugno luglio settembre ottobre dicembre secolo "
    "januari februari maart mei augustus eeuw janeiro fevereiro março maio junho julho setembro "
    "outubro novembro dezembro século"
)
_DATED: Final = frozenset(_DATED_TEXT.split())
_BEGINNINGS_TEXT: Final = (
    "the a an in on at of by for from with to as and but or if it its he she they his her their "
    "this that these those there when where while after before during since although however "
    "also both one some many most all each other such i we you der die das ein eine im am von "
    "mit für auf und aber oder wenn er sie es ihr seine diese dieser dieses nach vor seit "
    "während obwohl auch le la les un une des du de en dans par pour et mais il elle ils elles "
    "ce cette ces el los las una unos con por para y pero lo su sus este esta estos gli uno di "
    "da per e ma questo questa het een van met voor maar dit deze"
)
_BEGINNINGS: Final = frozenset(_BEGINNINGS_TEXT.split())


def parts_of(question: str) -> list[str]:
    """``question``, or the questions that it is put together of, if each can be read by itself."""
    for seam, asks in _SEAMS:
        parts = [part.strip() for part in seam.split(question)]
        can_stand = all(asks.search(part) and len(_WORD.findall(part)) >= _FEWEST for part in parts)
        if len(parts) > 1 and can_stand and not any(_REFERS.search(part) for part in parts[1:]):
            return parts
    return [question]


def kind_of(question: str) -> Kind | None:
    """What is asked for; None where nothing tells."""
    found = [(match.start(), kind) for kind, asked in _ASKED if (match := asked.search(question))]
    return min(found, key=lambda each: each[0])[1] if found else None


def holds(text: str, kind: Kind, question: str) -> bool:
    """Whether ``text`` has something of ``kind`` that does not stand in the question already."""
    said = {word.lower() for word in _WORD.findall(question)}
    new = [word for word in _WORD.findall(text) if word.lower() not in said]
    if kind is Kind.NAME:
        # Scripts without capitals hide their names; a sentence begins with one in any case.
        return any(
            word[0].isupper() or word.lower() == word.upper()
            for word in new
            if word.lower() not in _BEGINNINGS
        )
    if any(char.isdigit() for word in new for char in word):
        return True
    words = {word.lower() for word in new}
    return bool(words & (_DATED if kind is Kind.TIME else _COUNTED))
