"""Pages. tests/test_permissions_matrix.py has a row for each of these names."""

from __future__ import annotations

from django.contrib import admin
from django.urls import URLPattern, URLResolver, path
from django.views.generic import RedirectView

from assistant.web.views import (
    accounts,
    attachments,
    batches,
    branches,
    bundles,
    chat,
    documents,
    health,
    library,
    model,
    questions,
    retrieval,
    sharing,
    uploads,
    versions,
)

urlpatterns: list[URLPattern | URLResolver] = [
    path("", chat.chat, name="chat"),
    path("history/", chat.history, name="history"),
    path("c/<uuid:pk>/", chat.conversation, name="conversation"),
    path("c/<uuid:pk>/rename/", chat.rename, name="conversation-rename"),
    path("c/<uuid:pk>/delete/", chat.delete, name="conversation-delete"),
    path("c/<uuid:pk>/attachments/", attachments.attachments, name="conversation-attachments"),
    path(
        "c/<uuid:pk>/attachments/<uuid:document>/delete/",
        attachments.detach,
        name="conversation-detach",
    ),
    path("messages/<uuid:pk>/edit/", branches.edit, name="message-edit"),
    path("messages/<uuid:pk>/choose/", branches.choose, name="message-choose"),
    path("answers/<uuid:pk>/", chat.answer_fragment, name="answer-fragment"),
    path("answers/<uuid:pk>/stop/", chat.stop, name="answer-stop"),
    path("answers/<uuid:pk>/again/", branches.ask_again, name="answer-again"),
    path("answers/<uuid:pk>/follow-ups/", branches.follow_ups, name="answer-follow-ups"),
    path("answers/<uuid:pk>/origin/", bundles.bundle, name="answer-bundle"),
    path("answers/<uuid:pk>/send/", questions.send, name="answer-send"),
    path("answers/<uuid:pk>/feedback/", chat.feedback, name="answer-feedback"),
    path("library/", library.library, name="library"),
    path("library/<uuid:pk>/", library.collection, name="collection"),
    path("library/<uuid:pk>/documents/", library.documents, name="collection-documents"),
    path("library/<uuid:pk>/documents/change/", library.bulk, name="collection-bulk"),
    path("library/<uuid:pk>/upload/", uploads.upload, name="collection-upload"),
    path("library/<uuid:pk>/uploads/<uuid:batch>/", batches.batch, name="batch"),
    path("library/<uuid:pk>/uploads/<uuid:batch>/change/", batches.change, name="batch-change"),
    path("library/<uuid:pk>/share/", sharing.share, name="collection-share"),
    path("library/<uuid:pk>/settings/", library.settings, name="collection-settings"),
    path("library/<uuid:pk>/delete/", library.delete, name="collection-delete"),
    path("documents/<uuid:pk>/", documents.document, name="document"),
    path("documents/<uuid:pk>/change/", versions.change, name="document-change"),
    path("documents/<uuid:pk>/replace/", versions.replace, name="document-replace"),
    path("documents/<uuid:pk>/chunks/", versions.chunks, name="document-chunks"),
    path("sign-in/", accounts.SignIn.as_view(), name="login"),
    path("sign-out/", accounts.SignOut.as_view(), name="logout"),
    path("account/", accounts.account, name="account"),
    path("account/password/", accounts.change_password, name="account-password"),
    path("account/tokens/", accounts.add_token, name="account-tokens"),
    path("account/tokens/<uuid:pk>/revoke/", accounts.remove_token, name="account-token-revoke"),
    path("questions/", questions.open_questions, name="open-questions"),
    path("questions/<uuid:pk>/", questions.open_question, name="open-question"),
    path("retrieval/", retrieval.retrieval, name="retrieval"),
    path("retrieval/quality/", retrieval.quality, name="retrieval-quality"),
    path("embedding-model/", model.embedding_model, name="embedding-model"),
    path("health/live", health.live, name="health-live"),
    path("health/ready", health.ready, name="health-ready"),
    path("metrics", health.metrics, name="metrics"),
    # One door for signing in, so that its limits hold for the administration pages too.
    path(
        "admin/login/",
        RedirectView.as_view(pattern_name="login", query_string=True),
        name="admin-login",
    ),
    path("admin/", admin.site.urls),
]
