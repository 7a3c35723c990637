"""Files inside a document on their way from the child to the worker.

The functions named ``child_*`` run in the sandboxed child in place of the parser.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from ingestion.attachments import OnAttachment
from ingestion.elements import Element, ElementKind, ParsedDocument
from ingestion.errors import FailureCode, IngestionError
from ingestion.parsing_limits import Limits
from ingestion.sandbox import Sandbox
from ingestion.sandbox_wire import FrameKind, FrameReader, OversizedFrameError

LIMITS = Limits(wall_seconds=120, cpu_seconds=120, memory=512 << 20, max_attachments=5)


def words(text: str) -> ParsedDocument:
    return ParsedDocument(text, (Element(ElementKind.PARAGRAPH, 0, len(text)),), parser="test")


def child_attaches(data: bytes, *, on_attachment: OnAttachment | None, **_: Any) -> ParsedDocument:
    """One attachment per line of the document: its name and size."""
    for line in data.decode().splitlines():
        name, size = line.rsplit("=", 1)
        if on_attachment is not None:
            on_attachment(name, b"\xff" * int(size))
    return words("done" if on_attachment is not None else "unasked")


def child_recognises(
    data: bytes, *, on_recognised: Callable[[float], None], **_: Any
) -> ParsedDocument:
    for _number in range(6):
        time.sleep(0.4)
        on_recognised(float(data))
    return words("done")


@contextmanager
def sandbox(parser: str) -> Iterator[Sandbox]:
    target = f"tests.ingestion.test_sandbox_attachments:{parser}"
    box = Sandbox(parser=target, zygote_options=("--light",))
    try:
        yield box
    finally:
        box.close()


@pytest.fixture(scope="module")
def attaching() -> Iterator[Sandbox]:
    with sandbox("child_attaches") as box:
        yield box


def parse(
    box: Sandbox, path: Path, content: str, limits: Limits = LIMITS, **options: Any
) -> ParsedDocument:
    path.write_text(content)
    return box.parse(path, media_type="text/plain", filename="a.txt", limits=limits, **options)


def test_attachments_arrive_whole_and_in_order(attaching: Sandbox, tmp_path: Path) -> None:
    got: list[tuple[str, int]] = []
    document = parse(
        attaching,
        tmp_path / "x",
        "a/b.txt=3\nü.bin=3000000\nempty=0",
        on_attachment=lambda name, data: got.append((name, data.count(0xFF))),
    )
    assert got == [("a/b.txt", 3), ("ü.bin", 3_000_000), ("empty", 0)]
    assert document.text == "done"


def test_nothing_is_sent_unasked(attaching: Sandbox, tmp_path: Path) -> None:
    assert parse(attaching, tmp_path / "x", "a=1").text == "unasked"


@pytest.mark.parametrize(
    "content",
    ["../a=1", "/a=1", "a\\b=1", "a=1\na=1", "a=1\nb=1\nc=1\nd=1\ne=1\nf=1", "a=2000"],
)
def test_a_lying_child_is_not_believed(content: str, attaching: Sandbox, tmp_path: Path) -> None:
    limits = Limits(wall_seconds=120, cpu_seconds=120, max_attachments=5, max_bytes=1000)
    with pytest.raises(IngestionError) as caught:
        parse(attaching, tmp_path / "x", content, limits, on_attachment=lambda *_: None)
    assert caught.value.code is FailureCode.PARSE_CRASHED


def test_what_the_caller_raises_goes_to_the_caller(attaching: Sandbox, tmp_path: Path) -> None:
    def refuse(name: str, data: bytes) -> None:
        raise KeyError("the storage is full")

    with pytest.raises(KeyError):
        parse(attaching, tmp_path / "x", "a=1", on_attachment=refuse)


def test_the_callers_time_is_not_the_documents(attaching: Sandbox, tmp_path: Path) -> None:
    limits = Limits(wall_seconds=3, cpu_seconds=20)
    document = parse(
        attaching,
        tmp_path / "x",
        "a=9\nb=9\nc=9\nd=9",
        limits,
        on_attachment=lambda *_: time.sleep(1),
    )
    assert document.text == "done"


def test_recognition_earns_time_up_to_its_limit(tmp_path: Path) -> None:
    with sandbox("child_recognises") as box:
        limits = Limits(wall_seconds=1.5, cpu_seconds=20, ocr_seconds=10)
        assert parse(box, tmp_path / "x", "0.4", limits).text == "done"
        for claimed, allowed in (("0.4", 0.5), ("0", 10.0), ("-9", 10.0)):
            limits = Limits(wall_seconds=1.5, cpu_seconds=20, ocr_seconds=allowed)
            with pytest.raises(IngestionError) as caught:
                parse(box, tmp_path / "x", claimed, limits)
            assert caught.value.code is FailureCode.PARSE_TIMEOUT


def frame(kind: int, payload: bytes) -> bytes:
    return bytes([kind]) + len(payload).to_bytes(4, "big") + payload


def test_attachments_have_a_budget_of_their_own() -> None:
    reader = FrameReader(100, 1000)
    data = frame(FrameKind.ATTACHMENT, bytes(900)) + frame(FrameKind.DOCUMENT, bytes(50))
    found = [
        (kind, len(payload))
        for start in range(0, len(data), 7)
        for kind, payload in reader.feed(data[start : start + 7])
    ]
    assert found == [(FrameKind.ATTACHMENT, 900), (FrameKind.DOCUMENT, 50)]
    with pytest.raises(OversizedFrameError):
        list(reader.feed(frame(FrameKind.ATTACHMENT, bytes(101))[:6]))
    with pytest.raises(OversizedFrameError):
        list(FrameReader(100, 1000).feed(frame(FrameKind.DOCUMENT, bytes(96))))
    with pytest.raises(OversizedFrameError):
        list(FrameReader(100, 1000).feed(frame(FrameKind.ATTACHMENT, b"") * 30))
