"""What must be hidden is asserted as well as what must be seen, for every scoped queryset."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any
from uuid import UUID

import pytest
from django.apps import apps
from django.contrib.auth.models import AnonymousUser
from django.db import models

from assistant.chat.models import Bundle, Citation, Conversation, Feedback, Message
from assistant.documents.actions import delete_document
from assistant.documents.models import Collection, Document, DocumentVersion, PageBoxes, VersionText
from assistant.permissions.policy import AnyUser
from assistant.permissions.querysets import OwnedQuerySet, ScopedQuerySet
from assistant.permissions.roles import Role
from assistant.retrieval import search
from assistant.users.models import User
from ingestion.models import IngestionJob
from tests.factories import line_box, make_collection, make_document, make_group, make_user

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("fake_embedder")]
QUERY = "When does the canteen open?"
SCOPED = (Collection, Document, DocumentVersion, VersionText, PageBoxes, IngestionJob)
OWNED = (Conversation, Message, Bundle, Citation, Feedback)


@dataclass
class House:
    """Collections by who may read them, each with one document that answers the query."""

    people: dict[str, AnyUser]
    documents: dict[str, Document]
    deleted: UUID

    def ids(self, *names: str) -> set[UUID]:
        return {self.documents[name].pk for name in names}


VISIBLE: dict[str, tuple[str, ...]] = {
    "owner": ("owned", "public"),
    "member": ("of group", "public"),
    "non-member": ("public",),
    "stranger": ("public",),
    "contributor": ("contributed", "public"),
    "anonymous": (),
    "deactivated": (),
    "superuser": ("owned", "of group", "contributed", "public", "nobody's"),
}


@pytest.fixture
def house(db: None) -> House:
    group, other = make_group(), make_group()
    people: dict[str, Any] = {
        "owner": make_user(),
        "member": make_user(groups=[group]),
        "non-member": make_user(groups=[other]),
        "stranger": make_user(),
        "contributor": make_user(),
        "anonymous": AnonymousUser(),
        "deactivated": make_user(groups=[group], is_active=False),
        "superuser": make_user(is_superuser=True),
    }
    collections = {
        "owned": make_collection(managers=[people["owner"], people["deactivated"]]),
        "of group": make_collection(readers=[group]),
        "contributed": make_collection(contributors=[people["contributor"]]),
        "public": make_collection(everyone=Role.READER),
        "nobody's": make_collection(),
    }
    documents = {
        name: make_document(
            collection,
            text=f"The canteen opens at noon, says {name}.",
            boxes=[line_box(1, 0, 25)],
        )
        for name, collection in collections.items()
    }
    gone = make_document(collections["public"], text="The canteen opens at noon, says the dead.")
    delete_document(gone, actor=make_user())
    return House(people, documents, gone.pk)


def test_the_house_is_as_these_tests_need_it(house: House) -> None:
    """Without this, a hidden row could be hidden because it is not there at all."""
    assert set(VISIBLE) == set(house.people)
    assert Document.objects.count() == len(house.documents) == 5
    assert DocumentVersion.objects.count() == VersionText.objects.count() == 5
    assert PageBoxes.objects.count() == 5
    assert Document.all_objects.filter(pk=house.deleted).exists()
    for name, document in house.documents.items():
        assert document.current_version_id is not None, name
        found = search(QUERY, user=house.people["superuser"], limit=50)
        assert document.pk in {passage.document_id for passage in found.passages}, name


def test_every_model_that_scopes_is_tested_here() -> None:
    querysets = {
        model: type(model._default_manager.all())
        for model in apps.get_models()
        if model._meta.app_label not in ("admin", "auth", "contenttypes", "sessions", "axes")
    }
    assert {m for m, q in querysets.items() if issubclass(q, ScopedQuerySet)} == set(SCOPED)
    assert {m for m, q in querysets.items() if issubclass(q, OwnedQuerySet)} == set(OWNED)


def _document_ids(model: type[models.Model], rows: Any) -> set[UUID]:
    path = {
        Collection: "documents__pk",
        Document: "pk",
        DocumentVersion: "document__pk",
        VersionText: "version__document__pk",
        PageBoxes: "version__document__pk",
        IngestionJob: "version__document__pk",
    }[model]
    return set(rows.values_list(path, flat=True))


@pytest.mark.parametrize("who", sorted(VISIBLE))
@pytest.mark.parametrize("model", SCOPED, ids=lambda model: model.__name__)
def test_a_scoped_queryset(house: House, model: Any, who: str) -> None:
    seen = _document_ids(model, model.objects.for_user(house.people[who])) - {house.deleted}
    expected = house.ids(*VISIBLE[who])
    hidden = house.ids(*house.documents) - expected
    assert seen == expected
    assert not seen & hidden


def test_a_tombstone_is_nobodys(house: House) -> None:
    for user in house.people.values():
        assert house.deleted not in Document.objects.for_user(user).values_list("pk", flat=True)
        for model in (DocumentVersion, VersionText, PageBoxes, IngestionJob):
            assert house.deleted not in _document_ids(model, model.objects.for_user(user))


@pytest.mark.parametrize("mode", ["hybrid", "vector", "keyword"])
@pytest.mark.parametrize("who", sorted(VISIBLE))
def test_search(house: House, who: str, mode: Any) -> None:
    found = search(QUERY, user=house.people[who], limit=50, mode=mode)
    seen = {passage.document_id for passage in found.passages}
    assert seen == house.ids(*VISIBLE[who])
    assert house.deleted not in seen
    texts = " ".join(passage.text for passage in found.passages)
    for name in set(house.documents) - set(VISIBLE[who]):
        assert f"says {name}." not in texts


@pytest.mark.parametrize("who", sorted(VISIBLE))
def test_search_in_named_collections(house: House, who: str) -> None:
    for name, document in house.documents.items():
        named = [document.collection_id]
        if name in VISIBLE[who]:
            found = search(QUERY, user=house.people[who], collections=named)
            assert {p.document_id for p in found.passages} == {document.pk}
        else:
            with pytest.raises(Collection.DoesNotExist):
                search(QUERY, user=house.people[who], collections=named)


@pytest.mark.parametrize("who", sorted(VISIBLE))
def test_a_filter_for_a_hidden_document_finds_nothing(house: House, who: str) -> None:
    for name, document in house.documents.items():
        found = search(QUERY, user=house.people[who], filters={"document_ids": [str(document.pk)]})
        expected = {document.pk} if name in VISIBLE[who] else set()
        assert {p.document_id for p in found.passages} == expected


@pytest.mark.parametrize(
    ("role", "expected"),
    [
        (Role.READER, {"owned", "contributed", "of group", "public"}),
        (Role.CONTRIBUTOR, {"owned", "contributed"}),
        (Role.MANAGER, {"owned"}),
    ],
)
def test_a_higher_role_sees_less(house: House, role: Role, expected: set[str]) -> None:
    seen: set[UUID] = set()
    for who in ("owner", "member", "contributor", "stranger"):
        rows = Document.objects.for_user(house.people[who], role)
        seen |= set(rows.values_list("pk", flat=True))
    assert seen == house.ids(*expected)


def test_hidden_rows_do_not_take_the_places_of_visible_ones(house: House) -> None:
    """Nearer documents in hidden collections leave the reader's own results as many as asked."""
    reader = make_user()
    mine = make_collection(readers=[reader])
    wanted = {make_document(mine, text=f"canteen note {n}").pk for n in range(4)}
    hidden = make_collection()
    for _ in range(12):
        make_document(hidden, text=QUERY)
    for mode in ("hybrid", "vector", "keyword"):
        found = search("canteen note", user=reader, collections=[mine.pk], limit=4, mode=mode)
        assert {p.document_id for p in found.passages} == wanted


