"""Settings become clients: several servers, a small model, models to choose from."""

from __future__ import annotations

import pytest
from django.conf import LazySettings
from django.core.exceptions import ImproperlyConfigured

from assistant import engines
from inference.extractive import ExtractiveLLM
from inference.routing import RoutedLLM


def servers(llm: object) -> list[str]:
    assert isinstance(llm, RoutedLLM)
    return [endpoint.llm.base_url for endpoint in llm.endpoints]


def test_several_addresses_are_servers_of_one_model(settings: LazySettings) -> None:
    settings.LLM_BASE_URL = "http://a:8000/v1, http://b:8000/v1"
    settings.LLM_MODEL = "m"
    assert servers(engines.llm()) == ["http://a:8000/v1", "http://b:8000/v1"]
    assert engines.small_llm() is engines.llm()


def test_keys_are_one_for_all_or_one_for_each(settings: LazySettings) -> None:
    settings.LLM_BASE_URL = "http://a/v1,http://b/v1,http://c/v1"
    settings.LLM_API_KEY = "one,two"
    with pytest.raises(ImproperlyConfigured, match="3 language model servers and 2 keys"):
        engines.llm()


def test_a_small_model_rewrites(settings: LazySettings, fake_embedder: object) -> None:
    settings.LLM_SMALL_MODEL = "small"
    assert isinstance(engines.small_llm(), ExtractiveLLM)  # nothing is connected
    settings.LLM_BASE_URL, settings.LLM_MODEL = "http://a/v1", "large"
    engines.reset()
    assert servers(engines.small_llm()) == servers(engines.llm())
    assert (engines.small_llm().model, engines.llm().model) == ("small", "large")


def test_models_to_choose_from_and_who_may(settings: LazySettings) -> None:
    settings.LLM_BASE_URL, settings.LLM_API_KEY = "http://a/v1", "secret"
    settings.LLM_MODELS = [
        {"name": "tax"},
        {"name": "Thorough", "model": "120b", "base_url": "http://big/v1", "groups": ["Legal"]},
    ]
    assert [c.name for c in engines.choices_for([])] == ["tax"]
    tax, thorough = engines.choices_for(["Legal", "Others"])
    assert (tax.model, tax.base_url, tax.api_key) == ("tax", "http://a/v1", "secret")
    assert thorough.api_key == ""  # no key goes to another server
    assert "secret" not in repr(tax)
    assert servers(engines.chosen_llm(thorough)) == ["http://big/v1"]


@pytest.mark.parametrize("entry", ["tax", {}, {"name": "a", "models": "b"}])
def test_a_model_that_is_not_understood_is_named(settings: LazySettings, entry: object) -> None:
    settings.LLM_MODELS = [entry]
    with pytest.raises(ImproperlyConfigured, match="LLM_MODELS"):
        engines.model_choices()
