from django.apps import AppConfig


class DocumentsConfig(AppConfig):
    name = "assistant.documents"
    label = "documents"
