"""What inference/serving ships for vLLM: configurations, the guard in front of it, sizing."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from inference.serving.sizing import CARDS, MODELS, Demand, plan

ROOT = Path(__file__).resolve().parents[2]
CONFIGURATIONS = sorted((ROOT / "inference" / "serving" / "vllm").glob("*.yaml"))
GUARD = (ROOT / "docker" / "model-guard.conf.template").read_text(encoding="utf-8")
NEEDED = {
    "/v1/chat/completions": "POST",
    "/v1/embeddings": "POST",
    "/v1/rerank": "POST",
    "/v1/models": "GET",
    "/health": "GET",
    "/metrics": "GET",
}
# Served by vLLM 0.32 beside them, from its own route table.
OTHERS = (
    "/", "/v1/completions", "/v1/responses", "/v1/load_lora_adapter", "/v1/unload_lora_adapter",
    "/tokenize", "/detokenize", "/tokenizer_info", "/start_profile", "/stop_profile", "/sleep",
    "/wake_up", "/reset_prefix_cache", "/collective_rpc", "/invocations", "/ping", "/version",
    "/load", "/docs", "/openapi.json", "/server_info", "/pooling", "/score", "/rerank", "/classify",
    "/scale_elastic_ep", "/update_weights", "/v1/chat/completions/render", "/v1/chat/completions/",
    "/v1//chat/completions", "/v1/models/x", "/metrics/x", "//metrics", "/health/../sleep",
)  # fmt: skip


def passes(path: str, method: str) -> bool:
    """What nginx does: an exact location wins, else the prefix that matches all."""
    blocks: dict[str, str] = dict(
        re.findall(r"location ((?:= )?\S+) \{(.*?)\n    \}", GUARD, re.DOTALL)
    )
    block = blocks.get(f"= {path}") or blocks["/"]
    if "proxy_pass http://model;" not in block:
        assert block.strip() == "return 404;"
        return False
    wanted = "POST" if "$is_post = 0" in block else "GET"
    assert f"if ($is_{wanted.lower()} = 0) {{ return 404; }}" in block
    return method == wanted or (wanted == "GET" and method == "HEAD")


def test_the_guard_passes_what_is_needed_and_nothing_else() -> None:
    assert {path: m for path, m in NEEDED.items() if passes(path, m)} == NEEDED
    assert [path for path in OTHERS for m in ("GET", "POST", "PUT") if passes(path, m)] == []
    assert not passes("/v1/chat/completions", "GET")
    assert not passes("/v1/models", "DELETE")


def test_the_guard_has_no_other_kind_of_location() -> None:
    """Neither prefixes nor regular expressions: exact paths, and the one that refuses."""
    found = re.findall(r"^\s*location (.+) \{", GUARD, re.MULTILINE)
    assert set(found) == {*(f"= {path}" for path in NEEDED), "/"}
    assert GUARD.count("proxy_pass") == len(NEEDED)


def test_a_reader_who_leaves_is_not_hidden_from_the_engine() -> None:
    assert "proxy_ignore_client_abort off;" in GUARD
    assert "proxy_buffering off;" in GUARD


@pytest.mark.parametrize("path", CONFIGURATIONS, ids=lambda path: path.stem)
def test_configurations_are_fit_for_retrieval(path: Path) -> None:
    given: dict[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))
    assert given["enable-prefix-caching"] is True
    assert given["tool-call-parser"] == "openai"
    assert given["max-model-len"] >= 8192
    assert given.get("stream-interval", 1) <= 4
    assert given.get("gpu-memory-utilization", 0) <= 0.95
    if "120b" in path.stem:
        assert given["served-model-name"] == "openai/gpt-oss-120b"


def test_every_configuration_is_in_the_guide() -> None:
    guide = (ROOT / "inference" / "serving" / "README.md").read_text(encoding="utf-8")
    assert len(CONFIGURATIONS) > 5
    assert [path.name for path in CONFIGURATIONS if f"`{path.name}`" not in guide] == []


def test_a_token_of_cache_is_what_the_models_say() -> None:
    """24 layers, half with full attention, 8 heads of 64, key and value of two bytes each."""
    assert MODELS["gpt-oss-20b"].kv_bytes(1000) == 2048 * 12 * (1000 + 128)


def test_more_people_never_need_fewer_cards() -> None:
    for model in MODELS.values():
        for card in (CARDS["H100"], CARDS["H200"], CARDS["A100"]):
            cards = [plan(Demand(users), model, card).cards for users in (1, 100, 2000, 20000)]
            assert cards == sorted(cards)
            assert cards[0] == 1
            assert cards[-1] > 1


def test_measured_figures_replace_the_table() -> None:
    demand = Demand(20_000)
    model, card = MODELS["gpt-oss-20b"], CARDS["24GB"]
    assert (
        plan(demand, model, card, decode=1e6, prefill=1e7).cards
        < plan(demand, model, card, decode=500, prefill=3000).cards
    )
    with pytest.raises(ValueError, match="no room"):
        plan(demand, MODELS["gpt-oss-120b"], card)
