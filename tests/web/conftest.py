"""A reader, a contributor and a manager of one collection, a stranger, and signed-in clients."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import pytest
from django.test import Client
from pytest_django import Settings

from assistant.documents.models import Collection, Document
from assistant.users.models import User
from ingestion import workers
from tests.factories import make_collection, make_document, make_user

SignIn = Callable[[User], Client]
TEXT = "Opening hours\n\nThe canteen opens at noon.\n\nIt closes at three."


@dataclass(frozen=True)
class House:
    """One collection, one document in it, and a person of every kind."""

    reader: User
    contributor: User
    manager: User
    stranger: User
    collection: Collection
    document: Document


@pytest.fixture(autouse=True)
def plain_static_names(settings: Settings) -> None:
    """Pages name static files by their own names: nothing was collected for a test."""
    settings.STORAGES = {
        **settings.STORAGES,
        "staticfiles": {"BACKEND": "django.contrib.staticfiles.storage.StaticFilesStorage"},
    }


@pytest.fixture
def house(db: None) -> House:
    reader, contributor, manager, stranger = (make_user() for _ in range(4))
    collection = make_collection(
        name="Handbook", readers=[reader], contributors=[contributor], managers=[manager]
    )
    document = make_document(collection, text=TEXT, actor=manager)
    workers.sign("worker@test", workers.queues())
    return House(reader, contributor, manager, stranger, collection, document)


@pytest.fixture
def signed_in() -> SignIn:
    def sign_in(user: User) -> Client:
        client = Client()
        client.force_login(user, backend="django.contrib.auth.backends.ModelBackend")
        return client

    return sign_in
