from __future__ import annotations

import pytest

from inference.endpoints import Circuit, Endpoint, Load, parse_load
from inference.llm import OpenAIChatLLM
from inference.types import EngineError
from tests.inference.wire import capture

OLD_NAMES = """
# HELP vllm:num_requests_waiting Number of requests waiting.
vllm:num_requests_running{engine="0",model_name="m"} 3.0
vllm:num_requests_running{engine="1",model_name="m"} 2.0
vllm:num_requests_waiting{model_name="m"} 7
vllm:num_requests_waiting_by_reason{reason="capacity"} 99
vllm:gpu_cache_usage_perc{model_name="m"} 2.5e-01
"""


def test_load_is_read_under_old_and_new_names_over_all_engines() -> None:
    assert parse_load(OLD_NAMES) == Load(running=5, waiting=7, kv_usage=0.25)
    assert parse_load("vllm:num_requests_running 4") == Load(running=4)


def test_a_page_without_the_names_says_nothing() -> None:
    assert parse_load("process_cpu_seconds_total 4\n") is None


def test_the_load_of_a_captured_page() -> None:
    assert parse_load(capture("oss-25-metrics").text) == Load()


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_a_circuit_opens_after_failures_in_a_row_and_lets_one_trial_through() -> None:
    clock = Clock()
    circuit = Circuit(failures=3, pause=2, longest=5, clock=clock)
    circuit.failed()
    circuit.failed()
    circuit.succeeded()
    circuit.failed()
    circuit.failed()
    seen = [circuit.is_open]
    circuit.failed()
    seen.append(circuit.is_open)
    clock.now = 2.0
    seen.append(circuit.is_open)  # due for a trial
    circuit.begin()
    seen.append(circuit.is_open)  # for all others
    circuit.failed()
    clock.now = 5.9
    seen.append(circuit.is_open)  # twice the pause
    clock.now = 6.0
    circuit.begin()
    circuit.left()
    seen.append(circuit.is_open)  # whoever tried went away: somebody else may
    circuit.begin()
    circuit.succeeded()
    assert seen == [False, True, False, True, True, False]
    assert circuit.is_closed


def test_late_failures_of_earlier_requests_do_not_lengthen_the_pause() -> None:
    clock = Clock()
    circuit = Circuit(failures=1, pause=2, clock=clock)
    circuit.failed()
    circuit.failed()
    clock.now = 2.0
    assert not circuit.is_open


@pytest.mark.parametrize(
    ("url", "name"),
    [("http://user:secret@gpu:8000/v1", "gpu:8000"), ("https://llm.example/v1/", "llm.example")],
)
def test_a_server_is_named_without_its_credentials(url: str, name: str) -> None:
    assert Endpoint(OpenAIChatLLM(url, "m")).name == name


def test_what_the_request_did_wrong_is_not_held_against_the_server() -> None:
    endpoint = Endpoint(OpenAIChatLLM("http://gpu:8000/v1", "m"))
    for _ in range(5):
        endpoint.failed(EngineError("llm_context_too_long", "Too long.", retryable=False))
    assert endpoint.circuit.is_closed
    endpoint.failed(EngineError("llm_unauthorized", "Wrong key.", retryable=False))
    assert endpoint.circuit.is_open
