"""The same file elsewhere: a notice for whoever may read that place, and nothing for others."""

from __future__ import annotations

from django.db.models import F, Q

from assistant.documents.models import Document, DocumentVersion
from assistant.permissions.policy import AnyUser


def twin_of(version: DocumentVersion, *, user: AnyUser) -> Document | None:
    """Another document that ``user`` may read and that holds the same bytes now; the oldest.

    None when there is none and when there is one that the user must not know of.
    """
    twin = (
        DocumentVersion.objects.for_user(user)
        .filter(sha256=version.sha256, document__deleted_at=None)
        .filter(
            Q(pk=F("document__latest_version"))  # an older version is no longer the document
            | Q(pk=F("document__current_version"))
        )
        .exclude(document=version.document_id)
        .select_related("document__collection")
        .order_by("document__created_at", "document_id")
        .first()
    )
    return twin.document if twin else None
