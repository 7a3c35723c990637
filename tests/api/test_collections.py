"""Collections and grants over REST."""

from __future__ import annotations

from typing import Any

import pytest

from assistant.audit.models import AuditEvent
from assistant.documents.models import Collection
from assistant.permissions.models import Grant
from assistant.permissions.roles import Role
from tests.api.calls import JSON, problem
from tests.factories import make_collection, make_document, make_group, make_user

pytestmark = pytest.mark.django_db
URL = "/api/v1/collections/"


def test_the_creator_manages_what_they_made_and_nobody_else_sees_it(as_caller: Any) -> None:
    ada, bob = make_user(), make_user()
    answer = as_caller(ada).with_token().post(URL, {"name": "Handbook"}, **JSON)
    assert answer.status_code == 201
    body = answer.json()
    assert body["name"] == "Handbook"
    assert body["role"] == "manager"
    assert body["abilities"] == {"read": True, "contribute": True, "manage": True}
    assert as_caller(bob).with_token().get(URL).json() == {"next": None, "results": []}
    assert as_caller(bob).with_token().get(f"{URL}{body['id']}/").status_code == 404


@pytest.mark.parametrize(
    ("role", "expected"),
    [
        (Role.READER, "reader"),
        (Role.CONTRIBUTOR, "contributor"),
        (Role.MANAGER, "manager"),
    ],
)
def test_the_list_tells_the_callers_own_role(as_caller: Any, role: Role, expected: str) -> None:
    user = make_user()
    collection = make_collection()
    Grant.objects.create(collection=collection, user=user, role=role)
    make_collection()
    (row,) = as_caller(user).with_token().get(URL).json()["results"]
    assert (row["id"], row["role"]) == (str(collection.pk), expected)


def test_a_reader_may_not_rename_share_or_delete_and_is_told_why(as_caller: Any) -> None:
    user = make_user()
    collection = make_collection(readers=[user], name="Handbook")
    client = as_caller(user).with_token()
    url = f"{URL}{collection.pk}/"
    for answer in (
        client.patch(url, {"name": "Mine"}, **JSON),
        client.delete(url),
        client.get(f"{url}grants/"),
        client.put(f"{url}grants/", {"grants": [{"user": user.email, "role": "manager"}]}, **JSON),
    ):
        assert "manager" in problem(answer, 403)["detail"]
    collection.refresh_from_db()
    assert collection.name == "Handbook"
    assert AuditEvent.objects.filter(actor_id=user.pk, result="denied").count() == 4


def test_a_manager_renames_and_keeps_what_was_not_sent(as_caller: Any) -> None:
    user = make_user()
    collection = make_collection(managers=[user], description="How we work")
    client = as_caller(user).with_token()
    body = client.patch(f"{URL}{collection.pk}/", {"name": "New"}, **JSON).json()
    assert (body["name"], body["description"]) == ("New", "How we work")


def test_deleting_takes_the_documents_along(as_caller: Any) -> None:
    user = make_user()
    collection = make_collection(managers=[user])
    document = make_document(collection)
    client = as_caller(user).with_token()
    assert client.delete(f"{URL}{collection.pk}/").status_code == 204
    assert client.get(f"{URL}{collection.pk}/").status_code == 404
    assert client.get(f"/api/v1/documents/{document.pk}/").status_code == 404
    assert not Collection.objects.filter(pk=collection.pk).exists()


def test_replacing_the_access_list(as_caller: Any) -> None:
    ada, bob = make_user(), make_user()
    group = make_group()
    collection = make_collection(managers=[ada], readers=[bob])
    client = as_caller(ada).with_token()
    wanted = [
        {"user": ada.email, "role": "manager"},
        {"group": group.name, "role": "contributor"},
        {"everyone": True, "role": "reader"},
    ]
    url = f"{URL}{collection.pk}/grants/"
    assert client.put(url, {"grants": wanted}, **JSON).json() == {"grants": wanted}
    assert client.get(url).json() == {"grants": wanted}
    assert as_caller(bob).with_token().get(url).status_code == 403  # a reader through everyone


@pytest.mark.parametrize(
    "grants",
    [
        [],
        [{"user": "nobody@example.com", "role": "manager"}],
        [{"role": "manager"}],
        [{"user": "x@example.com", "everyone": True, "role": "manager"}],
        [{"everyone": True, "role": "manager"}],
        [{"everyone": True, "role": "owner"}],
        "everyone",
        None,
    ],
)
def test_a_bad_access_list_changes_nothing(as_caller: Any, grants: object) -> None:
    ada = make_user()
    collection = make_collection(managers=[ada])
    before = list(Grant.objects.values_list("pk", flat=True))
    client = as_caller(ada).with_token()
    answer = client.put(f"{URL}{collection.pk}/grants/", {"grants": grants}, **JSON)
    assert problem(answer, 400)["errors"]
    assert list(Grant.objects.values_list("pk", flat=True)) == before


@pytest.mark.parametrize("body", [{}, {"name": ""}, {"name": "x" * 201}, {"name": ["x"]}])
def test_a_name_is_needed(as_caller: Any, body: dict[str, Any]) -> None:
    answer = as_caller(make_user()).with_token().post(URL, body, **JSON)
    assert "name" in problem(answer, 400)["errors"]


def test_pages_neither_repeat_nor_miss_rows(as_caller: Any) -> None:
    user = make_user()
    made = {str(make_collection(readers=[user]).pk) for _ in range(7)}
    client = as_caller(user).with_token()
    seen: list[str] = []
    url: str | None = f"{URL}?limit=3"
    while url:
        page = client.get(url).json()
        assert len(page["results"]) <= 3
        seen += [row["id"] for row in page["results"]]
        url = page["next"]
        make_collection(readers=[user])  # a new row while somebody pages
    assert len(seen) == len(set(seen))
    assert set(seen) == made


@pytest.mark.parametrize("query", ["limit=0", "limit=201", "limit=x", "cursor=%00", "cursor=e30"])
def test_a_bad_page_is_refused_in_words(as_caller: Any, query: str) -> None:
    answer = as_caller(make_user()).with_token().get(f"{URL}?{query}")
    assert problem(answer, 400)["errors"]


def test_the_list_costs_the_same_for_many(as_caller: Any, django_assert_num_queries: Any) -> None:
    user = make_user()
    client = as_caller(user).with_token()
    for _ in range(2):
        make_collection(readers=[user])
    client.get(URL)  # notes the token's use
    with django_assert_num_queries(4) as few:
        client.get(URL)
    for _ in range(10):
        make_collection(readers=[user])
    with django_assert_num_queries(len(few)):
        client.get(URL)
