"""``manage.py backup`` and ``restore``: a site comes back whole, or nothing changes."""

from __future__ import annotations

import io
import json
import stat
import tarfile
from pathlib import Path
from typing import Any

import pytest
from django.core.files.base import ContentFile
from django.core.files.storage import storages
from django.core.management import CommandError, call_command
from django.db import connection
from pytest_django.fixtures import Settings

from assistant.documents.models import Collection
from assistant.management.archive import ArchiveError, Writer, unpack
from assistant.users.models import User

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def site(settings: Settings, tmp_path: Path) -> Path:
    """A site with an account, a collection and two originals; returns its MEDIA_ROOT."""
    media = tmp_path / "media"
    media.mkdir()
    settings.MEDIA_ROOT = media
    settings.STORAGES = {
        **settings.STORAGES,
        "default": {
            "BACKEND": "django.core.files.storage.FileSystemStorage",
            "OPTIONS": {"location": media},
        },
    }
    User.objects.create_user("kept@example.com", "a long password 1")
    Collection.objects.create(name="Handbook")
    storages["default"].save("originals/aa/one", ContentFile(b"first" * 1000))
    storages["default"].save("originals/bb/two", ContentFile(b""))
    return media


def _backup(tmp_path: Path) -> Path:
    file = tmp_path / "site.tar"
    call_command("backup", str(file))
    return file


def _files(media: Path) -> dict[str, bytes]:
    return {
        file.relative_to(media).as_posix(): file.read_bytes()
        for file in media.rglob("*")
        if file.is_file()
    }


