from __future__ import annotations

import pytest

from inference.extractive import ABSTAIN_BELOW, NOTICE, ExtractiveLLM, candidates
from inference.fakes import FakeEmbedder
from inference.prompts import NO_ANSWER
from inference.types import EmbeddingSpec, EngineError, Finished, SourceText
from tests.inference.wire import collect, request, texts

LIBRARY = SourceText(
    1,
    "Opening hours",
    "The library is open on weekdays. The library closes at 13:00 on Saturday. Cats are nice.",
)
TRAVEL = SourceText(
    2,
    "Travel",
    "To request a refund of travel costs you need:\n\n- the signed form\n- all receipts\n\n"
    "Flights need approval.",
)
RATES = SourceText(
    3, "Rates", "Intro.\n\n| Country | Hotel rate |\n|---|---|\n| Norway | 180 |\n| Chad | 90 |\n"
)
SOURCES = (LIBRARY, TRAVEL, RATES)


async def answer(question: str, *sources: SourceText) -> tuple[str, Finished]:
    engine = ExtractiveLLM(FakeEmbedder())
    events = await collect(engine.stream(request(question=question, sources=sources or SOURCES)))
    last = events[-1]
    assert isinstance(last, Finished)
    return texts(events), last


async def test_the_sentence_that_answers_is_quoted_and_cited() -> None:
    text, finished = await answer("When does the library close on Saturday?")
    assert text.startswith("The library closes at 13:00 on Saturday. [1]")
    assert "Cats" not in text
    assert finished.finish_reason == "stop"
    assert NOTICE not in text


async def test_a_lead_in_brings_its_list() -> None:
    text, _ = await answer("What do I need to request a refund of travel costs?")
    assert text.startswith(
        "To request a refund of travel costs you need:\n\n- the signed form\n- all receipts [2]"
    )


async def test_a_row_brings_its_table() -> None:
    text, _ = await answer("hotel rate country Norway")
    assert "| Country | Hotel rate |\n|---|---|\n| Norway | 180 |\n| Chad | 90 |\n\n[3]" in text


async def test_what_stands_under_a_heading_is_quoted_and_not_the_heading() -> None:
    joining = SourceText(
        1, "Handbook", "First week\n\nMeet your buddy for lunch.\n\nLater\n\nBook a training."
    )
    text, _ = await answer("What should I do in my first week?", joining)
    assert text == "Meet your buddy for lunch. [1]"


async def test_a_label_without_its_list_is_not_quoted_but_names_what_follows() -> None:
    cut_off = SourceText(1, "Finance", "Costs must not grow faster than income.\n\nCosts:")
    text, _ = await answer("And the costs?", cut_off)
    assert text == "Costs must not grow faster than income. [1]"
    below = SourceText(1, "Finance", "**Costs:**\n\nSalaries are most of them.\n\nRent is paid.")
    text, _ = await answer("And the costs?", below)
    assert text.startswith("Salaries are most of them.")


async def test_a_question_in_the_text_is_quoted_with_its_answer_only() -> None:
    asked = "May I work from another country?"
    faq = SourceText(1, "Questions", f"{asked}\n\nYes, for thirty days. Tell the office before.")
    text, _ = await answer(asked, faq)
    assert text.startswith(f"{asked}\n\nYes, for thirty days.")
    unanswered = SourceText(1, "Notes", f"We met. You said: {asked}")
    assert (await answer(asked, unanswered))[0] == NO_ANSWER


@pytest.mark.parametrize("question", ["Who won the chess tournament?", "???", ""])
async def test_it_abstains_in_words(question: str) -> None:
    text, finished = await answer(question)
    assert (text, finished.finish_reason) == (NO_ANSWER, "stop")


async def test_each_part_of_a_question_gets_its_own_sentence() -> None:
    leave = SourceText(
        1,
        "Leave",
        "An example of annual leave: Ann and Bo tell each other when they go. Full-time employees"
        " get thirty days of annual leave a year.",
    )
    sick = SourceText(2, "Illness", "Parking is free. Tell your manager when you are sick.")
    question = "How many days of annual leave do I get and whom do I tell when I am sick?"
    text, _ = await answer(question, leave, sick)
    assert text == (
        "Full-time employees get thirty days of annual leave a year. [1]\n\n"
        "Tell your manager when you are sick. [2]"
    )
    # The part that the sources do not answer brings nothing.
    text, _ = await answer(
        "How many days of annual leave do I get and who won the chess tournament?", leave, sick
    )
    assert "thirty days" in text
    assert "[2]" not in text


async def test_no_sources_no_answer() -> None:
    engine = ExtractiveLLM(FakeEmbedder())
    events = await collect(engine.stream(request(question="When?", sources=())))
    assert texts(events) == NO_ANSWER


async def test_the_same_sentence_is_quoted_once() -> None:
    again = SourceText(2, "Copy", LIBRARY.text)
    text, _ = await answer("When does the library close on Saturday?", LIBRARY, again)
    assert text.count("13:00") == 1


async def test_quotes_are_verbatim() -> None:
    engine = ExtractiveLLM(FakeEmbedder())
    for question in ("library Saturday weekdays", "travel receipts flights approval", "Norway"):
        for quote in await engine.quotes(question, SOURCES):
            assert quote.text in SOURCES[quote.number - 1].text
            assert quote.score >= ABSTAIN_BELOW


async def test_a_broken_embedder_is_reported() -> None:
    embedder = FakeEmbedder()
    embedder.error = EngineError("embedder_unavailable", "Down.", retryable=True)
    with pytest.raises(EngineError):
        await collect(ExtractiveLLM(embedder).stream(request(sources=SOURCES)))


async def test_cosines_of_the_e5_family_are_stretched() -> None:
    spec = EmbeddingSpec("intfloat/multilingual-e5-small", "1", dimension=384, window=512)
    found = candidates(SOURCES)
    question = "When does the library close on Saturday?"
    plain = await ExtractiveLLM(FakeEmbedder()).scores(question, found)
    stretched = await ExtractiveLLM(FakeEmbedder(spec)).scores(question, found)
    assert (stretched <= plain + 1e-9).all()
    assert (stretched < plain).any()
