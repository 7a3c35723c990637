from django.apps import AppConfig


class AuditConfig(AppConfig):
    name = "assistant.audit"
    label = "audit"
