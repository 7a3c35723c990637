"""Rights over REST against the running system: a withdrawn one counts on the next request."""

from __future__ import annotations

import time
from typing import Any

import pytest

from tests.e2e.conftest import Site
from tests.e2e.test_browser import collection_with_files

pytestmark = pytest.mark.e2e
SHELL = """
from django.contrib.auth.models import Group
from assistant.users.models import User
user, _ = User.objects.get_or_create(email="reader@example.com")
group, _ = Group.objects.get_or_create(name="readers")
user.groups.{change}(group)
"""


def membership(site: Site, change: str) -> None:
    site.manage("shell", "-c", SHELL.format(change=change))


def test_leaving_a_group_hides_its_collection_at_once(live_site: Site) -> None:
    collection = collection_with_files(live_site, "Staff handbook")
    membership(live_site, "add")
    token = live_site.manage("createtoken", "reader@example.com").splitlines()[-1]
    grants = [
        {"user": live_site.admin_email, "role": "manager"},
        {"group": "readers", "role": "reader"},
    ]
    with live_site.api() as admin, live_site.api(token=token) as reader:
        admin.put(f"/collections/{collection}/grants/", json={"grants": grants}).raise_for_status()
        question = {"query": "annual leave", "collections": [collection]}
        found = reader.post("/search/", json=question).json()["results"]
        assert found
        document = found[0]["document"]["id"]
        answer = _ask(reader, "How many days of annual leave?")
        assert answer["citations"]
        membership(live_site, "remove")
        assert reader.post("/search/", json={"query": "annual leave"}).json()["results"] == []
        assert reader.post("/search/", json=question).status_code == 404
        assert reader.get(f"/documents/{document}/").status_code == 404
        assert reader.get(f"/documents/{document}/file").status_code == 404
        once = reader.post("/answers/", json={"question": "How many days of annual leave?"}).json()
        assert (once["citations"], once["abstained"]) == ([], True)
        again = reader.get(f"/answers/{answer['id']}/").json()
        assert "thirty" not in str(again)


def _ask(api: Any, question: str) -> dict[str, Any]:
    conversation = api.post("/conversations/", json={}).raise_for_status().json()
    asked = api.post(
        f"/conversations/{conversation['id']}/messages/", json={"content": question}
    ).raise_for_status()
    answer_id = asked.json()["answer"]["id"]
    deadline = time.monotonic() + 60
    while True:
        answer: dict[str, Any] = api.get(f"/answers/{answer_id}/").json()
        if answer["status"] not in ("pending", "streaming"):
            return answer
        assert time.monotonic() < deadline
        time.sleep(0.3)
