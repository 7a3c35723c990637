"""Every file of the shared collection ends as text or as a failure with the right reason.

``shared_files.tsv`` says which, and for text names words that it must hold. Failures were judged by
looking at the files; the words of most ready files were taken from text the parsers gave, after
reading it: they show that nothing is lost again, not that nothing was ever missed.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from ingestion import admission
from ingestion.attachments import is_clean_name
from ingestion.elements import ParsedDocument
from ingestion.errors import FailureCode, IngestionError
from ingestion.parsing_limits import Limits
from ingestion.sandbox import Sandbox
from tests.ingestion.programs import needs_tesseract

LIMITS = Limits(wall_seconds=120)
TABLE = Path(__file__).with_name("shared_files.tsv")
# Names of files inside a document, where it has any.
ATTACHMENTS = {
    "fake-email-attachment.eml": ["fake-attachment.txt"],
    "testRFC822_multipart_attachments.eml": ["Test TxtA.txt", "Test TxtB.txt"],
    "testWPSAttachment.xlsx": ["TXT.txt", "PDF.pdf", "XML.xml", "Workbook1.xlsx"],
    "Doc1_ole.doc": ["MSj00748450000[1].wav", "MSj00974840000[1].wav"],
    "test_recursive_embedded.docx": ["embed1.zip"],
}


def expectations() -> list[tuple[str, str, str]]:
    with TABLE.open(newline="") as file:
        rows = csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE)
        return [(row["file"], row["outcome"], row["phrase"]) for row in rows]


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Sandbox]:
    sandbox = Sandbox()
    yield sandbox
    sandbox.close()


def read(sandbox: Sandbox, path: Path) -> tuple[ParsedDocument, list[str]]:
    attached: list[str] = []
    with path.open("rb") as stream:
        size = path.stat().st_size
        media_type = admission.inspect(stream, filename=path.name, size=size, limits=LIMITS)
    document = sandbox.parse(
        path,
        media_type=media_type,
        filename=path.name,
        limits=LIMITS,
        on_attachment=lambda name, _: attached.append(name),
    )
    return document, attached


def test_the_table_names_every_file(shared_data: Path) -> None:
    names = {path.name for path in (shared_data / "files" / "files").iterdir()}
    assert {name for name, _, _ in expectations()} == names
    outcomes = {outcome for _, outcome, _ in expectations()}
    assert outcomes <= {code.value for code in FailureCode} | {"ready"}


@needs_tesseract
@pytest.mark.parametrize(
    ("name", "outcome", "phrase"), expectations(), ids=lambda value: str(value)[-40:]
)
def test_outcome(name: str, outcome: str, phrase: str, shared_data: Path, sandbox: Sandbox) -> None:
    path = shared_data / "files" / "files" / name
    try:
        document, attached = read(sandbox, path)
    except IngestionError as error:
        assert error.code.value == outcome, error.cause
        assert error.detail.endswith(".")
        return
    assert outcome == "ready"
    assert phrase and _spaced(phrase) in _spaced(document.text)
    assert all(map(is_clean_name, attached))
    for ending, names in ATTACHMENTS.items():
        if name.endswith(ending):
            assert attached == names


def _spaced(text: str) -> str:
    return re.sub(r"\s+", " ", text)
