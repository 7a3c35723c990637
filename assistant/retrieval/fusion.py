"""One ranking out of two arms.

A convex mix of scores scaled to [0, 1], which keeps how far apart the candidates are; reciprocal
ranks throw that away. Bruch, Gai and Ingber, "An Analysis of Fusion Functions for Hybrid
Retrieval" (2023), and the figures of ``manage.py evaluate`` say the same.
"""

from __future__ import annotations

from assistant.retrieval.vector import Ranked

VECTOR_WEIGHT = 0.5


def fuse(vector: list[Ranked], keyword: list[Ranked]) -> list[Ranked]:
    """Best first, scores in [0, 1]. A chunk that only one arm found gets 0 from the other."""
    if not vector or not keyword:
        return _scaled(vector or keyword)
    mixed: dict[int, float] = {}
    for ranked, weight in ((vector, VECTOR_WEIGHT), (keyword, 1 - VECTOR_WEIGHT)):
        for item in _scaled(ranked):
            mixed[item.chunk_id] = mixed.get(item.chunk_id, 0.0) + weight * item.score
    return [
        Ranked(chunk_id, score)
        for chunk_id, score in sorted(mixed.items(), key=lambda pair: (-pair[1], pair[0]))
    ]


def _scaled(ranked: list[Ranked]) -> list[Ranked]:
    """Min-max scaling of one arm's scores; a single candidate, or equal ones, count fully."""
    if not ranked:
        return []
    top, bottom = ranked[0].score, ranked[-1].score
    span = top - bottom
    return [
        Ranked(item.chunk_id, (item.score - bottom) / span if span > 0 else 1.0) for item in ranked
    ]
