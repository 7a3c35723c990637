"""What the model servers are seen to do, for Prometheus. ``server`` is host and port."""

from __future__ import annotations

from typing import Final

from prometheus_client import Counter, Gauge, Histogram

REQUESTS: Final = Counter(
    "llm_requests_total",
    "Requests to a language model server, by how they ended (an error code, or ok, left)",
    ["server", "outcome"],
)
TOKENS: Final = Counter("llm_tokens_total", "Tokens as the server counted them", ["kind"])
FIRST_TOKEN: Final = Histogram(
    "llm_first_token_seconds",
    "From sending a request to the first token, reasoning included",
    ["server"],
    buckets=(0.05, 0.1, 0.25, 0.5, 1, 2, 4, 8, 15, 30, 60),
)
FAILOVERS: Final = Counter(
    "llm_failovers_total", "Requests given to another server before anything was shown"
)
MARKUP: Final = Counter("llm_markup_stripped_total", "Leaked harmony markers taken out of answers")
EMPTY: Final = Counter(
    "llm_empty_answers_total", "Answers whose whole budget went into reasoning, before any retry"
)
# Several processes look at the same servers: the one that looked last knows most.
UP: Final = Gauge(
    "llm_server_up",
    "1 when requests are given to the server, 0 while its circuit is open",
    ["server"],
    multiprocess_mode="mostrecent",
)
RUNNING: Final = Gauge(
    "llm_server_running",
    "Requests the server works on, as it says",
    ["server"],
    multiprocess_mode="mostrecent",
)
WAITING: Final = Gauge(
    "llm_server_waiting",
    "Requests waiting in the server, as it says",
    ["server"],
    multiprocess_mode="mostrecent",
)
KV_USAGE: Final = Gauge(
    "llm_server_kv_usage",
    "Share of its KV cache in use, 0 to 1",
    ["server"],
    multiprocess_mode="mostrecent",
)
