"""What may come in, judged without unpacking or parsing it."""

from __future__ import annotations

import io
import struct
import zipfile
from pathlib import Path

import pytest

from ingestion.admission import (
    DOCX,
    EPUB,
    IMAGES,
    ODT,
    PDF,
    SUPPORTED,
    XLSX,
    extension_of,
    inspect,
    inspect_bytes,
)
from ingestion.errors import FailureCode, IngestionError
from ingestion.parsing_limits import Limits
from tests.ingestion.ole_files import ole

LIMITS = Limits()
CONTENT_TYPES = (
    '<Types><Override PartName="/word/document.xml" ContentType="application/vnd.openxmlformats-'
    'officedocument.wordprocessingml.document.main+xml"/></Types>'
)


def archive(members: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as target:
        for name, data in members.items():
            target.writestr(name, data)
    return buffer.getvalue()


def word_file(**extra: bytes) -> bytes:
    return archive(
        {"[Content_Types].xml": CONTENT_TYPES.encode(), "word/document.xml": b"<x/>"} | extra
    )


def refusal(data: bytes, name: str, limits: Limits = LIMITS) -> IngestionError:
    with pytest.raises(IngestionError) as caught:
        inspect_bytes(data, filename=name, limits=limits)
    return caught.value


@pytest.mark.parametrize(
    ("name", "data", "media_type"),
    [
        ("a.pdf", b"%PDF-1.7\n", PDF),
        ("A.PDF", b"junk before\n%PDF-1.7\n", PDF),
        ("a.docx", word_file(), DOCX),
        ("a.epub", archive({"mimetype": b"application/epub+zip"}), EPUB),
        ("a.odt", archive({"mimetype": ODT.encode()}), ODT),
        ("a.rtf", b"{\\rtf1 hello}", "application/rtf"),
        ("a.txt", "Grüße".encode(), "text/plain"),
        ("a.txt", "Grüße aus München, schöne Tage".encode("latin-1"), "text/plain"),
        ("a.txt", "Grüße".encode("utf-16"), "text/plain"),
        ("a.txt", "no mark here".encode("utf-16-le"), "text/plain"),
        ("a.csv", "名前,住所\n山田太郎,東京都千代田区\n".encode("shift_jis"), "text/csv"),
        ("../../etc/passwd.md", b"# x", "text/markdown"),
        ("a\u202etxt.md", b"# x", "text/markdown"),
    ],
)
def test_accepts(name: str, data: bytes, media_type: str) -> None:
    assert inspect_bytes(data, filename=name, limits=LIMITS) == media_type


@pytest.mark.parametrize(
    ("name", "data", "code", "says"),
    [
        ("a.txt", b"", FailureCode.EMPTY_FILE, "empty"),
        ("a.exe", b"MZ", FailureCode.UNSUPPORTED_TYPE, "PDF, Word"),
        ("noending", b"text", FailureCode.UNSUPPORTED_TYPE, "PDF, Word"),
        ("a.pdf", b"just text", FailureCode.TYPE_MISMATCH, "plain text"),
        ("a.pdf", word_file(), FailureCode.TYPE_MISMATCH, "Word document"),
        ("a.docx", b"%PDF-1.7", FailureCode.TYPE_MISMATCH, "a PDF"),
        ("a.xlsx", word_file(), FailureCode.TYPE_MISMATCH, "Word document"),
        ("a.docx", archive({"x": b"y"}), FailureCode.TYPE_MISMATCH, "ZIP archive"),
        ("a.txt", b"\x89PNG\r\n\x1a\n\0\0", FailureCode.TYPE_MISMATCH, "PNG"),
        ("a.md", bytes(range(256)) * 40, FailureCode.TYPE_MISMATCH, "binary data"),
        ("a.docx", ole({"WordDocument": b"x"}), FailureCode.TYPE_MISMATCH, "2007"),
        (
            "a.doc",
            b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(600),
            FailureCode.CORRUPT_FILE,
            "damaged",
        ),
        ("a.docx", b"\x07\x99\xff\0\x01" * 50, FailureCode.CORRUPT_FILE, "damaged"),
        ("a.docx", word_file()[:-60], FailureCode.CORRUPT_FILE, "damaged"),
    ],
)
def test_refuses_with_words(name: str, data: bytes, code: FailureCode, says: str) -> None:
    error = refusal(data, name)
    assert error.code is code
    assert says in error.detail
    assert not error.retryable


@pytest.mark.parametrize(
    ("stream", "name"),
    [
        ("WordDocument", "a.doc"),
        ("Workbook", "a.xls"),
        ("Book", "a.xls"),
        ("PowerPoint Document", "a.ppt"),
        ("__properties_version1.0", "a.msg"),
    ],
)
def test_office_files_of_before_2007_are_told_apart(stream: str, name: str) -> None:
    data = ole({stream: b"x", "ObjectPool/_1/Workbook": b"x", "ObjectPool/_1/WordDocument": b"x"})
    assert inspect_bytes(data, filename=name, limits=LIMITS) == SUPPORTED["." + name[2:]]
    wrong = "a.ppt" if name == "a.doc" else "a.doc"
    assert refusal(data, wrong).code is FailureCode.TYPE_MISMATCH


def test_encrypted_office_file_is_a_password() -> None:
    assert refusal(ole({"EncryptedPackage": b"x"}), "a.xlsx").code is FailureCode.PASSWORD_PROTECTED


def test_encrypted_zip_member_is_a_password() -> None:
    data = bytearray(word_file())
    at = data.rindex(b"PK\x01\x02")
    struct.pack_into("<H", data, at + 8, 1)
    assert refusal(bytes(data), "a.docx").code is FailureCode.PASSWORD_PROTECTED


def test_size_is_checked_before_anything_is_read() -> None:
    class Unreadable(io.BytesIO):
        def read(self, *_: object) -> bytes:
            raise AssertionError("read")

    with pytest.raises(IngestionError) as caught:
        inspect(Unreadable(), filename="a.txt", size=11, limits=Limits(max_bytes=10))
    assert caught.value.code is FailureCode.TOO_LARGE
    assert "10 bytes" in caught.value.detail


def test_stream_is_left_at_its_start() -> None:
    stream = io.BytesIO(b"some text")
    inspect(stream, filename="a.txt", size=9, limits=LIMITS)
    assert stream.tell() == 0


def test_bomb_by_ratio() -> None:
    data = word_file(**{"word/media/zeros": bytes(64 << 20)})
    assert len(data) < 1 << 20
    error = refusal(data, "a.docx")
    assert error.code is FailureCode.ARCHIVE_BOMB
    assert "200 times" in error.detail


def test_bomb_by_total_size() -> None:
    assert refusal(word_file(big=bytes(5000)), "a.docx", Limits(archive_bytes=4000)).code is (
        FailureCode.ARCHIVE_BOMB
    )


def test_bomb_by_members_is_found_before_the_directory_is_read(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    data = archive({f"{index}": b"" for index in range(300)})
    monkeypatch.setattr(zipfile, "ZipFile", lambda *_: pytest.fail("directory was read"))
    assert refusal(data, "a.docx", Limits(archive_members=200)).code is FailureCode.ARCHIVE_BOMB


def test_bomb_of_overlapping_members() -> None:
    plain = word_file(kernel=bytes(range(256)) * 50)
    end = plain.rindex(b"PK\x05\x06")
    size, start = struct.unpack_from("<LL", plain, end + 12)
    entry = plain[plain.rindex(b"PK\x01\x02", start, start + size) : start + size]
    record = bytearray(plain[end:])
    struct.pack_into("<HH", record, 8, 53, 53)
    struct.pack_into("<L", record, 12, size + 50 * len(entry))
    data = plain[:end] + entry * 50 + bytes(record)
    assert refusal(data, "a.docx").code is FailureCode.ARCHIVE_BOMB


@pytest.mark.parametrize("cut", range(5, 100, 10))
def test_truncated_container_is_refused(cut: int) -> None:
    data = word_file(filler=bytes(range(256)) * 20)
    error = refusal(data[: len(data) * cut // 100], "a.docx")
    assert error.code in (FailureCode.CORRUPT_FILE, FailureCode.TYPE_MISMATCH)


def test_extension_is_only_data() -> None:
    assert extension_of("a/b\\c.tar.PDF ") == ".pdf"
    assert extension_of("x.pdf\0.md") == ".md"
    assert extension_of("x.") == extension_of("") == extension_of(".." * 200) == ""


def test_every_odd_file_is_admitted_or_refused(shared_data: Path) -> None:
    files = sorted((shared_data / "files" / "files").iterdir())
    assert len(files) > 150
    for path in files:
        try:
            with path.open("rb") as stream:
                found = inspect(stream, filename=path.name, size=path.stat().st_size, limits=LIMITS)
            expected = SUPPORTED[path.suffix.lower()]
            assert found == expected or {found, expected} <= IMAGES
        except IngestionError as error:
            assert error.detail.endswith("."), path.name


def test_xlsx_constant_is_supported() -> None:
    assert SUPPORTED[".xlsx"] == XLSX
