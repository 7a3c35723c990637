from __future__ import annotations

from typing import Any

import pytest

from tests.factories import make_collection, make_user


@pytest.fixture
def ada(as_caller: Any) -> Any:
    return as_caller(make_user())


@pytest.fixture
def collection(ada: Any) -> Any:
    return make_collection(contributors=[ada.user])
