"""What keeps a page from running or loading anything that is not ours."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from django.apps import apps
from django.contrib.staticfiles.storage import staticfiles_storage
from django.core.management import call_command
from django.db import OperationalError
from django.test import Client, RequestFactory
from pytest_django import Settings

from assistant.web.views.errors import server_error
from tests.factories import make_user
from tests.web.conftest import House, SignIn
from tests.web.markup import Elements

ROOT = Path(apps.get_app_config("assistant").path).parent
OUR_SCRIPTS = sorted((ROOT / "assistant" / "static" / "js").glob("*.js"))
OUR_STYLES = sorted((ROOT / "assistant" / "static" / "css").glob("*.css"))
TEMPLATES = sorted((ROOT / "templates").rglob("*.html"))


def test_every_page_forbids_inline_code_foreign_hosts_and_caches(
    house: House, signed_in: SignIn
) -> None:
    client = signed_in(make_user(is_superuser=True))
    for path in (
        "/",
        "/library/",
        f"/library/{house.collection.pk}/",
        f"/documents/{house.document.pk}/",
        "/account/",
        "/admin/",
        "/no-such-page",
        "/health/live",
    ):
        response = client.get(path)
        policy = response["Content-Security-Policy"]
        for directive in ("default-src 'none'", "script-src 'self'", "style-src 'self'"):
            assert re.search(rf"(^|; ){re.escape(directive)}(;|$)", policy), (path, directive)
        assert "unsafe" not in policy
        assert response["Cache-Control"] == "no-store"
        assert response["X-Content-Type-Options"] == "nosniff"
        assert response["X-Frame-Options"] == "DENY"
        assert response["Referrer-Policy"] == "same-origin"


def test_pages_hold_no_inline_script_or_style(house: House, signed_in: SignIn) -> None:
    client = signed_in(house.manager)
    paths = ["/", "/library/", "/account/", f"/documents/{house.document.pk}/"]
    paths += [f"/library/{house.collection.pk}/{end}" for end in ("", "share/", "settings/")]
    for path in paths:
        for tag, attributes in Elements(client.get(path).content.decode()).found:
            assert tag != "style", path
            assert tag != "script" or attributes.get("src"), path
            assert not [n for n in attributes if n == "style" or n.startswith(("on", "hx-on"))]
            for name in ("src", "href", "action"):
                assert not attributes.get(name, "").startswith(("http", "//", "javascript:")), path


def test_forms_need_their_token(house: House) -> None:
    client = Client(enforce_csrf_checks=True)
    client.force_login(house.manager, backend="django.contrib.auth.backends.ModelBackend")
    for path in ("/", "/library/", f"/library/{house.collection.pk}/upload/", "/sign-out/"):
        response = client.post(path, {"name": "x", "content": "x"})
        assert response.status_code == 403
    page = client.get("/").content.decode()
    token = re.search(r'"X-CSRFToken": "(\w+)"', page)
    assert token
    assert client.cookies["csrf"]["httponly"]
    created = client.post("/library/", {"name": "x"}, headers={"X-CSRFToken": token[1]})
    assert created.status_code == 302


def test_the_theme_is_in_the_first_byte(house: House, signed_in: SignIn) -> None:
    client = signed_in(house.reader)
    assert "data-theme" not in client.get("/").content.decode().split(">", 2)[1]
    for value, shown in (("dark", True), ("light", True), ('"><script>', False)):
        client.cookies["theme"] = value
        head = client.get("/").content.decode().split("<head>")[0]
        assert (f'data-theme="{value}"' in head) == shown


@pytest.mark.parametrize("script", OUR_SCRIPTS, ids=lambda path: path.name)
def test_scripts_never_parse_strings_as_html_or_code(script: Path) -> None:
    source = script.read_text()
    forbidden = r"innerHTML|outerHTML\s*=|insertAdjacentHTML|document\.write|\beval\(|new Function"
    assert not re.search(forbidden + r"|DOMParser|srcdoc|https?://(?!www\.w3\.org)", source)


@pytest.mark.parametrize("style", OUR_STYLES, ids=lambda path: path.name)
def test_styles_load_nothing_from_elsewhere(style: Path) -> None:
    assert all(
        url.startswith("../fonts/") for url in re.findall(r"url\(([^)]*)\)", style.read_text())
    )


@pytest.mark.parametrize("template", TEMPLATES, ids=lambda path: path.name)
def test_templates_escape_everything(template: Path) -> None:
    source = template.read_text()
    assert not re.search(r"\|\s*safe\b|autoescape|mark_safe|<style|\sstyle=|\son\w+=", source)


def test_only_the_renderer_marks_strings_as_safe() -> None:
    users = [
        path.name
        for path in (ROOT / "assistant").rglob("*.py")
        if re.search(r"\bmark_safe\(", path.read_text())
    ]
    assert users == ["rendering.py"]


@pytest.mark.parametrize("name", ["400", "403", "403_csrf", "404", "500", "503"])
def test_error_pages_need_no_request(name: str) -> None:
    from django.template import loader

    text = loader.get_template(f"{name}.html").render()
    assert "<h1>" in text
    assert "{{" not in text


def test_a_lost_database_is_a_503_that_says_when_to_come_back() -> None:
    def failing(error: Exception) -> tuple[int, str | None]:
        try:
            raise error
        except type(error):
            response = server_error(RequestFactory().get("/"))
        return response.status_code, response.headers.get("Retry-After")

    assert failing(OperationalError("secret host")) == (503, "5")
    assert failing(ValueError("secret")) == (500, None)


def test_modules_import_each_other_by_hashed_names(tmp_path: Path, settings: Settings) -> None:
    settings.STATIC_ROOT = tmp_path
    settings.STORAGES = {
        **settings.STORAGES,
        "staticfiles": {"BACKEND": "assistant.web.staticfiles.ModuleManifestStorage"},
    }
    call_command("collectstatic", "--noinput", verbosity=0)
    imports: list[str] = []
    for name in ("answer-stream", "markdown", "app", "upload-zone"):
        hashed = staticfiles_storage.url(f"js/{name}.js").rsplit("/", 1)[1]
        assert re.fullmatch(rf"{name}\.[0-9a-f]{{12}}\.js", hashed)
        source = (tmp_path / "js" / hashed).read_text()
        imports += re.findall(r'^import .* from "([^"]+)";', source, re.MULTILINE)
    assert len(imports) >= 5
    for imported in imports:
        assert re.search(r"\.[0-9a-f]{12}\.js$", imported), imported
        assert (tmp_path / "js" / imported).resolve().is_file()
