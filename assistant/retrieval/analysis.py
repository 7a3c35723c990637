"""Text to index terms: the one analyser for texts and questions.

Each word of a text becomes one lexeme: NFKC, lower case, the Snowball stem of its language, accents
folded; a compound stands for its parts as well. What is written without spaces becomes pairs of
characters; codes, file names, addresses and versions are kept whole and by their parts. The lexemes
carry their places, so that phrases can be found. A question cannot know which language a text is
in: each of its words stands for the stems of all languages that the reader's texts have, as
alternatives of one term.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import Final

import regex
from py3langid.langid import MODEL_FILE, LanguageIdentifier
from Stemmer import Stemmer

from assistant.retrieval import compounds
from assistant.retrieval.compounds import COMPOUNDING, parts_of
from assistant.retrieval.frequencies import code, pack
from assistant.retrieval.tokens import Token, runs_of, tokens_of

# Raised whenever a text would get other terms: what an older version made is then renewed.
VERSION: Final = 3

# Languages told apart, ISO 639-1. The model knows 140; those that a short text of another one is
# often taken for (Wu for Chinese, Egyptian for Arabic, Luxembourgish for German) are left out.
_NAMES: Final = (
    "af ar az be bg bn ca cs cy da de el en eo es et eu fa fi fr ga gl gu he hi hr hu hy id is it"
    " ja ka kk km kn ko lo lt lv mk ml mn mr ms my ne nl nn no pa pl pt ro ru si sk sl sq sr sv sw"
    " ta te th tl tr uk ur uz vi zh"
)
LANGUAGES: Final = tuple(_NAMES.split())
# Measured on the questions of XQuAD (en, de, ar, zh), SciFact and TAT-QA: 99 % of the languages
# named at this probability are right, and 3 % of the questions stay without one.
SURE_FROM = 0.5
_SAMPLE = 600

# Scripts that one language writes alone need no model.
_SCRIPTS = {
    "ja": "\u3040-\u30ff\u31f0-\u31ff\uff66-\uff9d",
    "ko": "\u1100-\u11ff\u3130-\u318f\uac00-\ud7af",
    "zh": "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff",
    "th": "\u0e00-\u0e7f",
    "lo": "\u0e80-\u0eff",
    "km": "\u1780-\u17ff",
    "my": "\u1000-\u109f",
    "el": "\u0370-\u03ff\u1f00-\u1fff",
    "he": "\u0590-\u05ff",
    "ka": "\u10a0-\u10ff",
    "hy": "\u0530-\u058f",
    "ta": "\u0b80-\u0bff",
    "te": "\u0c00-\u0c7f",
    "kn": "\u0c80-\u0cff",
    "ml": "\u0d00-\u0d7f",
    "gu": "\u0a80-\u0aff",
    "si": "\u0d80-\u0dff",
}
_OF_SCRIPT = {language: regex.compile(f"[{chars}]") for language, chars in _SCRIPTS.items()}
_OWN_SCRIPT = regex.compile(f"[{''.join(_SCRIPTS.values())}]")
_LETTER = regex.compile(r"[^\W\d_]")


def detect_language(text: str) -> str | None:
    """The language of ``text`` (ISO 639-1), from its middle; None when that is not sure.

    Words of a question are enough for most; one or two words of a Latin script are not.
    """
    if len(text) > _SAMPLE:
        start = (len(text) - _SAMPLE) // 2
        text = text[start : start + _SAMPLE]
    # Else ``regex`` gives the interpreter away each time; see ``_asked_tokens``.
    letters = len(_LETTER.findall(text, concurrent=False))
    if not letters:
        return None
    if 2 * len(_OWN_SCRIPT.findall(text, concurrent=False)) >= letters:
        counts = {language: len(found.findall(text)) for language, found in _OF_SCRIPT.items()}
        # Japanese is mostly Chinese characters; kana make it Japanese.
        if counts["ja"] * 10 >= counts["zh"] > 0:
            return "ja"
        return max(counts, key=counts.__getitem__)
    language, probability = _identifier().classify(text)
    if probability < SURE_FROM:
        return None
    return "no" if language == "nn" else str(language)


@cache
def _identifier() -> LanguageIdentifier:
    identifier = LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
    identifier.set_languages(LANGUAGES)
    return identifier


# Snowball's algorithms by language.
_STEMMERS: Final = {
    "ar": "arabic", "ca": "catalan", "cs": "czech", "da": "danish", "de": "german", "el": "greek",
    "en": "english", "eo": "esperanto", "es": "spanish", "et": "estonian", "eu": "basque",
    "fa": "persian", "fi": "finnish", "fr": "french", "ga": "irish", "hi": "hindi",
    "hu": "hungarian", "hy": "armenian", "id": "indonesian", "it": "italian", "lt": "lithuanian",
    "ne": "nepali", "nl": "dutch", "no": "norwegian", "pl": "polish", "pt": "portuguese",
    "ro": "romanian", "ru": "russian", "sr": "serbian", "sv": "swedish", "ta": "tamil",
    "tr": "turkish",
}  # fmt: skip
# The language whose stemmer serves words of a script in a text of another one.
_DEFAULT_OF_SCRIPT: Final = {
    "latin": "en", "cyrillic": "ru", "arabic": "ar", "greek": "el", "devanagari": "hi",
    "tamil": "ta", "armenian": "hy",
}  # fmt: skip
_LANGUAGES_OF_SCRIPT: Final = {
    "cyrillic": frozenset({"be", "bg", "kk", "ky", "mk", "mn", "ru", "sr", "uk"}),
    "arabic": frozenset({"ar", "fa", "ur"}),
    "greek": frozenset({"el"}),
    "devanagari": frozenset({"hi", "mr", "ne"}),
    "tamil": frozenset({"ta"}),
    "armenian": frozenset({"hy"}),
}
_RANGES: Final = (
    ("greek", 0x0370, 0x03FF), ("cyrillic", 0x0400, 0x052F), ("armenian", 0x0530, 0x058F),
    ("arabic", 0x0600, 0x077F), ("devanagari", 0x0900, 0x097F), ("tamil", 0x0B80, 0x0BFF),
    ("latin", 0x1E00, 0x1EFF), ("greek", 0x1F00, 0x1FFF), ("arabic", 0xFB50, 0xFEFF),
)  # fmt: skip
# Accents of Latin, Greek and Cyrillic; vowel signs of Arabic and Hebrew; the Arabic stretch.
_MARKS: Final = regex.compile(
    "[\u0300-\u036f\u0591-\u05c7\u0610-\u061a\u0640\u064b-\u065f\u0670\u06d6-\u06ed]"
)
_LETTERS: Final = str.maketrans(
    {
        "\u00f8": "o", "\u0142": "l", "\u0111": "d", "\u00f0": "d", "\u00fe": "th",
        "\u00e6": "ae", "\u0153": "oe", "\u0131": "i",
        # Alef maksura and the Persian yeh and kaf, teh marbuta.
        "\u0649": "\u064a", "\u06cc": "\u064a", "\u06a9": "\u0643", "\u0629": "\u0647",
    }
)  # fmt: skip
# Vietnamese tells words apart by marks alone.
_MARKS_MATTER: Final = frozenset({"vi"})


def _script(word: str) -> str:
    code = ord(word[0])
    if code < 0x0250:
        return "latin"
    return next((name for name, first, last in _RANGES if first <= code <= last), "")


def _fold(word: str) -> str:
    if word.isascii():
        return word
    plain = _MARKS.sub("", unicodedata.normalize("NFD", word.casefold()))
    return unicodedata.normalize("NFC", plain).translate(_LETTERS)


@cache
def _stemmer(language: str) -> Stemmer:
    return Stemmer(_STEMMERS[language])


def _stem_language(word: str, language: str) -> str:
    """The language to stem ``word`` by in a text of ``language``."""
    script = _script(word)
    default = _DEFAULT_OF_SCRIPT.get(script, "")
    if not language or script == "":
        return default
    if script == "latin":
        foreign = any(language in others for others in _LANGUAGES_OF_SCRIPT.values())
        return default if foreign or language in _SCRIPTS else language
    return language if language in _LANGUAGES_OF_SCRIPT[script] else default


def lexeme(word: str, language: str) -> str:
    """What a word of a text in ``language`` ("" where it is not known) is indexed as."""
    language = _stem_language(word, language)
    if language == "tr":
        word = word.replace("I", "\u0131").replace("\u0130", "i")
    word = word.lower()
    if language in _STEMMERS:
        word = _stemmer(language).stemWord(word)
    return word if language in _MARKS_MATTER else _fold(word)


def _lexeme_of(token: Token, language: str) -> str:
    return _fold(token.text.lower()) if token.exact else lexeme(token.text, language)


# What PostgreSQL keeps: places up to 16,383, and 256 of one lexeme.
_LAST_PLACE: Final = 16_383
_MOST_PLACES: Final = 256


# Longer runs are rarely met again.
_KEPT: Final = 40


def terms_of_text(text: str, *, language: str) -> tuple[str, int]:
    """The terms of ``text`` as a tsvector literal, and how many words it has.

    ``language`` is ISO 639-1, or "" where it is not known.
    """
    places: dict[str, list[int]] = {}
    words = 0
    place = 1
    for run in runs_of(text):
        named, width, count = (_named if len(run) < _KEPT else _named.__wrapped__)(run, language)
        for name, offset in named:
            places.setdefault(name, []).append(min(place + offset, _LAST_PLACE))
        place += width
        words += count
    return " ".join(
        [f"{name}:{','.join(map(str, where[:_MOST_PLACES]))}" for name, where in places.items()]
    ), words


@lru_cache(maxsize=200_000)
def _named(run: str, language: str) -> tuple[tuple[tuple[str, int], ...], int, int]:
    """The quoted lexemes of a run, their places in it, how many places it takes, and its words."""
    tokens = tokens_of(run)
    named = [(quoted(_lexeme_of(token, language)), token.place) for token in tokens]
    named += [
        (quoted(lexeme(part, language)), token.place)
        for token in tokens
        if not token.exact
        for part in parts_of(token.text, language)
    ]
    width = max((token.place for token in tokens), default=-1) + 1
    return (
        tuple(one for one in named if one[0] != "''"),
        width,
        sum(not one.whole for one in tokens),
    )


@dataclass(frozen=True, slots=True)
class Analysis:
    """What one chunk is indexed as: ``terms`` is a tsvector literal."""

    language: str
    terms: str
    term_count: int

    @property
    def frequencies(self) -> bytes:
        """The same terms as ``frequencies`` packs them."""
        return pack(self.terms)


# So many characters of a document have one language: a chunk alone is too short to be sure.
_SECTION: Final = 4_000


def analyse(texts: Sequence[str]) -> list[Analysis]:
    """The terms of the consecutive chunks of one document, each by the language around it."""
    whole = detect_language("\n".join(texts)) or "" if texts else ""
    found: list[Analysis] = []
    section: list[str] = []
    for number, text in enumerate(texts, start=1):
        section.append(text)
        if number < len(texts) and sum(map(len, section)) < _SECTION:
            continue
        language = detect_language("\n".join(section)) or whole
        found += (Analysis(language, *terms_of_text(each, language=language)) for each in section)
        section = []
    return found


def quoted(name: str) -> str:
    """A lexeme as tsvector and tsquery write it."""
    return "'" + name.replace("\\", "\\\\").replace("'", "''") + "'"


@dataclass(frozen=True, slots=True)
class Term:
    """One word of a question: the lexemes it may be indexed as. ``starts`` matches beginnings."""

    lexemes: tuple[str, ...]
    starts: bool = False

    @property
    def codes(self) -> tuple[int, ...]:
        """What its lexemes are known by in packed frequencies."""
        return tuple(code(quoted(name)) for name in self.lexemes)

    @property
    def query(self) -> str:
        """The term as tsquery writes it."""
        tail = ":*" if self.starts else ""
        return "(" + " | ".join(quoted(name) + tail for name in self.lexemes) + ")"


@dataclass(frozen=True, slots=True)
class Question:
    """The distinct terms of a question, and what stands in quotes as tsquery writes it."""

    terms: tuple[Term, ...]
    phrases: tuple[str, ...]


_QUOTES: Final = (
    ('"', '"'), ("\u201c", "\u201d"), ("\u201e", "\u201c"), ("\u201e", "\u201d"),
    ("\u201d", "\u201d"), ("\u00ab", "\u00bb"), ("\u00bb", "\u00ab"), ("\u300c", "\u300d"),
    ("\u300e", "\u300f"), ("\uff02", "\uff02"), ("\u2039", "\u203a"),
)  # fmt: skip
_QUOTED: Final = regex.compile(
    "|".join(f"{first}([^{first}{last}]+){last}" for first, last in _QUOTES)
)


def terms_of_question(text: str, *, languages: Iterable[str], limit: int) -> Question:
    """The first ``limit`` distinct terms of ``text``, for texts in any of ``languages``."""
    languages = tuple(dict.fromkeys(languages)) or ("",)
    terms: dict[tuple[str, ...], Term] = {}
    tokens = [
        token
        for run in runs_of(text)
        for token in (_asked_tokens if len(run) < _KEPT else tokens_of)(run)
    ]
    for term in (*(_term(token, languages) for token in tokens), *_parts(tokens, text, languages)):
        if term is not None and len(terms) < limit:
            terms.setdefault(term.lexemes, term)
    phrases = (
        _phrase(next(filter(None, found.groups())), languages) for found in _QUOTED.finditer(text)
    )
    return Question(tuple(terms.values()), tuple(filter(None, phrases)))


@lru_cache(maxsize=20_000)
def _asked_tokens(run: str) -> tuple[Token, ...]:
    """Kept, because questions are made of the same words, and the patterns of ``regex`` give the
    interpreter away each time they are tried: searches at the same time would wait for it."""
    return tuple(tokens_of(run))


def _term(token: Token, languages: Sequence[str]) -> Term | None:
    if token.tail:
        return None
    names = dict.fromkeys(_lexeme_of(token, language) for language in languages)
    if not token.exact:
        # Accents that were left out when asking.
        names |= dict.fromkeys(lexeme(_fold(token.text.lower()), one) for one in languages)
    names.pop("", None)
    if not names:
        return None
    alone = token.exact and len(token.text) == 1 and not token.text.isascii()
    return Term(tuple(names), starts=alone)


def _parts(tokens: Sequence[Token], text: str, languages: Sequence[str]) -> Iterator[Term]:
    """What compounds are made of: they find texts that say it in several words."""
    compounding = [language for language in languages if language in COMPOUNDING]
    asked = detect_language(text) if compounding else None
    for language in compounding:
        if asked in (language, None):
            for token in tokens:
                if not token.exact:
                    for part in parts_of(token.text, language):
                        yield Term((lexeme(part, language),))


def warm_up(languages: Iterable[str]) -> None:
    """Read what questions to texts in ``languages`` need; takes up to a second for each."""
    detect_language("ready")
    for language in languages:
        compounds.load(language)


def _phrase(text: str, languages: Sequence[str]) -> str:
    """``text`` as a tsquery that wants its words one after the other."""
    parts: list[str] = []
    place = last = 0
    for run in runs_of(text):
        for token in tokens_of(run):
            term = None if token.whole else _term(token, languages)
            if term is not None:
                here = place + token.place
                parts.append((f" <{here - last}> " if parts else "") + term.query)
                last = here
        place += _named(run, languages[0])[1]
    return "".join(parts)
