from django.apps import AppConfig


class RetrievalConfig(AppConfig):
    name = "assistant.retrieval"
    label = "retrieval"
