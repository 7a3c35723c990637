"""Settings to live clients. Everything that thinks is reached through these functions."""

from __future__ import annotations

from functools import cache
from typing import cast

from django.conf import settings

from inference.embedder import HTTPEmbedder
from inference.embedding_models import EmbeddingModel, resolve_model
from inference.extractive import ExtractiveLLM
from inference.llm import OpenAIChatLLM
from inference.reranker import HTTPReranker
from inference.tokens import load_token_counter
from inference.types import LLM, Effort, Embedder, EmbeddingSpec, Reranker, TokenCounter


@cache
def llm() -> LLM:
    """The language model, or the extractive engine when none is connected."""
    if settings.LLM_BASE_URL:
        return OpenAIChatLLM(
            settings.LLM_BASE_URL,
            settings.LLM_MODEL,
            api_key=settings.LLM_API_KEY or None,
            first_token_timeout=settings.LLM_FIRST_TOKEN_TIMEOUT_SECONDS,
            inter_token_timeout=settings.LLM_INTER_TOKEN_TIMEOUT_SECONDS,
            send_cache_salt=settings.LLM_CACHE_SALT,
        )
    return ExtractiveLLM(embedder())


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
    """None when no reranker is configured."""
    if not (settings.RERANKER_BASE_URL and settings.RERANKER_MODEL):
        return None
    return HTTPReranker(
        settings.RERANKER_BASE_URL,
        settings.RERANKER_MODEL,
        api_key=settings.RERANKER_API_KEY or None,
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
_CACHED = (llm, embedder, embedder_for, reranker, token_counter, token_counter_for)
