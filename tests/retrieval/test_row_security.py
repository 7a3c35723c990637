"""The second net: what PostgreSQL lets a reader see, with and without the net in Python."""

from __future__ import annotations

import io
import random
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from django.contrib.auth.models import AnonymousUser
from django.core.exceptions import ImproperlyConfigured
from django.core.management import CommandError, call_command
from django.db import DatabaseError, connection, transaction
from django.db.models import Q
from pytest_django.fixtures import Settings

from assistant import asgi
from assistant.database import snapshot
from assistant.documents.actions import create_private_collection
from assistant.documents.models import Collection, Document, DocumentVersion, PageBoxes, VersionText
from assistant.embedded import postgres
from assistant.management import diagnosis
from assistant.permissions.models import Grant
from assistant.permissions.policy import collections_with_role, private_collections
from assistant.permissions.roles import Role
from assistant.retrieval import row_security, scope, search, searching
from assistant.retrieval.models import Chunk, Embedding
from assistant.retrieval.row_security import READER_ROLE, TABLES, reading_as
from assistant.users.models import User
from tests.factories import line_box, make_collection, make_document, make_group, make_user

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("fake_embedder")]


@pytest.fixture
def reader() -> User:
    user: User = make_user()
    return user


@pytest.fixture
def house(reader: User) -> dict[str, Collection]:
    collections = {"mine": make_collection(readers=[reader]), "hidden": make_collection()}
    for name, collection in collections.items():
        for number in range(3):
            make_document(collection, title=f"{name} {number}", text=f"Canteen canary {name}.")
    return collections


@pytest.fixture
def no_scope(monkeypatch: pytest.MonkeyPatch) -> None:
    """The bug this net is for: the filter of the searches lets everything through."""
    honest = scope.scope_of

    def everything(*args: Any, **kwargs: Any) -> scope.Scope:
        return replace(honest(*args, **kwargs), readable="SELECT id FROM documents_collection")

    monkeypatch.setattr(searching, "scope_of", everything)


@pytest.mark.parametrize("mode", ["hybrid", "vector", "keyword"])
def test_without_the_filter_in_python_nothing_leaks(
    house: dict[str, Collection], reader: User, no_scope: None, mode: Any
) -> None:
    found = search("canteen canary hidden", user=reader, mode=mode, limit=50, explain=True)
    assert {p.collection_id for p in found.passages} == {house["mine"].pk}
    assert found.trace is not None
    assert "hidden" not in str(list(found.trace.chunks.values()))


