"""Every address of the API. What is not here is a 404 problem, never a redirect."""

from __future__ import annotations

from django.urls import URLPattern, path, re_path

from assistant.api import problems
from assistant.api.answers import AnswerEventsView, AnswersView, AnswerViewSet
from assistant.api.attachments import AttachmentViewSet
from assistant.api.batches import BatchViewSet, CancelDocumentsView, RetryDocumentsView
from assistant.api.bundles import BundleView, ReplayView
from assistant.api.collections import CollectionViewSet
from assistant.api.conversations import ConversationViewSet
from assistant.api.documents import DocumentViewSet
from assistant.api.schema import SchemaView
from assistant.api.search import SearchView
from assistant.api.versions import DocumentVersionsViewSet

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
    path("v1/documents/retry", RetryDocumentsView.as_view(), name="retry-documents"),
    path("v1/documents/cancel", CancelDocumentsView.as_view(), name="cancel-documents"),
    path(
        "v1/batches/<uuid:pk>/",
        BatchViewSet.as_view({"get": "retrieve"}),
        name="batch-progress",
    ),
    path("v1/batches/<uuid:pk>/retry", BatchViewSet.as_view({"post": "retry"}), name="batch-retry"),
    path(
        "v1/batches/<uuid:pk>/cancel",
        BatchViewSet.as_view({"post": "cancel"}),
        name="batch-cancel",
    ),
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
    path(
        "v1/documents/<uuid:pk>/versions/",
        DocumentVersionsViewSet.as_view({"get": "versions", "post": "add"}),
        name="versions",
    ),
    path(
        "v1/documents/<uuid:pk>/versions/<int:number>/restore",
        DocumentVersionsViewSet.as_view({"post": "restore"}),
        name="restore",
    ),
    path(
        "v1/documents/<uuid:pk>/disable",
        DocumentVersionsViewSet.as_view({"post": "disable"}),
        name="disable",
    ),
    path(
        "v1/documents/<uuid:pk>/enable",
        DocumentVersionsViewSet.as_view({"post": "enable"}),
        name="enable",
    ),
    path(
        "v1/documents/<uuid:pk>/chunks/",
        DocumentVersionsViewSet.as_view({"get": "chunks"}),
        name="chunks",
    ),
    path("v1/search/", SearchView.as_view(), name="search"),
    path("v1/answers/", AnswersView.as_view(), name="answers"),
    path("v1/answers/<uuid:pk>/", AnswerViewSet.as_view({"get": "retrieve"}), name="answer"),
    path("v1/answers/<uuid:pk>/events", AnswerEventsView.as_view(), name="events"),
    path("v1/answers/<uuid:pk>/bundle", BundleView.as_view(), name="bundle"),
    path("v1/answers/<uuid:pk>/replay", ReplayView.as_view(), name="replay"),
    path("v1/answers/<uuid:pk>/stop", AnswerViewSet.as_view({"post": "stop"}), name="stop"),
    path("v1/answers/<uuid:pk>/again", AnswerViewSet.as_view({"post": "again"}), name="again"),
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
        "v1/conversations/<uuid:pk>/attachments/",
        AttachmentViewSet.as_view({"get": "list", "post": "create"}),
        name="attachments",
    ),
    path(
        "v1/conversations/<uuid:pk>/attachments/<uuid:document>/",
        AttachmentViewSet.as_view({"delete": "destroy"}),
        name="attachment",
    ),
    path(
        "v1/conversations/<uuid:pk>/messages/",
        ConversationViewSet.as_view({"post": "ask"}),
        name="messages",
    ),
    re_path("", problems.not_found, name="not-found"),
]
