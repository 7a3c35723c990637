"""Each kind of bad file gets a clear error that says what to do, and disturbs nothing else."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable
from typing import Any

import pytest
from pypdf import PdfWriter

from assistant.documents.models import Document
from tests.api.calls import JSON, problem
from tests.factories import file_named, make_document

pytestmark = pytest.mark.django_db
URL = "/api/v1/documents/"


def _protected_pdf() -> bytes:
    writer = PdfWriter()
    writer.add_blank_page(200, 200)
    writer.encrypt("secret", algorithm="AES-256")
    out = io.BytesIO()
    writer.write(out)
    return out.getvalue()


def _zip(members: dict[str, bytes]) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return out.getvalue()


def _docx_named(part: str) -> bytes:
    kind = "application/vnd.openxmlformats-officedocument.wordprocessingml.document.main+xml"
    types = (
        '<?xml version="1.0"?><Types xmlns="http://schemas.openxmlformats.org/package/2006/'
        f'content-types"><Override PartName="/word/document.xml" ContentType="{kind}"/></Types>'
    )
    return _zip({"[Content_Types].xml": types.encode(), part: b"<w:document><broken"})


def _bomb() -> bytes:
    return _zip({f"word/{n}.xml": bytes(64 << 20) for n in range(4)})


@pytest.mark.parametrize(
    ("name", "content", "status", "code", "word"),
    [
        ("empty.md", b"", 400, "empty_file", "empty"),
        ("report.pdf", b"just text, no pdf", 415, "type_mismatch", "ending"),
        ("photo.md", b"\x89PNG\r\n\x1a\n" + bytes(64), 415, "type_mismatch", "ending"),
        ("setup.exe", b"MZ" + bytes(64), 415, "unsupported_type", "one of"),
        ("noending", b"text", 415, "unsupported_type", "one of"),
        ("big.txt", b"a" * (5 * 1024 * 1024 + 1), 413, "too_large", "Split"),
        ("cut.docx", _docx_named("word/document.xml")[:-40], 422, "corrupt_file", "save"),
        ("bomb.docx", _bomb(), 422, "archive_bomb", "unpacks"),
    ],
    ids=lambda value: value if isinstance(value, str) and "." in value else "",
)
def test_a_file_that_cannot_be_taken_is_refused_at_once(
    ada: Any, collection: Any, name: str, content: bytes, status: int, code: str, word: str
) -> None:
    before = make_document(collection)
    answer = ada.with_token().post(
        URL, {"collection": str(collection.pk), "file": file_named(name, content)}
    )
    found = problem(answer, status)
    assert found["code"] == code
    assert word in found["detail"]
    assert list(Document.objects.values_list("pk", flat=True)) == [before.pk]


@pytest.mark.parametrize(
    ("name", "content", "code"),
    [
        ("protected.pdf", _protected_pdf(), "password_protected"),
        ("broken.docx", _docx_named("word/document.xml"), "corrupt_file"),
        ("broken.pdf", b"%PDF-1.7\nnothing of a PDF follows", "corrupt_file"),
    ],
    ids=lambda value: value if isinstance(value, str) and "." in value else "",
)
def test_a_file_that_fails_later_says_why_and_its_neighbour_is_ready(
    ada: Any,
    collection: Any,
    run_pipeline: Callable[[], None],
    name: str,
    content: bytes,
    code: str,
) -> None:
    client = ada.with_token()
    send = {"collection": str(collection.pk)}
    bad = client.post(URL, {**send, "file": file_named(name, content)})
    good = client.post(URL, {**send, "file": file_named("a.md", b"# Fine\n\nAll is well.")})
    assert (bad.status_code, good.status_code) == (202, 202)
    run_pipeline()
    failed = client.get(f"{URL}{bad.json()['id']}/").json()
    assert failed["status"] == "failed"
    assert failed["error"]["code"] == code
    assert len(failed["error"]["detail"]) > 20
    neighbour = client.get(f"{URL}{good.json()['id']}/").json()
    assert (neighbour["status"], neighbour["error"]) == ("ready", None)


@pytest.mark.parametrize(
    ("path", "field"),
    [("search/", "query"), ("answers/", "question"), ("conversations/{id}/messages/", "content")],
)
def test_a_question_of_ten_thousand_characters(ada: Any, path: str, field: str) -> None:
    client = ada.with_token()
    conversation = client.post("/api/v1/conversations/", {}, **JSON).json()["id"]
    url = "/api/v1/" + path.format(id=conversation)
    found = problem(client.post(url, {field: "a" * 10_000}, **JSON), 400)
    assert "10,000" in found["errors"][field][0]
    assert "4,000" in found["errors"][field][0]
