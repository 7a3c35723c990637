from __future__ import annotations

import re

import pytest

from assistant.retrieval.analysis import (
    analyse,
    detect_language,
    terms_of_question,
    terms_of_text,
)
from assistant.retrieval.compounds import parts_of


def lexemes(text: str, language: str = "en") -> set[str]:
    literal, _ = terms_of_text(text, language=language)
    return set(re.findall(r"'((?:[^']|'')+)':", literal))


@pytest.mark.parametrize(
    ("text", "language"),
    [
        ("How many days of annual leave do I have?", "en"),
        ("Wie viele Urlaubstage habe ich im Jahr?", "de"),
        ("Combien de jours de congé puis-je prendre ?", "fr"),
        ("كم عدد أيام الإجازة السنوية؟", "ar"),
        ("一年有多少天年假？", "zh"),
        ("年次休暇は何日ですか", "ja"),
        ("연차 휴가는 며칠입니까?", "ko"),
        ("ลาพักร้อนได้กี่วัน", "th"),
        ("Сколько дней отпуска у меня есть?", "ru"),
        ("AB-1234/56", None),
        ("1,234.50", None),
        ("", None),
    ],
)
def test_a_short_question_shows_its_language(text: str, language: str | None) -> None:
    assert detect_language(text) == language


def test_a_short_chunk_has_the_language_around_it() -> None:
    around = "Die Mitarbeitenden reichen ihre Abrechnung innerhalb von vier Wochen ein. " * 5
    assert {each.language for each in analyse([around, "Stand 2024", around])} == {"de"}


def test_a_long_document_may_change_its_language() -> None:
    german = "Die Mitarbeitenden reichen ihre Abrechnung innerhalb von vier Wochen ein. " * 70
    english = "Employees hand in their claims within four weeks of the journey home. " * 70
    assert [each.language for each in analyse([german, english])] == ["de", "en"]


@pytest.mark.parametrize(
    ("language", "asked", "written"),
    [
        ("en", "travel policies", "Our Policy for Travelling"),
        ("de", "Häuser", "Haus"),
        ("fr", "congés payés", "congé payé"),
        ("fr", "conges annuels", "congés annuels"),  # typed without accents
        ("ru", "отпуска", "отпуск"),
        ("ar", "المدرسة", "مدرسة"),
        ("hi", "किताबों", "किताब"),
        ("de", "Strasse", "Straße"),
        ("en", "ﬁle Ｎｏ", "file no"),  # a ligature and full-width letters
        ("zh", "年假", "每年有二十天年假。"),
        ("ja", "休暇", "年次休暇は20日です"),
        ("th", "ลาพัก", "ลาพักร้อนได้ยี่สิบวัน"),
        ("en", "email", "e-mail"),
        ("en", "handler", "camelCaseHandler"),
        ("en", "1234", "AB-1234/56"),
        ("en", "ab-1234/56", "part AB-1234/56."),
        ("en", "foo_bar.py", "see src/foo_bar.py and foo_bar.py"),
        ("en", "bar", "foo_bar.py"),
        ("en", "3.11", "Python 3.11.7"),
        ("en", "1000", "1,000 euros"),
        ("en", "ann@example.org", "Write to Ann@Example.org."),
        ("en", "c++", "C++ or C#"),
        ("en", "homme", "l'homme"),
        ("en", "company", "the company\u2019s"),
    ],
)
def test_a_question_finds_what_is_written(language: str, asked: str, written: str) -> None:
    have = lexemes(written, language)
    for term in terms_of_question(asked, languages=[language], limit=60).terms:
        assert have.intersection(term.lexemes), (term, have)


@pytest.mark.parametrize(
    ("language", "word", "parts"),
    [
        ("de", "Jahresurlaubsantrag", ("jahres", "urlaubs", "antrag")),
        ("de", "Kündigungsfristen", ("kündigung", "fristen")),
        ("de", "Arbeitszeiterfassung", ("arbeits", "zeit", "erfassung")),
        ("nl", "vakantiedagen", ("vakantie", "dagen")),
        ("sv", "semesteransökan", ("semester", "ansökan")),
        ("de", "Wissenschaft", ()),
        ("de", "Regierung", ()),
        ("de", "Unternehmen", ()),
        ("en", "handbook", ()),
    ],
)
def test_a_compound_is_made_of_words(language: str, word: str, parts: tuple[str, ...]) -> None:
    assert parts_of(word, language) == parts


def test_a_compound_and_its_parts_find_each_other() -> None:
    written, apart = lexemes("Der Urlaubsantrag liegt vor.", "de"), lexemes("Antrag", "de")
    assert apart <= written
    asked = terms_of_question("Wo stelle ich den Urlaubsantrag?", languages=["de"], limit=60)
    assert any(apart.intersection(term.lexemes) for term in asked.terms)
    english = terms_of_question("Where is the Urlaubsantrag form?", languages=["de"], limit=60)
    assert not any(apart.intersection(term.lexemes) for term in english.terms)
    assert terms_of_text("Urlaubsantrag", language="de")[1] == 1


def test_vietnamese_words_differ_by_their_marks() -> None:
    assert not lexemes("má", "vi") & lexemes("ma", "vi")


def test_a_word_stands_for_its_stems_in_all_languages() -> None:
    (term,) = terms_of_question("regelungen", languages=["de", "en"], limit=60).terms
    assert lexemes("Regelungen", "de") | lexemes("regelungen", "en") == set(term.lexemes)


def test_the_length_counts_words_once() -> None:
    assert terms_of_text("part AB-1234 of 3.11.7", language="en")[1] == 5
    assert terms_of_text("", language="en") == ("", 0)


def test_a_literal_survives_signs_of_its_own() -> None:
    literal, _ = terms_of_text("C:\\temp\\it's x", language="en")
    assert "'c:\\\\temp\\\\it''s':1" in literal


@pytest.mark.parametrize("quotes", ['""', "“”", "„“", "«»", "「」", "『』", "＂＂"])
def test_quotes_make_a_phrase(quotes: str) -> None:
    first, last = quotes[0], quotes[1]
    question = terms_of_question(f"who has {first}annual leave{last}", languages=["en"], limit=60)
    assert question.phrases == ("('annual') <1> ('leav')",)
    assert len(question.terms) == 4


def test_a_very_long_question_is_bounded() -> None:
    text = " ".join(f"word{i}x" for i in range(5_000))
    assert len(terms_of_question(text, languages=["en"], limit=60).terms) == 60
