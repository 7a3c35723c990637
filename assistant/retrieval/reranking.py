"""The reranker's word on the candidates, or a note why it has none.

A reranker makes results better; it must never cost them. What fails or is late leaves the order of
the fusion, and one that keeps failing is left alone for a while.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from time import monotonic
from typing import Final

from django.conf import settings

from inference.types import EngineError, Reranker

logger = logging.getLogger(__name__)

# Questions with their answers. Who guesses finds one of six; four or more, one time in a hundred.
PROBES: Final = (
    ("When does the canteen open?", "Lunch is served in the canteen from 11:30 to 14:00."),
    ("How do I reset my password?", "Choose a new password on the sign-in page under Forgotten."),
    ("Who approves business trips?", "Travel has to be approved by the head of department."),
    ("What is the capital of France?", "Paris is the capital and largest city of France."),
    ("How long is the warranty?", "The manufacturer's warranty covers defects for two years."),
    ("Why is the sky blue?", "Air scatters blue light of the sun more than red light."),
)
PROBES_TO_PASS: Final = 4
_FAILURES: Final = 3
_REST_SECONDS: Final = 30.0


@dataclass(frozen=True, slots=True)
class Reranked:
    """``scores`` in the order of the texts, None where there are none; ``note`` says why."""

    scores: list[float] | None = None
    note: str = ""


@dataclass(slots=True)
class _Breaker:
    """Of this process: after ``_FAILURES`` in a row nobody waits for the reranker for a while."""

    failures: int = 0
    closed_until: float = 0.0

    @property
    def is_open(self) -> bool:
        return monotonic() < self.closed_until

    def failed(self) -> None:
        self.failures += 1
        if self.failures >= _FAILURES:
            self.closed_until = monotonic() + _REST_SECONDS
            self.failures = _FAILURES - 1  # one more failure afterwards opens it again

    def worked(self) -> None:
        self.failures = 0


_breaker = _Breaker()
USELESS: Final = (
    "Judged questions showed that the reranker does not help; it is not asked. Another one may:"
    " see RERANKER_MODEL."
)
_RESTING: Final = Reranked(note="The reranker failed several times and is left alone for a while.")


def rerank(reranker: Reranker, query: str, texts: Sequence[str]) -> Reranked:
    """Waits at most as long as the client does. Never raises what an engine raises."""
    if _breaker.is_open:
        return _RESTING
    try:
        return _checked(reranker.rerank(query, texts), texts)
    except EngineError as error:
        return _failed(error.detail)


async def arerank(reranker: Reranker, query: str, texts: Sequence[str]) -> Reranked:
    """As ``rerank``, without a thread, for at most RERANKER_TIMEOUT_SECONDS."""
    if _breaker.is_open:
        return _RESTING
    try:
        async with asyncio.timeout(settings.RERANKER_TIMEOUT_SECONDS):
            return _checked(await reranker.arerank(query, texts), texts)
    except EngineError as error:
        return _failed(error.detail)
    except TimeoutError:
        return _failed(
            f"The reranker took longer than {settings.RERANKER_TIMEOUT_SECONDS} seconds. Results"
            " are shown in the order of the search."
        )


def probed(reranker: Reranker) -> int:
    """For how many of ``PROBES`` the best of all their answers is the right one.

    Raises EngineError.
    """
    answers = [answer for _, answer in PROBES]
    right = 0
    for at, (question, _) in enumerate(PROBES):
        scores = reranker.rerank(question, answers)
        right += all(scores[at] > score for other, score in enumerate(scores) if other != at)
    return right


def reset() -> None:
    """Forget failures; for tests."""
    _breaker.failures, _breaker.closed_until = 0, 0.0


def _checked(scores: list[float], texts: Sequence[str]) -> Reranked:
    if len(scores) != len(texts):
        return _failed("The reranker did not score every text.")
    _breaker.worked()
    return Reranked(scores)


def _failed(why: str) -> Reranked:
    _breaker.failed()
    logger.warning("reranking failed: %s", why)
    return Reranked(note=why)
