"""Every route, every persona, every credential: generated from the URLconf, held against a table.

A new route without a row fails. A refused call changes nothing in the database, and a hidden
object is answered like an absent one.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
from django.db import connection, transaction
from django.test import Client
from django.urls import URLResolver, get_resolver, reverse
from django.utils import timezone

from assistant.chat.models import AnswerStatus, Bundle, Conversation, OpenQuestion
from assistant.documents.actions import create_private_collection
from assistant.users.models import ApiToken, User
from ingestion.models import IngestionJob, JobStatus
from tests.factories import make_collection, make_document, make_turn, make_user
from tests.permissions_table import ADMIN_ROUTES, PERSONAS, TABLE, Call, Outcome, Row

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("fake_llm")]
METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE")
DEAD_CREDENTIALS = ("expired", "revoked", "bad header", "query string")


def routes() -> Iterator[tuple[str, str]]:
    """(name with namespaces, or the pattern where there is no name; the whole pattern)."""

    def walk(patterns: Any, prefix: str, namespace: str) -> Iterator[tuple[str, str]]:
        for part in patterns:
            pattern = prefix + str(part.pattern)
            if isinstance(part, URLResolver):
                inner = f"{namespace}{part.namespace}:" if part.namespace else namespace
                yield from walk(part.url_patterns, pattern, inner)
            else:
                yield (f"{namespace}{part.name}" if part.name else pattern), pattern

    return walk(get_resolver().url_patterns, "", "")


def test_every_route_has_a_row_and_every_row_a_route() -> None:
    names = [name for name, _ in routes()]
    assert len(names) == len(set(names)), "two routes share a name"
    assert set(names) == set(TABLE) | ADMIN_ROUTES


@dataclass
class World:
    """One collection with a document in each state, and what belongs to its reader."""

    people: dict[str, User]
    collection: Any
    document: Any
    failed: Any
    queued: Any
    conversation: Any
    attachment: UUID
    answer: Any
    token: Any
    batch: UUID
    open_question: Any
    number: int = 1

    @property
    def manager(self) -> User:
        return self.people["manager"]

    @property
    def question(self) -> Any:
        return self.answer.parent

    def pk(self, target: str) -> Any:
        found = getattr(self, target)
        return getattr(found, "pk", found)


@pytest.fixture
def world(db: None) -> World:
    people = {name: make_user() for name in PERSONAS if name not in ("anonymous", "superuser")}
    people["superuser"] = make_user(is_superuser=True)
    collection = make_collection(
        readers=[people["reader"]],
        contributors=[people["contributor"]],
        managers=[people["manager"], people["deactivated"]],
    )
    document = make_document(collection)
    queued = make_document(collection, title="Queued", ready=False)
    failed = make_document(collection, title="Failed", ready=False)
    batch = uuid4()
    IngestionJob.objects.filter(version__document=failed).update(
        status=JobStatus.FAILED, error_code="no_text", error_detail="No text.", batch=batch
    )
    place = create_private_collection(name="Attached files", owner=people["reader"])
    attachment = make_document(place, actor=people["reader"])
    conversation = Conversation.objects.create(user=people["reader"], attachments=place)
    answer = make_turn(
        conversation,
        text="At noon.",
        status=AnswerStatus.DONE,
        finish_reason="stop",
        sources=[
            {
                "number": 1,
                "document": str(document.pk),
                "version": str(document.current_version_id),
                "locator": {"char_start": 0, "char_end": 11},
                "score": 0.5,
            }
        ],
    )
    Bundle.objects.create(answer=answer, queries=["When?"], rights_hash="0" * 64)
    open_question = OpenQuestion.objects.create(text="When?", asker=people["reader"])
    open_question.collections.add(collection)
    token, _ = ApiToken.generate(people["reader"], scopes=["read"])
    return World(
        people,
        collection,
        document,
        failed,
        queued,
        conversation,
        attachment.pk,
        answer,
        token,
        batch,
        open_question,
    )


class Clients:
    """A client for each persona and credential; the deactivated one had them before."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._tokens: dict[tuple[str, str], str] = {}
        self._sessions: dict[str, Client] = {"anonymous": _client()}
        for name, user in world.people.items():
            client = _client()
            client.force_login(user, backend="django.contrib.auth.backends.ModelBackend")
            self._sessions[name] = client
            for scopes in ("read", "read write"):
                self._tokens[name, scopes] = self._token(user, scopes)
        deactivated = world.people["deactivated"]
        deactivated.is_active = False
        deactivated.save()

    @staticmethod
    def _token(user: User, scopes: str, **changes: Any) -> str:
        row, token = ApiToken.generate(user, scopes=scopes.split())
        ApiToken.objects.filter(pk=row.pk).update(last_used_at=timezone.now(), **changes)
        return token

    def session(self, persona: str) -> Client:
        return self._sessions[persona]

    def token(self, persona: str, scopes: str) -> Client:
        return _client(f"Bearer {self._tokens[persona, scopes]}")

    def dead(self, persona: str, kind: str) -> tuple[Client, str]:
        """A client and what to append to the address."""
        user, now = self._world.people[persona], timezone.now()
        live = self._tokens[persona, "read write"]
        if kind == "expired":
            old = self._token(user, "read write", expires_at=now - timedelta(seconds=1))
            return _client(f"Bearer {old}"), ""
        if kind == "revoked":
            return _client(f"Bearer {self._token(user, 'read write', revoked_at=now)}"), ""
        if kind == "bad header":
            return _client(f"Token {live}"), ""
        return _client(), f"?token={live}&access_token={live}"


