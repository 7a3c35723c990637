"""Formats beyond the common ones: what is read of them and which files inside are handed on."""

from __future__ import annotations

import io
import struct
import zipfile
from email.message import EmailMessage

import openpyxl
import pypdf
import pytest
from docx import Document as WordDocument
from docx.oxml import parse_xml
from docx.oxml.ns import nsdecls

from ingestion import admission
from ingestion.attachments import clean_name, is_clean_name
from ingestion.elements import ElementKind, ParsedDocument
from ingestion.errors import FailureCode, IngestionError
from ingestion.parsing import parse_document
from ingestion.parsing_limits import Limits
from tests.ingestion.ole_files import ole
from tests.ingestion.test_parsing import assert_promises, make_pdf, shape

LIMITS = Limits()
Attached = list[tuple[str, bytes]]


def read(data: bytes, name: str, limits: Limits = LIMITS) -> tuple[ParsedDocument, Attached]:
    attached: Attached = []
    media_type = admission.inspect_bytes(data, filename=name, limits=limits)
    document = parse_document(
        data,
        media_type=media_type,
        limits=limits,
        on_attachment=lambda name, content: attached.append((name, content)),
    )
    assert_promises(document)
    return document, attached


def archive(members: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as target:
        for name, data in members.items():
            target.writestr(name, data)
    return buffer.getvalue()


# Names of attachments


@pytest.mark.parametrize(
    ("raw", "clean"),
    [
        ("a/b.txt", "a/b.txt"),
        ("../../etc/passwd", "etc/passwd"),
        ("/abs.txt", "abs.txt"),
        ("C:\\Users\\x\\y.doc", "Users/x/y.doc"),
        ("a/C:b", "a/b"),
        ("x\0y\u202egpj.exe", "xygpj.exe"),
        (" a  b .txt ", "a b .txt"),
        ("..", ""),
        ("\n", ""),
    ],
)
def test_names_are_made_harmless(raw: str, clean: str) -> None:
    assert clean_name(raw) == clean
    assert is_clean_name(clean) == bool(clean)


@pytest.mark.parametrize("name", ["", "/a", "a/../b", "a//b", "a\\b", "C:x", "a\nb", "x" * 500])
def test_a_lying_child_cannot_name_files_freely(name: str) -> None:
    assert not is_clean_name(name)


def test_long_names_keep_their_ending() -> None:
    name = clean_name("folder/" + "long " * 100 + ".docx")
    assert name.startswith("folder/long") and name.endswith(".docx") and is_clean_name(name)


# Containers


def test_zip_is_a_listing_and_its_members() -> None:
    data = archive(
        {
            "docs/": b"",
            "docs/a.txt": b"alpha",
            "docs/ü.md": b"# umlaut",
            "__MACOSX/._a.txt": b"litter",
            "docs/.DS_Store": b"litter",
            "../../evil.txt": b"evil",
            "empty.txt": b"",
            "inner.zip": archive({"x.txt": b"x"}),
        }
    )
    document, attached = read(data, "a.zip")
    assert [name for name, _ in attached] == ["docs/a.txt", "docs/ü.md", "evil.txt", "inner.zip"]
    assert dict(attached)["docs/a.txt"] == b"alpha"
    assert "docs/ü.md | 8 bytes" in document.text
    assert "DS_Store" not in document.text and "An archive of 5 files." in document.text


def test_zip_names_without_the_utf8_flag() -> None:
    data = archive({"Bericht-xxxx.txt": b"x"})
    old = data.replace(b"Bericht-xxxx.txt", "Berichtü-ö.txt".encode("cp437").ljust(16, b"x"))
    _, attached = read(old, "a.zip")
    assert attached[0][0].startswith("Berichtü-ö.txt")


def test_same_names_are_told_apart() -> None:
    data = archive({"A.txt": b"1", "a.TXT": b"2", "dir/../a.txt": b"3", "a (2).txt": b"4"})
    _, attached = read(data, "a.zip")
    names = [name for name, _ in attached]
    assert len({name.casefold() for name in names}) == 4
    assert sorted(content for _, content in attached) == [b"1", b"2", b"3", b"4"]


def test_too_many_and_too_large_members() -> None:
    with pytest.raises(IngestionError) as caught:
        read(archive({f"{i}.txt": b"x" for i in range(4)}), "a.zip", Limits(max_attachments=3))
    assert caught.value.code is FailureCode.ARCHIVE_BOMB
    with pytest.raises(IngestionError) as caught:
        data = archive({f"{i}.txt": b"x" * 100 for i in range(4)})
        read(data, "a.zip", Limits(max_attachment_bytes=399))
    assert caught.value.code is FailureCode.ARCHIVE_BOMB
    large = archive({"large.txt": b"y" * 5_000, "small.txt": b"z"})
    document, attached = read(large, "a.zip", Limits(max_bytes=2_000))
    assert [name for name, _ in attached] == ["small.txt"]
    assert "large.txt" in document.warnings[0]


def test_a_damaged_member_does_not_take_the_others_along() -> None:
    data = bytearray(archive({"a.txt": b"alpha" * 99, "b.txt": b"beta"}))
    start = data.index(b"a.txt") + 5
    data[start + 3] ^= 0xFF
    document, attached = read(bytes(data), "a.zip")
    assert [name for name, _ in attached] == ["b.txt"]
    assert document.warnings == ("Damaged, so not read: a.txt.",)


def message(**attachments: bytes) -> EmailMessage:
    mail = EmailMessage()
    mail["Subject"], mail["From"], mail["To"] = "Budget", "Ann <a@example.org>", "b@example.org"
    mail["Date"] = "Fri, 23 Dec 2022 12:08:48 -0600"
    mail.set_content("See the files.")
    for name, content in attachments.items():
        mail.add_attachment(
            content, maintype="application", subtype="octet-stream", filename=f"{name}.txt"
        )
    return mail


def test_mail_hands_on_its_attachments_and_names_them() -> None:
    mail = message(plan=b"the plan", notes=b"the notes")
    mail.add_attachment(message(inner=b"deep"))
    document, attached = read(mail.as_bytes(), "a.eml")
    assert [name for name, _ in attached] == ["plan.txt", "notes.txt", "Budget.eml"]
    assert dict(attached)["plan.txt"] == b"the plan"
    assert document.text.endswith("Attachments: plan.txt, notes.txt, Budget.eml")
    assert document.warnings == ()
    inner, deep = read(dict(attached)["Budget.eml"], "b.eml")
    assert inner.title == "Budget" and deep == [("inner.txt", b"deep")]


def test_mbox_is_a_listing_of_its_messages() -> None:
    mbox = b"".join(
        b"From a@example.org Fri Dec 23 12:08:48 2022\n" + part + b"\n\n"
        for part in (
            message().as_bytes().replace(b"See", b">From here see"),
            message(x=b"1").as_bytes(),
        )
    )
    document, attached = read(mbox, "a.mbox")
    assert "A mailbox of 2 messages." in document.text
    assert [name for name, _ in attached] == ["00001 Budget.eml", "00002 Budget.eml"]
    first, _ = read(attached[0][1], "a.eml")
    assert "From here see the files." in first.text


def test_pdf_hands_on_embedded_files_and_reads_form_fields() -> None:
    writer = pypdf.PdfWriter(io.BytesIO(make_pdf([[(72, 700, 12, "A page with a file in it")]])))
    writer.add_attachment("data.csv", b"a,b\n1,2\n")
    buffer = io.BytesIO()
    writer.write(buffer)
    document, attached = read(buffer.getvalue(), "a.pdf")
    assert attached == [("data.csv", b"a,b\n1,2\n")]
    assert document.text.endswith("Attachments: data.csv")


# Outlook and Word before 2007


def utf16(text: str) -> bytes:
    return text.encode("utf-16-le")


def properties(header: int, **numbers: int) -> bytes:
    entries = b"".join(
        struct.pack("<HHIQ", 3, int(name[1:], 16), 6, value) for name, value in numbers.items()
    )
    return bytes(header) + entries


def test_outlook_message() -> None:
    recipient, attachment = "__recip_version1.0_#00000000", "__attach_version1.0_#00000000"
    inner = "__attach_version1.0_#00000001/__substg1.0_3701000D"
    data = ole(
        {
            "__properties_version1.0": properties(32, _3FDE=65001),
            "__substg1.0_0037001F": utf16("Rota for May"),
            "__substg1.0_10130102": "<p>Ann is <b>off</b> on the 3rd – Zoë stands in.</p>".encode(),
            "__substg1.0_0C1A001F": utf16("Bob"),
            "__substg1.0_5D01001F": utf16("bob@example.org"),
            f"{recipient}/__properties_version1.0": properties(8, _0C15=2),
            f"{recipient}/__substg1.0_3001001F": utf16("Team"),
            f"{recipient}/__substg1.0_39FE001F": utf16("team@example.org"),
            f"{attachment}/__substg1.0_3707001F": utf16("rota.csv"),
            f"{attachment}/__substg1.0_37010102": b"day,who\n3,Zoe\n".ljust(4096, b"\n"),
            f"{inner}/__properties_version1.0": properties(24),
            f"{inner}/__substg1.0_0037001F": utf16("Earlier rota"),
            f"{inner}/__substg1.0_1000001F": utf16("It was different."),
        }
    )
    document, attached = read(data, "a.msg")
    assert shape(document)[0] == ("heading", 1, "Rota for May")
    assert "From: Bob <bob@example.org>" in document.text
    assert "Cc: Team <team@example.org>" in document.text
    assert "Ann is off on the 3rd – Zoë stands in." in document.text
    assert [name for name, _ in attached] == ["rota.csv", "Earlier rota.eml"]
    inner_document, _ = read(attached[1][1], "b.eml")
    assert "It was different." in inner_document.text


@pytest.mark.parametrize(
    ("streams", "name", "protection"),
    [
        ({"EncryptedPackage": b"x"}, "a.xlsx", "a password"),
        ({"EncryptedPackage": b"x"}, "a.doc", "a password"),
        ({"WordDocument": b"x", "\tDRMContent": b"x"}, "a.doc", "rights management"),
        ({"WordDocument": struct.pack("<HH6xH", 0xA5EC, 0xC1, 0x100)}, "a.doc", "a password"),
        (
            {
                "PowerPoint Document": b"x",
                "Current User": struct.pack("<HHIIII", 0, 0xFF6, 20, 20, 0xF3D1C4DF, 0),
            },
            "a.ppt",
            "a password",
        ),
    ],
)
def test_protected_office_files(streams: dict[str, bytes], name: str, protection: str) -> None:
    with pytest.raises(IngestionError) as caught:
        read(ole(streams), name)
    assert caught.value.code is FailureCode.PASSWORD_PROTECTED
    assert protection in caught.value.detail


def test_word_95_text() -> None:
    text = b"First paragraph.\rSecond \x13PAGE\x143\x15 paragraph.\r"
    header = bytearray(0x300)
    struct.pack_into("<HH", header, 0, 0xA5DC, 0x68)
    struct.pack_into("<I", header, 0x18, 0x300)
    struct.pack_into("<I", header, 0x34, len(text))
    document, _ = read(ole({"WordDocument": bytes(header) + text}), "a.doc")
    assert document.text == "First paragraph.\n\nSecond 3 paragraph."


# Word


def word_bytes(word: WordDocument) -> bytes:  # type: ignore[valid-type]
    buffer = io.BytesIO()
    word.save(buffer)  # type: ignore[attr-defined]
    return buffer.getvalue()


def test_docx_text_boxes_numbers_margins_and_deleted_text() -> None:
    word = WordDocument()
    word.add_heading("Scope", 1)
    paragraph = word.add_paragraph("Around the box.")
    for content in (
        "<w:r><w:pict><v:textbox xmlns:v='urn:schemas-microsoft-com:vml'><w:txbxContent>"
        "<w:p><w:r><w:t>Inside the box.</w:t></w:r></w:p></w:txbxContent></v:textbox>"
        "</w:pict></w:r>",
        "<w:del><w:r><w:delText>deleted words</w:delText></w:r></w:del>",
        "<w:ins><w:r><w:t> Inserted.</w:t></w:r></w:ins>",
        "<w:r><w:rPr><w:vanish/></w:rPr><w:t>hidden words</w:t></w:r>",
    ):
        tag = content[: content.index(">")]
        paragraph._p.append(parse_xml(content.replace(tag, f"{tag} {nsdecls('w')}", 1)))
    for text in ("one", "two"):
        word.add_paragraph(text, style="List Number")
    word.sections[0].header.paragraphs[0].text = "SOP-12, revision 3"
    word.sections[0].footer.paragraphs[0].text = "7"
    document, _ = read(word_bytes(word), "a.docm")
    assert shape(document) == [
        ("heading", 1, "Scope"),
        ("paragraph", 0, "Around the box. Inserted."),
        ("paragraph", 0, "Inside the box."),
        ("list_item", 0, "1. one"),
        ("list_item", 0, "2. two"),
        ("paragraph", 0, "SOP-12, revision 3"),
    ]
    assert document.metadata["page_margins"] == ["SOP-12, revision 3"]


def test_docx_merged_cells_keep_their_columns_and_frames_are_text() -> None:
    word = WordDocument()
    table = word.add_table(rows=3, cols=3)
    for cell, text in zip(table._cells, "abcdefghi", strict=True):
        cell.text = text
    table.cell(0, 0).merge(table.cell(0, 1))
    table.cell(1, 0).merge(table.cell(2, 0))
    frame = word.add_table(rows=1, cols=1)
    frame.cell(0, 0).text = "A note in a frame."
    document, _ = read(word_bytes(word), "a.docx")
    rows = document.elements[0].rows
    assert rows == (("a b", "", "c"), ("d g", "e", "f"), ("", "h", "i"))
    assert shape(document)[1] == ("paragraph", 0, "A note in a frame.")


# Workbooks, presentations, data


def test_embedded_workbook_of_a_workbook_is_handed_on() -> None:
    buffer = io.BytesIO()
    book = openpyxl.Workbook()
    book.active.append(["inner"])
    book.save(buffer)
    inner = buffer.getvalue()
    buffer = io.BytesIO()
    book.active.append(["outer"])
    book.save(buffer)
    with zipfile.ZipFile(buffer, "a") as package:
        package.writestr("xl/embeddings/Plan.xlsx", inner)
    document, attached = read(buffer.getvalue(), "a.xlsm")
    assert attached == [("Plan.xlsx", inner)]
    assert "outer" in document.text


ODP = """<office:document-content xmlns:office="urn:oasis:names:tc:opendocument:xmlns:office:1.0"
 xmlns:draw="urn:oasis:names:tc:opendocument:xmlns:drawing:1.0"
 xmlns:text="urn:oasis:names:tc:opendocument:xmlns:text:1.0"
 xmlns:table="urn:oasis:names:tc:opendocument:xmlns:table:1.0"
 xmlns:presentation="urn:oasis:names:tc:opendocument:xmlns:presentation:1.0">
<draw:page>
 <draw:frame><text:list><text:list-item><text:p>First<text:s/>point</text:p>
  <text:list><text:list-item><text:p>Below</text:p></text:list-item></text:list>
 </text:list-item></text:list></draw:frame>
 <draw:frame presentation:class="title"><text:p>Plan</text:p></draw:frame>
 <table:table><table:table-row><table:table-cell><text:p>k</text:p></table:table-cell>
  <table:table-cell><text:p>v</text:p></table:table-cell></table:table-row></table:table>
 <presentation:notes><text:p>Say this.</text:p></presentation:notes>
</draw:page></office:document-content>"""


def test_odp_slides() -> None:
    kind = b"application/vnd.oasis.opendocument.presentation"
    document, _ = read(archive({"mimetype": kind, "content.xml": ODP.encode()}), "a.odp")
    assert shape(document) == [
        ("heading", 1, "Plan"),
        ("list_item", 0, "First point"),
        ("list_item", 1, "Below"),
        ("table", 0, "k | v"),
        ("paragraph", 0, "Say this."),
    ]
    assert {element.page for element in document.elements} == {1}


def test_json_is_names_and_values() -> None:
    document, _ = read(
        b'{"name": "Pump 7", "ok": true, "tags": ["a", "b"], "at": {"room": 3},'
        b' "parts": [{"id": 1, "kind": "seal"}, {"id": 2, "kind": null}]}',
        "a.json",
    )
    assert shape(document) == [
        ("code", 0, "name: Pump 7\nok: true\ntags: a, b\nat:\n  room: 3"),
        ("heading", 2, "parts"),
        ("table", 0, "id | kind\n1 | seal\n2 |"),
    ]
    lines, _ = read(b'{"a": 1}\n{"a": 2}\n', "a.json")
    assert lines.elements[0].rows == (("a",), ("1",), ("2",))
    broken, _ = read(b'{"a": 1', "a.json")
    assert broken.text == '{"a": 1'


def test_xml_is_names_and_texts() -> None:
    document, _ = read(
        b"<?xml version='1.0'?><!-- no --><r><p id='4'><name>Ann</name><note>see <b>this</b> one"
        b"</note></p></r>",
        "a.xml",
    )
    assert document.text == "r:\n  p id=4:\n    name: Ann\n    note: see this one"
    bomb = b'<!DOCTYPE r [<!ENTITY a "aaaaaaaa"><!ENTITY b "&a;&a;&a;">]><r><t>x &b;</t></r>'
    assert "aaaaaaaa" not in read(bomb, "b.xml")[0].text.replace(bomb.decode(), "")


def test_rst_and_org_headings() -> None:
    for name, text in (("a.rst", b"Top\n===\n\nText.\n"), ("a.org", b"* Top\n\nText.\n")):
        document, _ = read(text, name)
        assert [e.kind for e in document.elements] == [ElementKind.HEADING, ElementKind.PARAGRAPH]


def test_rtf_beyond_the_basic_plane_with_pictures_and_without_an_end() -> None:
    rtf = rb"{\rtf1\ansi{\pict\bin5 }}{{}} and \u-10240?\u-8398? {\b bold"
    document, _ = read(rtf, "a.rtf")
    assert document.text == "and \U00010332 bold"
    assert "end of the file is missing" in document.warnings[0]
