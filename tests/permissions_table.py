"""Who may call what: one row for every route, read by ``test_permissions_matrix.py``.

A row is a list of calls. Everything that no row allows must be refused with 405.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from tests.factories import PASSWORD, file_named

PERSONAS = (
    "anonymous",
    "stranger",
    "reader",
    "contributor",
    "manager",
    "superuser",
    "deactivated",
)


class Outcome(Enum):
    OK = "allowed"
    LOGIN = "asked to sign in"
    HIDDEN = "404, as for what is not there"
    LOW = "403: visible, but the role is too low"


Policy = Mapping[str, Outcome]


def _policy(
    *,
    stranger: Outcome,
    reader: Outcome,
    contributor: Outcome,
    manager: Outcome,
    superuser: Outcome,
    nobody: Outcome = Outcome.LOGIN,
) -> Policy:
    return {
        "anonymous": nobody,
        "deactivated": nobody,
        "stranger": stranger,
        "reader": reader,
        "contributor": contributor,
        "manager": manager,
        "superuser": superuser,
    }


OK, LOGIN, HIDDEN, LOW = Outcome.OK, Outcome.LOGIN, Outcome.HIDDEN, Outcome.LOW
PUBLIC: Policy = dict.fromkeys(PERSONAS, OK)
SIGNED_IN = _policy(stranger=OK, reader=OK, contributor=OK, manager=OK, superuser=OK)
READ = _policy(stranger=HIDDEN, reader=OK, contributor=OK, manager=OK, superuser=OK)
CONTRIBUTE = _policy(stranger=HIDDEN, reader=LOW, contributor=OK, manager=OK, superuser=OK)
# For a reader there is no such page.
CONTRIBUTE_UNSEEN = _policy(
    stranger=HIDDEN, reader=HIDDEN, contributor=OK, manager=OK, superuser=OK
)
# For who manages nothing there is no such page.
MANAGE_UNSEEN = _policy(
    stranger=HIDDEN, reader=HIDDEN, contributor=HIDDEN, manager=OK, superuser=OK
)
MANAGE = _policy(stranger=HIDDEN, reader=LOW, contributor=LOW, manager=OK, superuser=OK)
# Conversations, answers and tokens in the matrix belong to the reader, and to nobody else.
OWN = _policy(stranger=HIDDEN, reader=OK, contributor=HIDDEN, manager=HIDDEN, superuser=HIDDEN)
# Whoever manages every source of an answer may see what it was made from.
INSPECT = _policy(stranger=HIDDEN, reader=OK, contributor=HIDDEN, manager=OK, superuser=OK)
STAFF = _policy(stranger=LOGIN, reader=LOGIN, contributor=LOGIN, manager=LOGIN, superuser=OK)
SECRET = _policy(
    stranger=HIDDEN,
    reader=HIDDEN,
    contributor=HIDDEN,
    manager=HIDDEN,
    superuser=OK,
    nobody=HIDDEN,
)
SITE = _policy(stranger=HIDDEN, reader=HIDDEN, contributor=HIDDEN, manager=HIDDEN, superuser=OK)
NOTHING: Policy = dict.fromkeys(PERSONAS, HIDDEN)


@dataclass(frozen=True)
class Call:
    """One method of a route. ``ok`` are the statuses of whoever is allowed.

    ``scope`` is what a token needs; None where tokens count for nothing.
    """

    method: str
    policy: Policy
    ok: tuple[int, ...] = (200,)
    scope: str | None = None
    data: Callable[[Any], Any] | None = None
    is_form: bool = False


@dataclass(frozen=True)
class Row:
    """``target`` names what of the world ``pk`` in the address is, ``names`` what else is in it."""

    calls: tuple[Call, ...]
    target: str = ""
    path: str = ""
    names: Mapping[str, str] = field(default_factory=dict)
    others: tuple[int, ...] = (405,)


def api(
    method: str,
    policy: Policy,
    *,
    ok: int = 200,
    scope: str = "read",
    data: Callable[[Any], Any] | None = None,
    is_form: bool = False,
) -> Call:
    return Call(method, policy, (ok,), scope, data, is_form)


def page(method: str, policy: Policy, *ok: int, data: Any = None) -> Call:
    return Call(method, policy, ok or (200,), None, data, is_form=True)


def _constant(value: Any) -> Callable[[Any], Any]:
    return lambda world: value


def _text(value: bytes = b"# New\n\nText.") -> Any:
    return file_named("new.md", value)


API_ROWS: dict[str, Row] = {
    "api:schema": Row((api("GET", SIGNED_IN),)),
    "api:collections": Row(
        (
            api("GET", SIGNED_IN),
            api("POST", SIGNED_IN, ok=201, scope="write", data=_constant({"name": "x"})),
        )
    ),
    "api:collection": Row(
        (
            api("GET", READ),
            api("PATCH", MANAGE, scope="write", data=_constant({"name": "x"})),
            api("DELETE", MANAGE, ok=204, scope="write"),
        ),
        target="collection",
    ),
    "api:grants": Row(
        (
            api("GET", MANAGE),
            api(
                "PUT",
                MANAGE,
                scope="write",
                data=lambda w: {"grants": [{"user": w.manager.email, "role": "manager"}]},
            ),
        ),
        target="collection",
    ),
    "api:documents": Row(
        (
            api("GET", SIGNED_IN),
            api(
                "POST",
                CONTRIBUTE,
                ok=202,
                scope="write",
                data=lambda w: {"collection": str(w.collection.pk), "file": _text()},
                is_form=True,
            ),
        )
    ),
    "api:batch": Row(
        (
            api(
                "POST",
                CONTRIBUTE,
                ok=202,
                scope="write",
                data=lambda w: {
                    "collection": str(w.collection.pk),
                    "documents": [{"external_id": "n", "title": "N", "text": "New."}],
                },
            ),
        )
    ),
    "api:document": Row(
        (api("GET", READ), api("DELETE", CONTRIBUTE, ok=204, scope="write")), target="document"
    ),
    "api:file": Row((api("GET", READ),), target="document"),
    "api:retry": Row((api("POST", CONTRIBUTE, ok=202, scope="write"),), target="failed"),
    "api:cancel": Row((api("POST", CONTRIBUTE, scope="write"),), target="queued"),
    "api:retry-documents": Row(
        (
            api(
                "POST",
                SIGNED_IN,
                ok=202,
                scope="write",
                data=lambda w: {"documents": [str(w.failed.pk)]},
            ),
        )
    ),
    "api:cancel-documents": Row(
        (
            api(
                "POST",
                SIGNED_IN,
                scope="write",
                data=lambda w: {"documents": [str(w.queued.pk)]},
            ),
        )
    ),
    "api:batch-progress": Row((api("GET", CONTRIBUTE),), target="batch"),
    "api:batch-retry": Row((api("POST", CONTRIBUTE, ok=202, scope="write"),), target="batch"),
    "api:batch-cancel": Row((api("POST", CONTRIBUTE, scope="write"),), target="batch"),
    "api:versions": Row(
        (
            api("GET", READ),
            api(
                "POST",
                CONTRIBUTE,
                ok=202,
                scope="write",
                data=lambda w: {"file": _text()},
                is_form=True,
            ),
        ),
        target="document",
    ),
    "api:restore": Row(
        (api("POST", CONTRIBUTE, ok=202, scope="write"),),
        target="document",
        names={"number": "number"},
    ),
    "api:disable": Row((api("POST", CONTRIBUTE, scope="write"),), target="document"),
    "api:enable": Row((api("POST", CONTRIBUTE, scope="write"),), target="document"),
    "api:chunks": Row((api("GET", CONTRIBUTE_UNSEEN),), target="document"),
    "api:search": Row(
        (
            api(
                "POST",
                READ,
                data=lambda w: {"query": "canteen", "collections": [str(w.collection.pk)]},
            ),
        )
    ),
    "api:answers": Row(
        (
            api(
                "POST",
                READ,
                data=lambda w: {"question": "canteen?", "collections": [str(w.collection.pk)]},
            ),
        )
    ),
    "api:answer": Row((api("GET", OWN),), target="answer"),
    "api:events": Row((api("GET", OWN),), target="answer"),
    "api:bundle": Row((api("GET", INSPECT),), target="answer"),
    "api:replay": Row((api("POST", INSPECT),), target="answer"),
    "api:again": Row(
        (api("POST", OWN, ok=202, data=_constant({"effort": "high"})),), target="answer"
    ),
    "api:stop": Row((api("POST", OWN, ok=204),), target="answer"),
    "api:feedback": Row((api("POST", OWN, data=_constant({"rating": "up"})),), target="answer"),
    "api:conversations": Row(
        (
            api("GET", SIGNED_IN),
            api(
                "POST",
                READ,
                ok=201,
                data=lambda w: {"collections": [str(w.collection.pk)]},
            ),
        )
    ),
    "api:conversation": Row(
        (
            api("GET", OWN),
            api("PATCH", OWN, scope="write", data=_constant({"title": "x"})),
            api("DELETE", OWN, ok=204, scope="write"),
        ),
        target="conversation",
    ),
    "api:messages": Row(
        (api("POST", OWN, ok=202, data=_constant({"content": "And where?"})),),
        target="conversation",
    ),
    "api:attachments": Row(
        (
            api("GET", OWN),
            api("POST", OWN, ok=202, scope="write", data=lambda w: {"file": _text()}, is_form=True),
        ),
        target="conversation",
    ),
    "api:attachment": Row(
        (api("DELETE", OWN, ok=204, scope="write"),),
        target="conversation",
        names={"document": "attachment"},
    ),
    "openai:models": Row((api("GET", SIGNED_IN),)),
    "openai:model": Row((api("GET", SIGNED_IN),), path="/v1/models/knowledge"),
    "openai:completions": Row(
        (
            api(
                "POST",
                READ,
                data=lambda w: {
                    "model": f"knowledge:{w.collection.name}",
                    "messages": [{"role": "user", "content": "canteen?"}],
                },
            ),
        )
    ),
    "openai:not-found": Row(
        tuple(Call(m, NOTHING) for m in ("GET", "POST", "PUT", "PATCH", "DELETE")),
        path="/v1/nothing",
    ),
    "api:not-found": Row(
        tuple(Call(m, NOTHING) for m in ("GET", "POST", "PUT", "PATCH", "DELETE")),
        path="/api/v1/nothing/",
    ),
}

WEB_ROWS: dict[str, Row] = {
    "chat": Row(
        (
            page("GET", SIGNED_IN),
            page("POST", SIGNED_IN, 302, data=_constant({"content": "When?"})),
        )
    ),
    "history": Row((page("GET", SIGNED_IN),)),
    "conversation": Row(
        (
            page("GET", OWN),
            page("POST", OWN, 302, data=_constant({"content": "And where?"})),
        ),
        target="conversation",
    ),
    "conversation-rename": Row(
        (page("GET", OWN), page("POST", OWN, 302, data=_constant({"title": "x"}))),
        target="conversation",
    ),
    "conversation-attachments": Row((page("GET", OWN),), target="conversation"),
    "conversation-detach": Row(
        (page("POST", OWN, 302),), target="conversation", names={"document": "attachment"}
    ),
    "conversation-delete": Row((page("POST", OWN, 302),), target="conversation"),
    "answer-fragment": Row((page("GET", OWN),), target="answer"),
    "answer-stop": Row((page("POST", OWN, 302),), target="answer"),
    "message-edit": Row(
        (page("POST", OWN, 302, data=_constant({"content": "When, please?"})),), target="question"
    ),
    "message-choose": Row((page("POST", OWN, 302),), target="question"),
    "answer-follow-ups": Row((page("GET", OWN),), target="answer"),
    "answer-again": Row((page("POST", OWN, 302),), target="answer"),
    "answer-bundle": Row((page("GET", INSPECT), page("POST", INSPECT)), target="answer"),
    "answer-send": Row((page("POST", OWN, 302),), target="answer"),
    "open-questions": Row((page("GET", MANAGE_UNSEEN),)),
    "open-question": Row(
        (page("POST", MANAGE_UNSEEN, 302, data=_constant({"status": "answered"})),),
        target="open_question",
    ),
    "answer-feedback": Row(
        (page("GET", OWN), page("POST", OWN, 302, data=_constant({"rating": "up"}))),
        target="answer",
    ),
    "library": Row(
        (
            page("GET", SIGNED_IN),
            page("POST", SIGNED_IN, 302, data=_constant({"name": "x"})),
        )
    ),
    "collection": Row((page("GET", READ),), target="collection"),
    "collection-documents": Row((page("GET", READ),), target="collection"),
    "collection-bulk": Row(
        (
            page(
                "POST",
                CONTRIBUTE,
                302,
                data=lambda w: {"action": "delete", "documents": [str(w.document.pk)]},
            ),
        ),
        target="collection",
    ),
    "collection-upload": Row(
        (page("POST", CONTRIBUTE, 302, data=lambda w: {"file": _text()}),), target="collection"
    ),
    "batch": Row((page("GET", CONTRIBUTE),), target="collection", names={"batch": "batch"}),
    "batch-change": Row(
        (page("POST", CONTRIBUTE, 302, data=_constant({"action": "retry"})),),
        target="collection",
        names={"batch": "batch"},
    ),
    "collection-share": Row(
        (
            page("GET", MANAGE),
            page(
                "POST",
                MANAGE,
                302,
                data=lambda w: {"subject": [f"user:{w.manager.email}"], "role": ["manager"]},
            ),
        ),
        target="collection",
    ),
    "collection-settings": Row(
        (page("GET", MANAGE), page("POST", MANAGE, 302, data=_constant({"name": "x"}))),
        target="collection",
    ),
    "collection-delete": Row(
        (page("POST", MANAGE, 302, data=lambda w: {"confirm": w.collection.name}),),
        target="collection",
    ),
    "document": Row((page("GET", READ),), target="document"),
    "document-change": Row(
        (page("POST", CONTRIBUTE, 302, data=_constant({"action": "disable"})),), target="document"
    ),
    "document-replace": Row(
        (page("POST", CONTRIBUTE, 302, data=lambda w: {"file": _text()}),), target="document"
    ),
    "document-chunks": Row((page("GET", CONTRIBUTE_UNSEEN),), target="document"),
    "login": Row(
        (
            page("GET", PUBLIC, 200, 302),
            page("POST", PUBLIC, 200, 302),
            page("PUT", PUBLIC, 200, 302),
        ),
        others=(405, 302),  # whoever is signed in is sent on
    ),
    "logout": Row((page("POST", PUBLIC, 302),)),
    "account": Row((page("GET", SIGNED_IN),)),
    "account-password": Row(
        (
            page(
                "POST",
                SIGNED_IN,
                302,
                data=_constant(
                    {
                        "old_password": PASSWORD,
                        "new_password1": "another long passphrase",
                        "new_password2": "another long passphrase",
                    }
                ),
            ),
        )
    ),
    "account-tokens": Row(
        (page("POST", SIGNED_IN, 200, data=_constant({"name": "script", "days": "30"})),)
    ),
    "account-token-revoke": Row((page("POST", OWN, 302),), target="token"),
    "retrieval": Row((page("GET", MANAGE_UNSEEN),)),
    "retrieval-quality": Row((page("GET", SITE),)),
    "embedding-model": Row(
        (
            page("GET", SITE),
            page("POST", SITE, 302, data=_constant({"action": "start", "model": "no-such-model"})),
        )
    ),
    "health-live": Row((page("GET", PUBLIC),)),
    "health-ready": Row((page("GET", PUBLIC, 200, 503),)),
    "metrics": Row((page("GET", SECRET),)),
    "admin-login": Row(
        tuple(page(m, PUBLIC, 302) for m in ("GET", "POST", "PUT", "PATCH", "DELETE"))
    ),
}

_MODELS = (
    "auth_group",
    "axes_accessattempt",
    "axes_accesslog",
    "axes_accessfailurelog",
    "users_user",
    "audit_auditevent",
)
_PAGES = ("changelist", "add", "history", "delete", "change")
# The administration is Django's: whoever is no staff is asked to sign in, everywhere and always.
ADMIN_ROUTES: frozenset[str] = frozenset(
    {
        *(f"admin:{model}_{name}" for model in _MODELS for name in _PAGES),
        *(f"admin/{model.replace('_', '/')}/<path:object_id>/" for model in _MODELS),
        "admin:auth_user_password_change",
        "admin:index",
        "admin:login",
        "admin:logout",
        "admin:password_change",
        "admin:password_change_done",
        "admin:autocomplete",
        "admin:jsi18n",
        "admin:view_on_site",
        "admin:app_list",
        "admin/(?P<url>.*)$",
    }
)
TABLE: dict[str, Row] = {**API_ROWS, **WEB_ROWS}