def test_a_site_comes_back_from_its_backup(
    site: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = _files(site)
    definitions = _definitions()
    assert len(definitions) > 50
    file = _backup(tmp_path)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600

    Collection.objects.all().delete()
    User.objects.all().delete()
    User.objects.create_user("new@example.com", "a long password 2")
    for path in site.rglob("*"):
        if path.is_file():
            path.unlink()
    call_command("restore", str(file))

    assert list(User.objects.values_list("email", flat=True)) == ["kept@example.com"]
    assert User.objects.get().check_password("a long password 1")
    assert list(Collection.objects.values_list("name", flat=True)) == ["Handbook"]
    assert _files(site) == before
    assert "Restored 1 users, 0 documents, 0 conversations" in capsys.readouterr().out
    with connection.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM pg_extension WHERE extname = 'vector'")
        assert cursor.fetchone() == (1,)
    assert _definitions() == definitions


def _definitions() -> set[tuple[str, ...]]:
    """Every index and constraint of the site, by name: reloading rewrites casts in their text."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT tablename, indexname FROM pg_indexes WHERE schemaname = 'public'")
        indexes = set(cursor.fetchall())
        cursor.execute("SELECT conrelid::regclass::text, conname, contype FROM pg_constraint")
        return indexes | set(cursor.fetchall())


def test_restored_tables_go_on_counting(site: Path, tmp_path: Path) -> None:
    file = _backup(tmp_path)
    call_command("restore", str(file), force=True)
    User.objects.create_user("another@example.com", "a long password 3")
    assert User.objects.count() == 2


def test_content_is_replaced_only_by_force_and_originals_are_kept_aside(
    site: Path, tmp_path: Path
) -> None:
    file = _backup(tmp_path)
    before = _files(site)
    Collection.objects.create(name="Newer")
    (site / "newer").write_bytes(b"newer")

    with pytest.raises(CommandError, match="has content"):
        call_command("restore", str(file))
    assert Collection.objects.count() == 2

    call_command("restore", str(file), force=True)
    assert list(Collection.objects.values_list("name", flat=True)) == ["Handbook"]
    assert _files(site) == before
    (aside,) = site.parent.glob("media-before-*")
    assert (aside / "newer").read_bytes() == b"newer"


def test_originals_of_an_empty_database_are_not_overwritten(site: Path, tmp_path: Path) -> None:
    file = _backup(tmp_path)
    Collection.objects.all().delete()
    with pytest.raises(CommandError, match="is not empty"):
        call_command("restore", str(file))
    assert len(_files(site)) == 2


def test_the_manifest_says_what_is_inside_and_holds_no_secret(
    site: Path, tmp_path: Path, settings: Settings
) -> None:
    settings.LLM_API_KEY = "secret-of-the-model-server"
    file = _backup(tmp_path)
    with tarfile.open(file) as tar:
        names = tar.getnames()
        content = tar.extractfile("manifest.json")
        assert content is not None
        text = content.read().decode()
    manifest = json.loads(text)
    assert names[-1] == "manifest.json"
    assert set(manifest["members"]) == {
        "database.dump",
        "media/originals/aa/one",
        "media/originals/bb/two",
    }
    assert manifest["members"]["media/originals/aa/one"]["size"] == 5000
    assert manifest["counts"] == {"users": 1, "documents": 0, "conversations": 0}
    assert "vector" in manifest["versions"]["extensions"]
    assert manifest["settings"]["EMBEDDING_MODEL"] == settings.EMBEDDING_MODEL
    for secret in (
        settings.LLM_API_KEY,
        settings.SECRET_KEY,
        connection.settings_dict["PASSWORD"],
    ):
        assert secret not in text


def test_an_existing_file_is_not_overwritten(site: Path, tmp_path: Path) -> None:
    file = _backup(tmp_path)
    before = file.read_bytes()
    with pytest.raises(CommandError, match="exists"):
        call_command("backup", str(file))
    assert file.read_bytes() == before
    call_command("backup", str(file), force=True)


def test_a_failed_backup_leaves_no_file(
    site: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(connection.settings_dict, "PASSWORD", "wrong")
    file = tmp_path / "site.tar"
    with pytest.raises(CommandError, match="No backup was made: pg_dump failed"):
        call_command("backup", str(file))
    assert [path.name for path in tmp_path.iterdir()] == ["media"]


def _damage(file: Path, how: str) -> None:
    content = bytearray(file.read_bytes())
    if how == "cut":
        file.write_bytes(content[: len(content) // 2])
    elif how == "without its end":
        file.write_bytes(content[: content.rindex(b"manifest.json")])
    elif how == "one byte":
        content[content.index(b"firstfirst")] ^= 1
        file.write_bytes(content)
    else:
        file.write_bytes(b"not a tar" * 1000)


@pytest.mark.parametrize("how", ["cut", "without its end", "one byte", "something else"])
def test_a_damaged_backup_changes_nothing(site: Path, tmp_path: Path, how: str) -> None:
    file = _backup(tmp_path)
    _damage(file, how)
    before = _files(site)
    with pytest.raises(CommandError, match="cannot be restored"):
        call_command("restore", str(file), force=True)
    assert Collection.objects.count() == 1
    assert _files(site) == before
    assert {path.name for path in tmp_path.iterdir()} == {"media", "site.tar"}


def test_a_dump_that_does_not_load_changes_nothing(site: Path, tmp_path: Path) -> None:
    dump = tmp_path / "dump"
    dump.write_bytes(b"PGDMP and then nothing")
    file = tmp_path / "bad.tar"
    with file.open("wb") as stream:
        writer = Writer(stream)
        writer.add("database.dump", dump)
        writer.finish({"versions": {"extensions": {}}, "counts": {}, "settings": {}})
    with pytest.raises(CommandError, match="Nothing was changed: pg_restore failed"):
        call_command("restore", str(file), force=True)
    assert Collection.objects.count() == 1
    assert len(_files(site)) == 2


def _tar(file: Path, *members: tuple[str, bytes, dict[str, Any]]) -> Path:
    with tarfile.open(file, "w") as tar:
        for name, content, changes in members:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            for attribute, value in changes.items():
                setattr(info, attribute, value)
            tar.addfile(info, io.BytesIO(content))
    return file


@pytest.mark.parametrize(
    "member",
    [
        ("media/../../escaped", b"x", {}),
        ("/etc/escaped", b"x", {}),
        ("escaped", b"x", {}),
        ("media/link", b"", {"type": tarfile.SYMTYPE, "linkname": "/etc/passwd"}),
        ("media/device", b"", {"type": tarfile.CHRTYPE}),
    ],
)
def test_a_forged_backup_writes_nowhere_else(
    tmp_path: Path, member: tuple[str, bytes, dict[str, Any]]
) -> None:
    file = _tar(tmp_path / "forged.tar", member)
    target = tmp_path / "inside" / "target"
    target.mkdir(parents=True)
    with pytest.raises(ArchiveError):
        unpack(file, target)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == [file]