def test_without_both_nets_it_would_leak(
    house: dict[str, Collection],
    reader: User,
    no_scope: None,
    settings: Settings,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Or the test above could not fail."""
    settings.ROW_SECURITY = "warn"
    monkeypatch.setattr(row_security, "_holds", lambda: False)
    found = search("canteen canary hidden", user=reader, limit=50)
    assert house["hidden"].pk in {p.collection_id for p in found.passages}


@pytest.mark.parametrize("seed", range(3))
def test_the_policies_say_what_the_policy_says(db: None, seed: int) -> None:
    """Random grants, groups, roles, deactivated people and superusers: the same sets of rows."""
    choose = random.Random(seed)
    groups = [make_group() for _ in range(3)]
    people: list[Any] = [
        make_user(
            groups=choose.sample(groups, choose.randrange(3)),
            is_active=choose.random() > 0.2,
            is_superuser=choose.random() < 0.1,
        )
        for _ in range(10)
    ]
    for number in range(6):
        collection = make_collection(
            readers=choose.sample([*people, *groups], choose.randrange(4)),
            everyone=choose.choice([None, None, None, *Role]),
        )
        boxes = [line_box(1, 0, 6)]
        make_document(collection, text=f"Canary {number}.", boxes=boxes)
        make_document(create_private_collection(name="Own", owner=people[number]), boxes=boxes)
    Grant.objects.filter(pk__in=Grant.objects.order_by("?")[:3]).update(role=Role.MANAGER)
    columns = {
        Collection: "pk",
        Document: "collection",
        DocumentVersion: "document__collection",
        VersionText: "version__document__collection",
        PageBoxes: "version__document__collection",
        Chunk: "collection",
        Embedding: "collection",
    }
    assert [model._meta.db_table for model in columns] == list(TABLES)
    for person in [*people, AnonymousUser()]:
        allowed = set(
            Collection.objects.filter(
                Q(pk__in=collections_with_role(person, Role.READER))
                | Q(pk__in=private_collections(person))
            ).values_list("pk", flat=True)
        )
        with transaction.atomic(), reading_as(person):
            for model, column in columns.items():
                rows: Any = model._base_manager.values_list(column, flat=True)
                with connection.cursor() as cursor:  # managers read more than the role may
                    cursor.execute(*rows.query.sql_with_params())
                    seen = {row[0] for row in cursor.fetchall()}
                assert seen == allowed, (model.__name__, person)


def test_the_role_ends_with_the_block_and_with_an_error(
    house: dict[str, Collection], reader: User
) -> None:
    def whoami() -> tuple[str, str]:
        with connection.cursor() as cursor:
            cursor.execute("SELECT current_user, current_setting('assistant.reader', true)")
            row: tuple[str, str] = cursor.fetchone()
            return row

    owner = whoami()[0]
    with transaction.atomic(), reading_as(reader):
        assert whoami() == (READER_ROLE, str(reader.pk))
    assert whoami() == (owner, "")
    with pytest.raises(KeyError), transaction.atomic(), reading_as(reader):
        raise KeyError
    assert whoami() == (owner, "")
    with pytest.raises(DatabaseError), transaction.atomic(), reading_as(reader):
        User.objects.values_list("password").first()
    assert whoami()[0] == owner


def test_a_plan_that_is_kept_knows_no_reader(
    house: dict[str, Collection], reader: User, no_scope: None
) -> None:
    """One connection, one plan for all readers, as after some searches in a pool."""
    other = make_user()
    theirs = make_collection(readers=[other])
    make_document(theirs, text="Canteen canary theirs.")
    raw: Any = connection.connection
    raw.prepare_threshold = 0
    try:
        with connection.cursor() as cursor:
            cursor.execute("SET LOCAL plan_cache_mode = force_generic_plan")
        for _ in range(2):
            for person, collection in ((reader, house["mine"]), (other, theirs)):
                found = search("canteen canary", user=person, limit=50)
                assert {p.collection_id for p in found.passages} == {collection.pk}
        with connection.cursor() as cursor:
            cursor.execute(
                "SELECT max(generic_plans) FROM pg_prepared_statements"
                " WHERE statement LIKE '%heading_path%'"
            )
            assert cursor.fetchone()[0] >= 4
    finally:
        raw.prepare_threshold = None


@pytest.mark.django_db(transaction=True)
def test_the_role_ends_with_a_snapshot(reader: User) -> None:
    def state() -> tuple[str, ...]:
        with connection.cursor() as cursor:
            cursor.execute(
                "SELECT current_user, current_setting('assistant.reader', true),"
                " current_setting('transaction_isolation'),"
                " current_setting('transaction_read_only')"
            )
            row: tuple[str, ...] = cursor.fetchone()
            return row

    owner = state()[0]
    with snapshot() as is_own, reading_as(reader, to_the_end=is_own):
        assert state() == (READER_ROLE, str(reader.pk), "repeatable read", "on")
    assert state() == (owner, "", "read committed", "off")
    with transaction.atomic():
        assert state() == (owner, "", "read committed", "off")
    with pytest.raises(KeyError), snapshot() as is_own, reading_as(reader, to_the_end=is_own):
        raise KeyError
    assert state() == (owner, "", "read committed", "off")


def test_the_role_reads_and_nothing_else(house: dict[str, Collection], reader: User) -> None:
    for statement in (
        "SELECT id FROM users_user",
        "SELECT digest FROM users_apitoken",
        "DELETE FROM retrieval_chunk",
        "UPDATE documents_document SET title = ''",
        "INSERT INTO permissions_grant (collection_id, everyone, role, created_at)"
        f" VALUES ('{house['hidden'].pk}', true, 30, now())",
    ):
        with (
            pytest.raises(DatabaseError, match="denied"),
            transaction.atomic(),
            reading_as(reader),
            connection.cursor() as cursor,
        ):
            cursor.execute(statement)


def test_embedded_and_documented_roles_are_this_one() -> None:
    assert postgres.READER == READER_ROLE


@pytest.fixture
def broken(db: None, request: pytest.FixtureRequest) -> Iterator[None]:
    """One statement that spoils the net, undone with the test's transaction."""
    with connection.cursor() as cursor:
        cursor.execute("SET CONSTRAINTS ALL IMMEDIATE")
        cursor.execute(request.param)
    yield


BREAKS = {
    "no policy": "DROP POLICY readers ON retrieval_chunk",
    "switched off": "ALTER TABLE documents_versiontext DISABLE ROW LEVEL SECURITY",
    "no right": f"REVOKE SELECT ON retrieval_chunk FROM {READER_ROLE}",
    "too wide": "CREATE POLICY wide ON documents_document FOR SELECT USING (true)",
}


@pytest.mark.parametrize("broken", BREAKS.values(), ids=BREAKS, indirect=True)
def test_a_hole_is_found(house: dict[str, Collection], broken: None, settings: Settings) -> None:
    gap = row_security.find_gap()
    assert gap is not None
    finding = diagnosis._row_security("row security")
    assert (finding.state, finding.advice) == ("problem", gap.advice)
    settings.ROW_SECURITY = "warn"
    finding = diagnosis._row_security("row security")
    assert finding.state == "warning"


@pytest.mark.parametrize("broken", [BREAKS["too wide"]], indirect=True)
def test_a_site_with_a_hole_does_not_start(
    house: dict[str, Collection], broken: None, settings: Settings
) -> None:
    with pytest.raises(CommandError, match="Row-level security does not hold"):
        call_command("prepare", verbosity=0)
    assert "documents_document" in asgi._refusal()
    settings.ROW_SECURITY = "warn"
    words = io.StringIO()
    call_command("prepare", verbosity=0, stderr=words)
    assert "documents_document" in words.getvalue()
    assert asgi._refusal() == ""


@pytest.mark.parametrize("broken", [BREAKS["no right"]], indirect=True)
def test_rights_of_the_role_are_mended(house: dict[str, Collection], broken: None) -> None:
    row_security.ensure_role()
    assert row_security.find_gap() is None


def test_without_the_role_nothing_is_read(
    house: dict[str, Collection], reader: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(row_security, "READER_ROLE", "nobody_made_this")
    gap = row_security.find_gap()
    assert gap is not None
    assert "CREATE ROLE nobody_made_this" in gap.advice
    assert "GRANT nobody_made_this TO" in gap.advice
    with pytest.raises(ImproperlyConfigured, match="doctor"), transaction.atomic():
        search("canteen", user=reader)


def test_a_whole_net_is_reported(house: dict[str, Collection]) -> None:
    assert row_security.find_gap() is None
    finding = diagnosis._row_security("row security")
    assert finding.state == "ok"
