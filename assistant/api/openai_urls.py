"""Addresses of the OpenAI-compatible API, as its clients expect them."""

from __future__ import annotations

from django.urls import URLPattern, path, re_path

from assistant.api import openai

app_name = "openai"

urlpatterns: list[URLPattern] = [
    path("models", openai.ModelsView.as_view(), name="models"),
    path("models/<path:model>", openai.ModelView.as_view(), name="model"),
    path("chat/completions", openai.ChatCompletionsView.as_view(), name="completions"),
    re_path("", openai.not_found, name="not-found"),
]
