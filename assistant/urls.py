from django.urls import URLPattern, URLResolver, include, path

urlpatterns: list[URLPattern | URLResolver] = [
    path("api/", include("assistant.api.urls")),
    path("", include("assistant.web.urls")),
]
