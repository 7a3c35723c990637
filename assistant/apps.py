from django.apps import AppConfig


class AssistantConfig(AppConfig):
    """Carries the management commands; the models live in the apps below."""

    name = "assistant"
    label = "assistant"

    def ready(self) -> None:
        """Make the Celery application current, or messages would go to no broker."""
        from assistant import celery  # noqa: F401
