from django.apps import AppConfig


class UsersConfig(AppConfig):
    name = "assistant.users"
    label = "users"
