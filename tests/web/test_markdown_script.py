"""static/js/markdown.js in a real browser: the same structure as the server's, and as harmless."""

from __future__ import annotations

import mimetypes
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from django.apps import apps
from playwright.sync_api import Dialog, Page, Route, sync_playwright

from assistant.web.rendering import render_answer
from tests.web.markup import Elements, dangers_in
from tests.web.test_rendering import LINKS, OURS, commonmark_examples, payloads

STATIC = Path(apps.get_app_config("assistant").path) / "static"
ORIGIN = "http://site.test"
CSP = "default-src 'none'; script-src 'self'"
PROBE = """
import { MarkdownView } from "/static/js/markdown.js";
const links = new Map(%s);
window.draw = (text) => {
  const box = document.createElement("div");
  document.body.replaceChildren(box);
  new MarkdownView(box).update(text, links);
  return box.innerHTML;
};
window.stream = (text) => {
  const box = document.createElement("div");
  const view = new MarkdownView(box);
  for (let end = 1; end <= text.length; end += 7) view.update(text.slice(0, end), links);
  view.update(text, links);
  return box.innerHTML;
};
document.documentElement.dataset.ready = "yes";
"""

pytestmark = pytest.mark.e2e


@pytest.fixture(scope="module")
def page() -> Iterator[Page]:
    """An empty page of an origin that exists in this browser only; it counts what leaves it."""
    chromium = shutil.which("chromium")
    if chromium is None:
        pytest.skip("no chromium on PATH")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        page = browser.new_page()
        page.route("**/*", _serve)
        page.goto(f"{ORIGIN}/")
        page.wait_for_selector("html[data-ready]")
        yield page
        browser.close()


def _serve(route: Route) -> None:
    place = urlsplit(route.request.url)
    if f"{place.scheme}://{place.netloc}" != ORIGIN:
        route.abort()
    elif place.path == "/":
        html = "<!DOCTYPE html><script type=module src=/probe.js></script>"
        route.fulfill(body=html, content_type="text/html", headers={"Content-Security-Policy": CSP})
    elif place.path == "/probe.js":
        pairs = str([[number, urls] for number, urls in LINKS.items()])
        route.fulfill(body=PROBE % pairs, content_type="text/javascript")
    elif place.path.startswith("/static/"):
        file = STATIC / place.path.removeprefix("/static/")
        kind = mimetypes.guess_type(file.name)[0] or "text/plain"
        route.fulfill(body=file.read_bytes(), content_type=kind)
    else:
        route.abort()


def structure(html: str) -> tuple[list[Any], str]:
    """Tags with their attributes, and the words; white space between blocks does not count."""
    read = Elements(html)
    found = [(tag, sorted(attributes.items())) for tag, attributes in read.found]
    return found, "".join(read.text.split())


def test_the_browser_draws_what_the_server_renders(page: Page, shared_data: Path) -> None:
    examples = [*commonmark_examples(shared_data), "A [1], b [2][1]; c [1, 2]; d [9]; e `[1]`."]
    different = [
        text
        for text, drawn in zip(
            examples, page.evaluate("(all) => all.map(window.draw)", examples), strict=True
        )
        if structure(drawn) != structure(render_answer(text, LINKS))
    ]
    assert different == []


def test_streaming_ends_in_the_same_page(page: Page, shared_data: Path) -> None:
    whole = "\n\n".join(commonmark_examples(shared_data)[:120:3]) + "\n\nEnd [1], [2] and [1]."
    assert page.evaluate("window.stream", whole) == page.evaluate("window.draw", whole)


def test_no_payload_runs_loads_or_leads_away(page: Page, shared_data: Path) -> None:
    """Payloads are drawn into the live page, where a script would run and an image would load."""
    ran: list[str] = []
    left: list[str] = []

    def dismiss(dialog: Dialog) -> None:
        ran.append(dialog.message)
        dialog.dismiss()

    page.on("dialog", dismiss)
    page.on(
        "request",
        lambda request: left.append(request.url) if not request.url.startswith(ORIGIN) else None,
    )
    tried = payloads(shared_data)
    for drawn in page.evaluate("(all) => all.map(window.draw)", tried):
        assert dangers_in(drawn, allowed_links=OURS) == []
    page.wait_for_timeout(200)
    assert (ran, left) == ([], [])
