"""What tests of retrieval share."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from assistant import database
from assistant.retrieval import arms


@pytest.fixture
def room(settings: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[int], None]]:
    """The arms are asked side by side, whatever is visible. Makes a pool of so many connections, a
    quarter of which may be beside.
    """

    def make(connections: int) -> None:
        settings.DATABASE_POOL_SIZE = connections
        database._beside.cache_clear()

    monkeypatch.setattr(arms, "BESIDE_FROM", 0)
    make(20)
    yield make
    database._beside.cache_clear()
