"""The OpenAPI document is valid, complete, and says what the code does."""

from __future__ import annotations

import io
import re
from typing import Any

import pytest
from django.core.management import call_command
from django.urls import get_resolver
from openapi_spec_validator import validate

from tests.factories import make_user

OPERATIONS = {
    "add_version", "answer", "answer_events", "ask", "ask_again", "cancel_batch", "cancel_document",
    "cancel_documents", "create_collection", "disable_document", "enable_document", "get_batch",
    "list_chunks", "list_versions", "restore_version", "retry_batch", "retry_documents",
    "create_conversation", "delete_collection", "delete_conversation", "delete_document",
    "download_document", "get_answer", "get_collection", "get_conversation", "get_document",
    "get_grants", "get_schema", "list_collections", "list_conversations", "list_documents",
    "get_bundle", "rate_answer", "replay_answer", "replace_grants", "retry_document", "search",
    "stop_answer", "update_collection", "update_conversation",
    "upload_document", "upload_documents", "attach_file", "list_attachments", "detach_file",
}  # fmt: skip


@pytest.fixture
def schema(db: None, as_caller: Any) -> dict[str, Any]:
    answer = as_caller(make_user()).with_token("read").get("/api/schema/")
    assert answer.status_code == 200
    found: dict[str, Any] = answer.json()
    return found


def test_it_is_valid_openapi(schema: dict[str, Any]) -> None:
    validate(schema)


def test_it_is_made_without_warnings() -> None:
    call_command("spectacular", fail_on_warn=True, validate=True, stdout=io.StringIO())


def _operations(schema: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {
        operation["operationId"]: operation
        for methods in schema["paths"].values()
        for operation in methods.values()
    }


def test_it_names_every_operation(schema: dict[str, Any]) -> None:
    assert set(_operations(schema)) == OPERATIONS - {"get_schema"}


def test_it_has_every_route_of_the_api(schema: dict[str, Any]) -> None:
    resolver: Any = next(p for p in get_resolver().url_patterns if str(p.pattern) == "api/")
    routes = {
        "/api/" + re.sub("<[a-z]+:([a-z]+)>", r"{\1}", str(part.pattern).replace(":pk>", ":id>"))
        for part in resolver.url_patterns
        if part.name not in ("not-found", "schema")
    }
    assert routes == set(schema["paths"])


def test_every_operation_says_how_it_fails(schema: dict[str, Any]) -> None:
    for name, operation in _operations(schema).items():
        responses = operation["responses"]
        assert {"401", "403", "503"} <= set(responses), name
        for code, response in responses.items():
            if int(code) >= 400:
                assert list(response["content"]) == ["application/problem+json"], (name, code)
        assert operation["description"], name
        assert {"token": []} in operation["security"], name


def test_it_is_not_public(client: Any, db: None) -> None:
    assert client.get("/api/schema/").status_code == 401