def _client(authorization: str = "") -> Client:
    headers = {"Authorization": authorization} if authorization else {}
    return Client(headers=headers, raise_request_exception=False)


def address(name: str, row: Row, world: World, *, absent: bool = False) -> str:
    if row.path:
        return row.path
    if row.target:
        others = {key: getattr(world, named) for key, named in row.names.items()}
        return reverse(name, kwargs={"pk": uuid4() if absent else world.pk(row.target), **others})
    return reverse(name)


def send(client: Client, method: str, url: str, call: Call | None, world: World) -> Any:
    data = call.data(world) if call and call.data else None
    if method == "GET":
        return client.get(url)
    if call is not None and call.is_form:
        return client.generic(method, url) if data is None else _form(client, method, url, data)
    body = json.dumps(data if data is not None else {})
    return client.generic(method, url, body, content_type="application/json")


def _form(client: Client, method: str, url: str, data: Any) -> Any:
    assert method in ("POST", "PUT")
    return client.post(url, data)


def fingerprint() -> str:
    """A hash over every row of every table, the record of refusals and of use aside."""
    with connection.cursor() as cursor:
        tables = [
            name
            for name in connection.introspection.table_names(cursor)
            if name not in ("audit_auditevent", "django_session") and not name.startswith("axes_")
        ]
        union = " UNION ALL ".join(
            f"SELECT '{name}' || coalesce(string_agg(md5((to_jsonb(t) - 'last_used_at')::text),"
            f" '' ORDER BY md5((to_jsonb(t) - 'last_used_at')::text)), '') AS h FROM {name} t"
            for name in tables
        )
        cursor.execute(f"SELECT md5(string_agg(h, '' ORDER BY h)) FROM ({union}) all_tables")
        return str(cursor.fetchone()[0])


def check(
    answer: Any, outcome: Outcome, call: Call, *, is_api: bool, where: tuple[object, ...]
) -> None:
    location = answer.headers.get("Location", "")
    asked_to_sign_in = answer.status_code == 302 and "/sign-in/" in location
    said = (
        *where,
        answer.status_code,
        location,
        answer.content[:300] if not answer.streaming else "",
    )
    match outcome:
        case Outcome.OK:
            assert answer.status_code in call.ok, said
            assert not asked_to_sign_in or "sign-in" in str(where[0]) or 302 in call.ok, said
        case Outcome.LOGIN:
            assert answer.status_code == 401 if is_api else asked_to_sign_in, said
        case Outcome.HIDDEN:
            assert answer.status_code == 404, said
        case Outcome.LOW:
            assert answer.status_code == 403, said


