from django.apps import AppConfig


class PermissionsConfig(AppConfig):
    name = "assistant.permissions"
    label = "permissions"
