"""How many cards so many people need: arithmetic with its assumptions in the open.

Little's law for the streams at once, tokens in and out for the work, and the KV cache for what fits
on a card. The throughputs are planning figures, on the low side of what is published for vLLM with
prompts of a few thousand tokens; measure your own with `vllm bench serve` and pass them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

_GIB: Final = 1024**3


@dataclass(frozen=True, slots=True)
class Model:
    """``weights`` in bytes as loaded. A token costs KV memory in the layers with full attention;
    the others keep 128 tokens a stream (config.json of the model)."""

    name: str
    weights: float
    full_layers: int
    sliding_layers: int
    kv_heads: int = 8
    head_dim: int = 64

    def kv_bytes(self, tokens: int, *, bytes_a_number: int = 2) -> float:
        """Of one stream that holds ``tokens``."""
        a_layer = 2 * self.kv_heads * self.head_dim * bytes_a_number
        return a_layer * (self.full_layers * tokens + self.sliding_layers * min(tokens, 128))


MODELS: Final = {
    "gpt-oss-20b": Model("gpt-oss-20b", 13.7 * _GIB, full_layers=12, sliding_layers=12),
    "gpt-oss-120b": Model("gpt-oss-120b", 63.0 * _GIB, full_layers=18, sliding_layers=18),
}


@dataclass(frozen=True, slots=True)
class Card:
    """``memory`` in bytes. Tokens a second of all streams together: written, and read."""

    name: str
    memory: float
    decode: dict[str, float]
    prefill: dict[str, float]


def _card(name: str, gib: float, *, small: tuple[float, float], large: tuple[float, float]) -> Card:
    rates = {"gpt-oss-20b": small, "gpt-oss-120b": large}
    return Card(
        name,
        gib * _GIB,
        {model: decode for model, (decode, _) in rates.items()},
        {model: prefill for model, (_, prefill) in rates.items()},
    )


CARDS: Final = {
    "H100": _card("H100", 80, small=(6000, 40000), large=(3000, 20000)),
    "H200": _card("H200", 141, small=(7500, 42000), large=(4000, 22000)),
    "A100": _card("A100", 80, small=(3000, 15000), large=(1500, 8000)),
    "L40S": _card("L40S", 48, small=(1800, 10000), large=(0, 0)),
    "24GB": _card("24GB", 24, small=(900, 6000), large=(0, 0)),
}


@dataclass(frozen=True, slots=True)
class Demand:
    """What people do. Tokens are of one answer; ``peak`` is the busiest minutes over the mean."""

    users: int
    questions_per_hour: float = 4.0
    active_share: float = 0.3
    peak: float = 3.0
    prompt_tokens: int = 4500
    cached_share: float = 0.2
    answer_tokens: int = 350
    reasoning_tokens: int = 300
    tokens_per_second: float = 30.0

    @property
    def per_second(self) -> float:
        """Answers begun a second in the busiest minutes."""
        return self.users * self.active_share * self.questions_per_hour * self.peak / 3600

    @property
    def written(self) -> float:
        """Tokens a second to write."""
        return self.per_second * (self.answer_tokens + self.reasoning_tokens)

    @property
    def read(self) -> float:
        """Tokens a second to read, without those that a prefix cache has."""
        return self.per_second * self.prompt_tokens * (1 - self.cached_share)

    @property
    def streams(self) -> float:
        """Answers being written at once, each at the speed that is wanted."""
        seconds = (self.answer_tokens + self.reasoning_tokens) / self.tokens_per_second
        return self.per_second * seconds


@dataclass(frozen=True, slots=True)
class Plan:
    """``cards`` in all, in ``replicas`` of ``per_replica``; ``reason`` says what decided."""

    cards: int
    per_replica: int
    replicas: int
    streams_per_replica: int
    reason: str


def plan(
    demand: Demand,
    model: Model,
    card: Card,
    *,
    memory_share: float = 0.9,
    decode: float | None = None,
    prefill: float | None = None,
) -> Plan:
    """Raises ValueError when the model does not run on the card.

    ``decode`` and ``prefill`` are measured tokens a second of one card, instead of the table's.
    """
    written = decode or card.decode[model.name]
    read = prefill or card.prefill[model.name]
    if not (written and read):
        raise ValueError(f"{model.name} is not planned on {card.name}: it has no room for it.")
    tokens = demand.prompt_tokens + demand.answer_tokens + demand.reasoning_tokens
    stream = model.kv_bytes(tokens)
    # Both kinds of work share a card: their shares of a second add up; a fifth stays free.
    work = (demand.written / written + demand.read / read) / 0.8
    plans = [
        _plan(per_replica, room / stream, work, demand.streams)
        for per_replica in (1, 2, 4, 8)
        if (room := _room(model, card, per_replica, memory_share)) >= 8 * stream
    ]
    if not plans:
        raise ValueError(f"{model.name} does not fit on {card.name}.")
    return min(plans, key=lambda found: (found.cards, found.per_replica))


def _plan(per_replica: int, fitting: float, work: float, streams: float) -> Plan:
    by_work, by_memory = math.ceil(work / per_replica), math.ceil(streams / math.floor(fitting))
    replicas = max(1, by_work, by_memory)
    reason = "one holds all of it"
    if replicas > 1:
        reason = "cache for the streams at once" if by_memory > by_work else "tokens a second"
    return Plan(replicas * per_replica, per_replica, replicas, math.floor(fitting), reason)


def _room(model: Model, card: Card, cards: int, memory_share: float) -> float:
    """Bytes for the cache. Tensor parallelism splits the weights; 4 GiB a card are vLLM's own."""
    return cards * (card.memory * memory_share - 4 * _GIB) - model.weights
