from __future__ import annotations

import pytest

from assistant.documents.models import Collection
from assistant.users.models import User
from tests.factories import make_collection, make_user


@pytest.fixture
def contributor() -> User:
    return make_user()


@pytest.fixture
def collection(contributor: User) -> Collection:
    return make_collection(contributors=[contributor])