def test_a_right_that_is_withdrawn_counts_from_the_next_query(house: House) -> None:
    member = house.people["member"]
    assert isinstance(member, User)
    assert {p.document_id for p in search(QUERY, user=member).passages} == house.ids(
        "of group", "public"
    )
    member.groups.clear()
    assert {p.document_id for p in search(QUERY, user=member).passages} == house.ids("public")
    member.is_active = False
    member.save()
    assert search(QUERY, user=member).passages == []


def _conversation_of(user: User, document: Document) -> None:
    conversation = Conversation.objects.create(user=user)
    answer = Message.objects.create(
        conversation=conversation, role=Message.Role.ANSWER, ordinal=1, text="At noon."
    )
    Citation.objects.create(
        answer=answer, ordinal=1, number=1, document=document, quote="noon", locator={}
    )
    Feedback.objects.create(answer=answer, rating="up")
    Bundle.objects.create(answer=answer)


@pytest.mark.parametrize("model", OWNED, ids=lambda model: model.__name__)
def test_what_belongs_to_a_person_is_seen_by_that_person_alone(house: House, model: Any) -> None:
    people = [user for user in house.people.values() if isinstance(user, User)]
    for user in people:
        _conversation_of(user, house.documents["public"])
    assert model.objects.count() == len(people)
    seen: list[Any] = []
    for user in people:
        rows = list(model.objects.for_user(user).values_list("pk", flat=True))
        assert len(rows) == (1 if user.is_active else 0)
        seen += rows
    assert len(seen) == len(set(seen)) == len(people) - 1
    assert not model.objects.for_user(AnonymousUser()).exists()