@pytest.mark.parametrize("name", sorted(TABLE))
def test_the_matrix(name: str, world: World) -> None:
    row, clients = TABLE[name], Clients(world)
    is_api = name.startswith(("api:", "openai:"))
    url = address(name, row, world)
    before = fingerprint()

    def attempt(
        client: Client, call: Call, outcome: Outcome, *where: object, suffix: str = ""
    ) -> Any:
        with transaction.atomic():
            answer = send(client, call.method, url + suffix, call, world)
            check(answer, outcome, call, is_api=is_api, where=(url, call.method, *where))
            if outcome is not Outcome.OK and call.method != "GET":
                assert fingerprint() == before, (url, call.method, *where)
            transaction.set_rollback(True)
        return answer

    for call in row.calls:
        for persona in PERSONAS:
            outcome = call.policy[persona]
            attempt(clients.session(persona), call, outcome, persona, "session")
            if persona == "anonymous":
                continue
            for scopes in ("read", "read write"):
                expected = outcome
                if call.scope is None and outcome is not Outcome.HIDDEN:
                    expected = call.policy["anonymous"]  # pages know no tokens
                elif call.scope is None:
                    expected = min((outcome, call.policy["anonymous"]), key=list(Outcome).index)
                elif call.scope not in scopes.split() and outcome is not Outcome.LOGIN:
                    expected = Outcome.LOW
                attempt(clients.token(persona, scopes), call, expected, persona, scopes)
        for persona in ("manager", "superuser", "reader"):
            for kind in DEAD_CREDENTIALS:
                client, suffix = clients.dead(persona, kind)
                before = fingerprint()
                expected = call.policy["anonymous"]
                attempt(client, call, expected, persona, kind, suffix=suffix)


@pytest.mark.parametrize("name", sorted(TABLE))
def test_methods_without_a_row_are_refused(name: str, world: World) -> None:
    row, clients = TABLE[name], Clients(world)
    url = address(name, row, world)
    allowed = {call.method for call in row.calls}
    for persona in ("superuser", "manager", "reader"):
        for method in METHODS:
            if method not in allowed:
                with transaction.atomic():
                    answer = send(clients.session(persona), method, url, None, world)
                    transaction.set_rollback(True)
                assert answer.status_code in row.others, (method, url, answer.status_code)


@pytest.mark.parametrize("name", sorted(n for n, row in TABLE.items() if row.target))
def test_hidden_and_absent_answer_alike(name: str, world: World) -> None:
    """Bodies only differ in what the caller sent, such as the address in a page."""
    row, clients = TABLE[name], Clients(world)
    for call in row.calls:
        bodies = []
        for absent in (False, True):
            url = address(name, row, world, absent=absent)
            with transaction.atomic():
                answer = send(clients.session("stranger"), call.method, url, call, world)
                transaction.set_rollback(True)
            assert answer.status_code == 404
            text = re.sub(r"[0-9a-f]{8}-[0-9a-f-]{27}", "ID", answer.content.decode())
            bodies.append(re.sub(r"\b[A-Za-z0-9]{64}\b", "CSRF TOKEN", text))
        assert bodies[0] == bodies[1], (name, call.method)


@pytest.mark.parametrize("pattern", sorted(p for n, p in routes() if n in ADMIN_ROUTES))
def test_the_administration_is_for_staff_alone(pattern: str, world: World) -> None:
    clients = Clients(world)
    key = str(world.people["reader"].pk)
    url = "/" + pattern
    url = url.replace("<path:content_type_id>", "1").replace("<path:object_id>", key)
    url = url.replace("<id>", key).replace("(?P<url>.*)$", "nothing/")
    url = re.sub(r"\^\(\?P<app_label>[^)]*\)/\$", "users/", url)
    before = fingerprint()
    public = url in ("/admin/login/", "/admin/logout/", "/admin/jsi18n/")
    for method in ("GET", "POST"):
        for persona in PERSONAS:
            with transaction.atomic():
                client = clients.session(persona)
                answer = client.get(url) if method == "GET" else client.post(url, {})
                if persona == "superuser":
                    assert answer.status_code < 500, (url, method, answer.status_code)
                elif not public:
                    assert answer.status_code in (302, 403), (url, persona, answer.status_code)
                    assert "/admin/login/" in answer.headers.get("Location", "/admin/login/")
                if persona != "superuser":
                    assert fingerprint() == before
                transaction.set_rollback(True)


def test_a_superuser_reaches_the_administration(world: World) -> None:
    client = Clients(world).session("superuser")
    for path in ("", "users/user/", "users/user/add/", "auth/group/", "audit/auditevent/"):
        answer = client.get(f"/admin/{path}")
        assert answer.status_code == 200, path
    person = world.people["reader"]
    assert client.get(f"/admin/users/user/{person.pk}/change/").status_code == 200
    assert client.post(f"/admin/users/user/{person.pk}/delete/").status_code == 403
    assert client.get("/admin/audit/auditevent/add/").status_code == 403
