from typing import Any

from django.apps import AppConfig
from django.db.models.signals import post_migrate


class RetrievalConfig(AppConfig):
    name = "assistant.retrieval"
    label = "retrieval"

    def ready(self) -> None:
        post_migrate.connect(_ensure_reader_role, sender=self)


def _ensure_reader_role(*, using: str, plan: Any = (), **_kwargs: Any) -> None:
    """After every migration and restore: rights on tables are no part of either."""
    from assistant.retrieval import row_security

    if using == "default":
        row_security.ensure_role()
