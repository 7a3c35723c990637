"""Settings to live clients. Everything that thinks is reached through these functions."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from functools import cache
from itertools import cycle
from typing import Any, cast

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured

from inference.embedder import HTTPEmbedder
from inference.embedding_models import EmbeddingModel, resolve_model
from inference.endpoints import Endpoint
from inference.extractive import ExtractiveLLM
from inference.llm import OpenAIChatLLM
from inference.reranker import HTTPReranker
from inference.routing import RoutedLLM
from inference.tokens import load_token_counter
from inference.types import LLM, Effort, Embedder, EmbeddingSpec, Reranker, TokenCounter

# The longest that a token is held, where hundreds of streams have one: a third less work for each.
COALESCE_SECONDS = 0.05


@dataclass(frozen=True, slots=True)
class ModelChoice:
    """A model that people may choose instead of the site's own, such as a larger one.

    ``model`` is its name at the servers of ``base_url`` (a LoRA adapter has one of its own).
    ``groups``: who may choose it; empty: everybody.
    """

    name: str
    model: str
    base_url: str
    api_key: str = field(repr=False)
    groups: frozenset[str] = frozenset()


@cache
def llm() -> LLM:
    """The language model that answers, or the extractive engine when none is connected."""
    if settings.LLM_BASE_URL:
        return _routed(settings.LLM_BASE_URL, settings.LLM_API_KEY, model=settings.LLM_MODEL)
    return ExtractiveLLM(embedder())


def small_llm() -> LLM:
    """For rewriting and titles: the small model where one is set, else the one that answers."""
    return _small_llm() if settings.LLM_SMALL_MODEL and settings.LLM_BASE_URL else llm()


@cache
def _small_llm() -> LLM:
    base_url, key = settings.LLM_SMALL_BASE_URL, settings.LLM_SMALL_API_KEY
    return _routed(*_server(base_url, key), model=settings.LLM_SMALL_MODEL)


@cache
def model_choices() -> tuple[ModelChoice, ...]:
    """All of LLM_MODELS, in order. Raises ImproperlyConfigured naming what is wrong."""
    choices = tuple(_choice(entry) for entry in settings.LLM_MODELS)
    if len({choice.name for choice in choices}) != len(choices):
        raise ImproperlyConfigured("LLM_MODELS has two models of the same name.")
    return choices


def choices_for(groups: Collection[str]) -> tuple[ModelChoice, ...]:
    """The models that a member of ``groups`` may choose."""
    return tuple(c for c in model_choices() if not c.groups or c.groups.intersection(groups))


@cache
def chosen_llm(choice: ModelChoice) -> LLM:
    """The client of a chosen model. Whether the person may choose it was asked before."""
    return _routed(choice.base_url, choice.api_key, model=choice.model)


def _choice(entry: Any) -> ModelChoice:
    known = {"name", "model", "base_url", "api_key", "groups"}
    if not isinstance(entry, dict) or not set(entry) <= known or not entry.get("name"):
        raise ImproperlyConfigured(
            f"LLM_MODELS: each entry is an object with `name` and of {', '.join(sorted(known))}."
        )
    base_url, api_key = _server(str(entry.get("base_url", "")), str(entry.get("api_key", "")))
    return ModelChoice(
        name=str(entry["name"]),
        model=str(entry.get("model") or entry["name"]),
        base_url=base_url,
        api_key=api_key,
        groups=frozenset(map(str, entry.get("groups") or ())),
    )


def _server(base_url: str, api_key: str) -> tuple[str, str]:
    """The site's own servers with their key where none are named: no key goes to strangers."""
    return (base_url, api_key) if base_url else (settings.LLM_BASE_URL, settings.LLM_API_KEY)


def _routed(base_urls: str, api_keys: str, *, model: str) -> RoutedLLM:
    """The servers of one model. Raises ImproperlyConfigured when keys and servers do not match."""
    urls = [url.strip() for url in base_urls.split(",") if url.strip()]
    keys = [key.strip() for key in api_keys.split(",") if key.strip()]
    if len(keys) > 1 and len(keys) != len(urls):
        raise ImproperlyConfigured(
            f"There are {len(urls)} language model servers and {len(keys)} keys: set one key for"
            " all of them, or one for each."
        )
    return RoutedLLM(
        [
            Endpoint(
                OpenAIChatLLM(
                    url,
                    model,
                    api_key=key or None,
                    first_token_timeout=settings.LLM_FIRST_TOKEN_TIMEOUT_SECONDS,
                    inter_token_timeout=settings.LLM_INTER_TOKEN_TIMEOUT_SECONDS,
                    send_cache_salt=settings.LLM_CACHE_SALT,
                    coalesce=COALESCE_SECONDS,
                )
            )
            for url, key in zip(urls, cycle(keys or [""]), strict=False)
        ]
    )


def default_effort() -> Effort:
    return cast("Effort", settings.LLM_EFFORT)


@cache
def embedder() -> Embedder:
    """The client of the embedding server; torch lives there, not here."""
    return HTTPEmbedder(
        settings.EMBEDDING_BASE_URL,
        resolve_model(settings.EMBEDDING_MODEL).spec,
        api_key=settings.EMBEDDING_API_KEY or None,
    )


@cache
def embedder_for(spec: EmbeddingSpec, *, source: str, base_url: str) -> Embedder:
    """The client of another model than the site's own, which our server loads when asked."""
    return HTTPEmbedder(
        base_url or settings.EMBEDDING_BASE_URL,
        spec,
        api_key=settings.EMBEDDING_API_KEY or None,
        source=source,
    )


@cache
def reranker() -> Reranker | None:
    """None when none is configured; without an address our embedding server has the model."""
    if not settings.RERANKER_MODEL:
        return None
    own = not settings.RERANKER_BASE_URL
    key = settings.EMBEDDING_API_KEY if own else settings.RERANKER_API_KEY
    return HTTPReranker(
        settings.EMBEDDING_BASE_URL if own else settings.RERANKER_BASE_URL,
        settings.RERANKER_MODEL,
        api_key=key or None,
        timeout=settings.RERANKER_TIMEOUT_SECONDS,
    )


@cache
def token_counter() -> TokenCounter:
    """Counts as the embedding model does."""
    return token_counter_for(resolve_model(settings.EMBEDDING_MODEL))


@cache
def token_counter_for(model: EmbeddingModel) -> TokenCounter:
    return load_token_counter(model)


def reset() -> None:
    """Forget all clients; for tests that change settings."""
    for cached in _CACHED:
        cached.cache_clear()


# The functions themselves: a test that puts another in a name's place leaves these to be reset.
_CACHED = (
    llm,
    _small_llm,
    model_choices,
    chosen_llm,
    embedder,
    embedder_for,
    reranker,
    token_counter,
    token_counter_for,
)
