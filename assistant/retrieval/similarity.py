"""How near texts are under a model, and how near unrelated ones: where its scale of cosines begins.

MiniLM puts unrelated texts at about 0; models of the e5 family, trained at a temperature of 0.01,
put them at 0.7 and all others above. The floor is measured once for each space and process, on
texts that have nothing to do with each other or with the site's documents.
"""

from __future__ import annotations

import asyncio
from typing import Final

import numpy as np

from assistant.per_loop import PerLoop
from assistant.retrieval import spaces
from inference.types import Embedder, Vectors

PROBES: Final = (
    "How long does bread dough have to rest before baking?",
    "The committee elected a new treasurer in its autumn meeting.",
    "Torque of a three-phase induction motor at low speed",
    "Penguins lose their feathers once a year and stay ashore.",
    "Which visa do musicians need for a concert tour?",
    "Quarterly revenue of the shipping division fell by two percent.",
)
_floors: dict[int, float] = {}
_learning = PerLoop(asyncio.Lock)


def floor_of(space_id: int, embedder: Embedder) -> float:
    """Measured when it is first asked for. Raises EngineError then."""
    if space_id not in _floors:
        _learn(space_id, embedder.embed(PROBES, kind="query"))
    return _floors[space_id]


async def afloor_of(space_id: int, embedder: Embedder) -> float:
    """As ``floor_of``; of all who ask at once after a start, one measures it."""
    if space_id not in _floors:
        async with _learning():
            if space_id not in _floors:
                _learn(space_id, await embedder.aembed(PROBES, kind="query"))
    return _floors[space_id]


async def nearness(first: str, second: str) -> float:
    """Of two questions under the model that is searched: 0 for unrelated ones, 1 for the same.

    0 before the first document. Raises EngineError.
    """
    space = await spaces.alast_seen()
    if space is None:
        return 0.0
    embedder = spaces.embedder_of(space)
    one, other = await embedder.aembed((first, second), kind="query")
    floor = await afloor_of(space.pk, embedder)
    return (float(one @ other) - floor) / (1 - floor)


def _learn(space_id: int, vectors: Vectors) -> None:
    """Keep the mean cosine between the ``PROBES``, whose vectors are shape (6, dimension)."""
    cosines = vectors @ vectors.T
    floor = float(cosines[~np.eye(len(vectors), dtype=bool)].mean())
    _floors[space_id] = min(max(floor, 0.0), 0.95)
