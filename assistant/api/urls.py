"""Every address of the API. What is not here is a 404 problem, never a redirect."""

from __future__ import annotations

from django.urls import URLPattern, path, re_path

from assistant.api import problems
from assistant.api.answers import AnswerEventsView, AnswersView, AnswerViewSet
from assistant.api.collections import CollectionViewSet
from assistant.api.conversations import ConversationViewSet
from assistant.api.documents import DocumentViewSet
from assistant.api.schema import SchemaView
from assistant.api.search import SearchView

app_name = "api"

urlpatterns: list[URLPattern] = [
    path("schema/", SchemaView.as_view(), name="schema"),
    path(
        "v1/collections/",
        CollectionViewSet.as_view({"get": "list", "post": "create"}),
        name="collections",
    ),
    path(
        "v1/collections/<uuid:pk>/",
        CollectionViewSet.as_view(
            {"get": "retrieve", "patch": "partial_update", "delete": "destroy"}
        ),
        name="collection",
    ),
    path(
        "v1/collections/<uuid:pk>/grants/",
        CollectionViewSet.as_view({"get": "grants", "put": "replace_grants"}),
        name="grants",
    ),
    path(
        "v1/documents/",
        DocumentViewSet.as_view({"get": "list", "post": "create"}),
        name="documents",
    ),
    path("v1/documents/batch/", DocumentViewSet.as_view({"post": "batch"}), name="batch"),
    path(
        "v1/documents/<uuid:pk>/",
        DocumentViewSet.as_view({"get": "retrieve", "delete": "destroy"}),
        name="document",
    ),
    path("v1/documents/<uuid:pk>/file", DocumentViewSet.as_view({"get": "file"}), name="file"),
    path("v1/documents/<uuid:pk>/retry", DocumentViewSet.as_view({"post": "retry"}), name="retry"),
    path(
        "v1/documents/<uuid:pk>/cancel",
        DocumentViewSet.as_view({"post": "cancel"}),
        name="cancel",
    ),
    path("v1/search/", SearchView.as_view(), name="search"),
    path("v1/answers/", AnswersView.as_view(), name="answers"),
    path("v1/answers/<uuid:pk>/", AnswerViewSet.as_view({"get": "retrieve"}), name="answer"),
    path("v1/answers/<uuid:pk>/events", AnswerEventsView.as_view(), name="events"),
    path("v1/answers/<uuid:pk>/stop", AnswerViewSet.as_view({"post": "stop"}), name="stop"),
    path(
        "v1/answers/<uuid:pk>/feedback",
        AnswerViewSet.as_view({"post": "feedback"}),
        name="feedback",
    ),
    path(
        "v1/conversations/",
        ConversationViewSet.as_view({"get": "list", "post": "create"}),
        name="conversations",
    ),
    path(
        "v1/conversations/<uuid:pk>/",
        ConversationViewSet.as_view(
            {"get": "retrieve", "patch": "partial_update", "delete": "destroy"}
        ),
        name="conversation",
    ),
    path(
        "v1/conversations/<uuid:pk>/messages/",
        ConversationViewSet.as_view({"post": "ask"}),
        name="messages",
    ),
    re_path("", problems.not_found, name="not-found"),
]
