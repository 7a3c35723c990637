from __future__ import annotations

import pytest
from django.test import Client

from assistant.audit.models import AuditEvent
from assistant.users.models import ApiToken
from tests.factories import PASSWORD, make_user
from tests.web.conftest import House, SignIn
from tests.web.markup import Elements

NEW = "a quite different phrase"


def sign_in(client: Client, email: str, password: str) -> int:
    response = client.post("/sign-in/", {"username": email, "password": password})
    return response.status_code


def test_signing_in_by_email_in_any_case(house: House) -> None:
    client = Client()
    assert client.get("/library/")["Location"] == "/sign-in/?next=/library/"
    assert sign_in(client, house.reader.email.upper(), PASSWORD) == 302
    assert client.get("/library/").status_code == 200
    assert AuditEvent.objects.filter(action="user.sign_in", actor_id=house.reader.pk).exists()


def test_a_wrong_password_does_not_say_which_part_was_wrong(house: House) -> None:
    client = Client()
    known = client.post("/sign-in/", {"username": house.reader.email, "password": "wrong"})
    unknown = client.post("/sign-in/", {"username": "nobody@example.com", "password": "wrong"})
    assert known.status_code == unknown.status_code == 200
    words = "The e-mail address or the password is not right."
    assert words in known.content.decode()
    assert words in unknown.content.decode()


def test_five_wrong_passwords_pause_signing_in(house: House) -> None:
    client = Client()
    statuses = [sign_in(client, house.reader.email, "wrong") for _ in range(6)]
    assert statuses[:4] == [200] * 4
    assert statuses[-1] == 429
    response = client.post("/sign-in/", {"username": house.reader.email, "password": PASSWORD})
    assert response.status_code == 429
    assert "15 minutes" in response.content.decode()


def test_after_signing_in_nobody_is_sent_elsewhere(house: House) -> None:
    for place in ("https://evil.example/", "//evil.example/", "javascript:alert(1)"):
        client = Client()
        body = {"username": house.reader.email, "password": PASSWORD, "next": place}
        assert client.post("/sign-in/", body)["Location"] == "/"


def test_administration_uses_the_same_door(db: None) -> None:
    response = Client().get("/admin/login/?next=/admin/")
    assert response["Location"] == "/sign-in/?next=/admin/"
    posted = Client().post("/admin/login/", {"username": "x", "password": "y"})
    assert posted["Location"].startswith("/sign-in/")


def test_signing_out_ends_the_session(house: House, signed_in: SignIn) -> None:
    client = signed_in(house.reader)
    assert client.get("/sign-out/").status_code == 405
    assert client.post("/sign-out/")["Location"] == "/sign-in/"
    assert client.get("/").status_code == 302


def test_changing_the_password_signs_out_the_other_devices(house: House, signed_in: SignIn) -> None:
    here, there = signed_in(house.reader), signed_in(house.reader)
    wrong = {"old_password": "wrong", "new_password1": NEW, "new_password2": NEW}
    assert here.post("/account/password/", wrong).status_code == 422
    short = {"old_password": PASSWORD, "new_password1": "short", "new_password2": "short"}
    assert here.post("/account/password/", short).status_code == 422
    right = {"old_password": PASSWORD, "new_password1": NEW, "new_password2": NEW}
    assert here.post("/account/password/", right).status_code == 302
    assert here.get("/account/").status_code == 200
    assert there.get("/account/").status_code == 302


def test_a_token_is_shown_once_and_works_until_it_is_revoked(
    house: House, signed_in: SignIn
) -> None:
    client = signed_in(house.reader)
    created = client.post("/account/tokens/", {"name": "Intranet", "days": "30"})
    page = created.content.decode()
    row = ApiToken.objects.get(user=house.reader)
    token = next(
        word for word in Elements(page).text.split() if word.startswith("ka_") and len(word) > 20
    )
    assert ApiToken.resolve(token) == row
    assert row.scopes == ["read"]
    assert row.expires_at is not None
    assert token not in client.get("/account/").content.decode()
    client.post(f"/account/tokens/{row.pk}/revoke/")
    assert ApiToken.resolve(token) is None


def test_tokens_that_never_expire_and_may_write(house: House, signed_in: SignIn) -> None:
    body = {"name": "Sync", "days": "", "can_write": "on"}
    signed_in(house.reader).post("/account/tokens/", body)
    row = ApiToken.objects.get(user=house.reader)
    assert (row.expires_at, row.scopes) == (None, ["read", "write"])


@pytest.mark.parametrize("body", [{"name": "", "days": "30"}, {"name": "x", "days": "9999"}])
def test_a_senseless_token_is_refused(
    house: House, signed_in: SignIn, body: dict[str, str]
) -> None:
    assert signed_in(house.reader).post("/account/tokens/", body).status_code == 422
    assert not ApiToken.objects.exists()


def test_nobody_revokes_the_token_of_another(house: House, signed_in: SignIn) -> None:
    row, token = ApiToken.generate(house.reader, scopes=["read"])
    for user in (house.stranger, make_user(is_superuser=True)):
        assert signed_in(user).post(f"/account/tokens/{row.pk}/revoke/").status_code == 404
    assert ApiToken.resolve(token) == row


def test_a_deactivated_person_is_out_at_once(house: House, signed_in: SignIn) -> None:
    client = signed_in(house.reader)
    assert client.get("/").status_code == 200
    house.reader.is_active = False
    house.reader.save()
    assert client.get("/")["Location"].startswith("/sign-in/")


def test_administrators_make_users_and_read_the_trail(db: None, signed_in: SignIn) -> None:
    admin = make_user(is_superuser=True)
    client = signed_in(admin)
    body = {"email": "New@Example.com", "name": "New", "usable_password": "true"}
    made = client.post("/admin/users/user/add/", body | {"password1": NEW, "password2": NEW})
    assert made.status_code == 302
    assert AuditEvent.objects.filter(action="user.create", actor_id=admin.pk).exists()
    assert sign_in(Client(), "new@example.com", NEW) == 302
    assert client.get("/admin/audit/auditevent/").status_code == 200
    event = AuditEvent.objects.first()
    assert event is not None
    assert client.post(f"/admin/audit/auditevent/{event.pk}/delete/").status_code == 403
    assert client.get("/admin/audit/auditevent/add/").status_code == 403
