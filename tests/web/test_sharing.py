from __future__ import annotations

from typing import Any

import pytest

from assistant.permissions.models import Grant
from tests.factories import make_group, make_user
from tests.web.conftest import House, SignIn


def grants(house: House) -> dict[str, str]:
    rows = Grant.objects.filter(collection=house.collection).select_related("user", "group")
    return {grant.subject: grant.get_role_display() for grant in rows}


def kept(house: House) -> dict[str, Any]:
    """The form as it is shown: three people with their roles."""
    return {
        "subject": [f"user:{u.email}" for u in (house.reader, house.contributor, house.manager)],
        "role": ["reader", "contributor", "manager"],
    }


def test_the_whole_list_is_saved(house: House, signed_in: SignIn) -> None:
    group = make_group(name="HR: leave")
    form = kept(house) | {"new_kind": "group", "new_name": group.name, "new_role": "contributor"}
    form["role"] = ["contributor", "remove", "manager"]
    response = signed_in(house.manager).post(f"/library/{house.collection.pk}/share/", form)
    assert response.status_code == 302
    assert grants(house) == {
        house.reader.email: "contributor",
        house.manager.email: "manager",
        "HR: leave": "contributor",
    }


def test_everyone_can_be_added(house: House, signed_in: SignIn) -> None:
    form = kept(house) | {"new_kind": "everyone", "new_role": "reader"}
    signed_in(house.manager).post(f"/library/{house.collection.pk}/share/", form)
    assert grants(house)["everyone"] == "reader"
    assert signed_in(house.stranger).get(f"/library/{house.collection.pk}/").status_code == 200


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            {"new_kind": "user", "new_name": "nobody@example.com", "new_role": "reader"},
            "no active user",
        ),
        ({"new_kind": "group", "new_name": "Nobody", "new_role": "reader"}, "no group"),
        ({"new_kind": "robot", "new_name": "R2", "new_role": "reader"}, "Choose a person"),
        ({"role": ["reader", "contributor", "owner"]}, "no role owner"),
        ({"role": ["reader", "contributor", "reader"]}, "as manager"),
    ],
)
def test_a_wrong_line_changes_nothing(
    house: House, signed_in: SignIn, change: dict[str, Any], words: str
) -> None:
    before = grants(house)
    response = signed_in(house.manager).post(
        f"/library/{house.collection.pk}/share/", kept(house) | change
    )
    assert response.status_code == 422
    assert words in response.content.decode()
    assert grants(house) == before


def test_only_managers_share(house: House, signed_in: SignIn) -> None:
    path = f"/library/{house.collection.pk}/share/"
    before = grants(house)
    mine = kept(house) | {"role": ["manager", "manager", "manager"]}
    for user, status in ((house.reader, 403), (house.contributor, 403), (house.stranger, 404)):
        assert signed_in(user).get(path).status_code == status
        assert signed_in(user).post(path, mine).status_code == status
    assert grants(house) == before


def test_leaving_leads_back_to_the_library(house: House, signed_in: SignIn) -> None:
    other = make_user()
    form = kept(house) | {"new_kind": "user", "new_name": other.email, "new_role": "manager"}
    form["role"] = ["reader", "contributor", "remove"]
    response = signed_in(house.manager).post(f"/library/{house.collection.pk}/share/", form)
    assert response["Location"] == "/library/"
    assert signed_in(house.manager).get(f"/library/{house.collection.pk}/").status_code == 404


def test_other_peoples_groups_are_not_suggested(house: House, signed_in: SignIn) -> None:
    mine, secret = make_group(name="Mine"), make_group(name="Redundancies")
    house.manager.groups.add(mine)
    text = signed_in(house.manager).get(f"/library/{house.collection.pk}/share/").content.decode()
    assert "Mine" in text
    assert secret.name not in text
