from django.apps import AppConfig


class WebConfig(AppConfig):
    name = "assistant.web"
    label = "web"
