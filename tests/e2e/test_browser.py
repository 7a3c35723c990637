"""What people do, in a real browser against the running system."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from playwright.sync_api import Browser, FilePayload, expect

from tests.e2e.conftest import Site, Visit, open_window, start_model
from tests.e2e.model_server import PREFACE

pytestmark = pytest.mark.e2e

HANDBOOK = {
    "leave.md": "# Leave\n\n## Annual leave\n\nFull-time employees earn thirty days of annual leave"
    " each year. Unused days expire at the end of March.\n\n## Sick leave\n\nReport sickness to"
    " your supervisor before ten in the morning.\n",
    "canteen.md": "# Canteen\n\nThe canteen opens at noon and closes at three. On Fridays it serves"
    " fish.\n",
    "travel.txt": "Travel policy\n\nTrains are booked by the travel desk. Flights under four hours"
    " are booked in economy class.\n",
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("files")
    for name, text in HANDBOOK.items():
        (folder / name).write_text(text)
    (folder / "empty.md").write_bytes(b"")
    (folder / "picture.pdf").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(100))
    return folder


def collection_with_files(site: Site, name: str) -> str:
    """Through the API, waiting until everything is searchable; returns the collection's id."""
    with site.api() as api:
        listed = api.get("/collections/").json()["results"]
        for found in listed:
            if found["name"] == name:
                return str(found["id"])
        made = api.post("/collections/", json={"name": name}).raise_for_status().json()
        documents = [
            {"external_id": key, "title": key.split(".")[0].title(), "text": text}
            for key, text in HANDBOOK.items()
        ]
        body = {"collection": made["id"], "documents": documents}
        api.post("/documents/batch/", json=body).raise_for_status()
        deadline = time.monotonic() + 120
        while True:
            rows = api.get("/documents/", params={"collection": made["id"]}).json()["results"]
            if len(rows) == len(documents) and all(row["status"] == "ready" for row in rows):
                return str(made["id"])
            assert time.monotonic() < deadline, rows
            time.sleep(0.5)


@pytest.fixture(scope="module", autouse=True)
def uploaded(live_site: Site, model_site: Site) -> Iterator[None]:
    for site in (live_site, model_site):
        collection_with_files(site, "Staff handbook")
    yield


def ask(visit: Visit, question: str) -> None:
    # Before its script has run, Enter is a new line, as in every text field.
    visit.page.locator("chat-composer:defined #question").fill(question)
    visit.page.keyboard.press("Enter")


def test_a_wrong_password_is_said_in_words(visit: Visit) -> None:
    page = visit.page
    page.goto(f"{visit.site.base_url}/")
    page.get_by_label("E-mail").fill("admin@example.com")
    page.get_by_label("Password", exact=True).fill("wrong")
    page.get_by_role("button", name="Sign in").click()
    expect(page.get_by_role("alert")).to_be_visible()
    assert page.locator("#question").count() == 0


def test_upload_shows_progress_and_each_files_end(visit: Visit, folder: Path) -> None:
    visit.sign_in()
    page = visit.page
    page.goto(f"{visit.site.base_url}/library/")
    page.get_by_role("button", name=re.compile("New collection")).first.click()
    page.get_by_label("Name", exact=True).fill("From the browser")
    page.get_by_role("button", name=re.compile("^Create")).click()
    page.wait_for_selector("upload-zone")
    files = sorted(folder.iterdir())
    page.locator("upload-zone input[type=file]").first.set_input_files(files)
    for name in HANDBOOK:
        row = page.locator("#documents tr", has_text=re.compile(name.split(".")[0], re.I))
        expect(row.first.locator(".badge-good")).to_have_text("Ready", timeout=90_000)
    body = page.locator("main")
    expect(body).to_contain_text("The file is empty")
    expect(body).to_contain_text("looks like")


def test_ask_and_open_the_citation_at_the_passage(visit: Visit) -> None:
    visit.sign_in()
    page = visit.page
    ask(visit, "How many days of annual leave do full-time employees earn?")
    answer = page.locator("article.answer:not(.is-streaming)").last
    expect(answer).to_contain_text("thirty days of annual leave")
    expect(answer.locator(".sources")).to_contain_text("Quote verified")
    expect(page.locator("body")).to_contain_text("No language model is connected")
    answer.locator("a[href*='/documents/']").first.click()
    mark = page.locator("mark").first
    expect(mark).to_be_visible()
    expect(mark).to_be_in_viewport()
    expect(page.locator("main")).to_contain_text("thirty days")
    # A file of one's own: attached, waited for, cited, removed.
    page.goto(f"{visit.site.base_url}/")
    offer: FilePayload = {
        "name": "offer.txt",
        "mimeType": "text/plain",
        "buffer": b"The Oslo pilot ends in May.",
    }
    page.get_by_label("Attach files").set_input_files([offer])
    expect(page.locator("[data-file-list]")).to_contain_text("offer.txt")
    ask(visit, "When does the Oslo pilot end?")
    expect(page.locator("#attachments")).to_contain_text("offer.txt")
    expect(answer).to_contain_text("ends in May")
    expect(answer.locator(".sources")).to_contain_text("Attached files")
    page.get_by_role("button", name="Remove offer.txt").click()
    page.locator("dialog[open]").get_by_role("button").last.click()
    expect(page.locator("#attachments li")).to_have_count(0)


def test_the_question_stays_in_view_beside_long_sources(visit: Visit) -> None:
    visit.sign_in()
    page = visit.page
    page.set_viewport_size({"width": 1280, "height": 485})
    ask(visit, "How many days of annual leave do full-time employees earn?")
    answer = page.locator("article.answer:not(.is-streaming)")
    expect(answer.locator(".sources")).to_contain_text("Quote verified")
    assert page.evaluate("document.documentElement.scrollHeight > innerHeight")
    expect(page.locator(".turn-question")).to_be_in_viewport(ratio=0.9)
    expect(answer.locator("[data-text]")).to_be_in_viewport()
    # The text ends above the composer.
    assert page.evaluate("scrollY") == 0


def test_a_question_without_an_answer_is_not_answered(visit: Visit) -> None:
    visit.sign_in()
    ask(visit, "What is the boiling point of tungsten hexafluoride?")
    answer = visit.page.locator("article.answer:not(.is-streaming)").last
    expect(answer).to_contain_text("Not found in your documents")


def test_streamed_words_come_from_the_connected_model(model_visit: Visit) -> None:
    model_visit.sign_in()
    page = model_visit.page
    ask(model_visit, "When does the canteen open?")
    answer = page.locator("article.answer:not(.is-streaming)").last
    expect(answer).to_contain_text(PREFACE)
    expect(page.locator("body")).not_to_contain_text("SECRET REASONING")
    expect(page.locator("body")).not_to_contain_text("No language model is connected")
    page.reload()
    expect(page.locator("article.answer").last).to_contain_text(PREFACE)
    # What the small model adds, then another answer beside the first, and another question.
    expect(page.locator("#history")).to_contain_text("Leave and sickness")
    expect(page.get_by_role("button", name="What expires in March?")).to_be_visible()
    page.get_by_role("button", name="Answer again in another way").click()
    page.get_by_label("Effort").select_option("high")
    page.get_by_role("button", name="Answer again", exact=True).click()
    expect(answer).to_contain_text("2 / 2")
    page.get_by_label("Edit this question").click()
    page.get_by_label("The question in other words").fill("How is sickness reported?")
    page.get_by_role("button", name="Ask", exact=True).click()
    expect(page.locator(".turn-question")).to_contain_text("2 / 2")
    expect(answer).to_contain_text("sickness")
    page.get_by_role("button", name="Previous").click()
    expect(page.locator(".bubble")).to_have_text("When does the canteen open?")
    expect(answer).to_contain_text("2 / 2")


def test_a_reload_in_the_middle_loses_and_doubles_nothing(model_visit: Visit) -> None:
    model_visit.sign_in()
    page = model_visit.page
    ask(model_visit, "Tell me slowly when the canteen opens")
    expect(page.locator("[data-text]").last).to_contain_text(PREFACE)
    page.wait_for_url(re.compile("/c/"))
    page.reload()
    expect(page.locator("[data-text]").last).to_contain_text(PREFACE)
    assert page.locator("[data-text]").last.inner_text().count(PREFACE) == 1
    page.locator("[data-stop]").click()
    expect(page.locator("article.answer").last).to_contain_text("Stopped")


def writes(site: Site) -> bool:
    """Whether the model server works on anything now."""
    return bool(httpx.get(f"{site.model_url}/state").json()["active"])


def test_stop_reaches_the_model_server(model_visit: Visit) -> None:
    model_visit.sign_in()
    page = model_visit.page
    ask(model_visit, "Tell me slowly about annual leave")
    expect(page.locator("[data-text]").last).to_contain_text(PREFACE)
    assert writes(model_visit.site)
    page.locator("[data-stop]").click()
    expect(page.locator("article.answer").last).to_contain_text("Stopped")
    deadline = time.monotonic() + 60  # by itself it would write for minutes
    while writes(model_visit.site):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    expect(page.locator("article.answer").last).to_contain_text(PREFACE)


def test_a_killed_model_server_is_said_and_the_text_is_kept(model_visit: Visit) -> None:
    site = model_visit.site
    model_visit.sign_in()
    page = model_visit.page
    ask(model_visit, "Tell me slowly about sick leave")
    expect(page.locator("[data-text]").last).to_contain_text(PREFACE)
    assert site.model is not None
    site.model.kill()
    site.model.wait()
    answer = page.locator("article.answer").last
    try:
        expect(answer).to_contain_text("not complete")
        expect(answer).to_contain_text(PREFACE)
        expect(answer.get_by_role("button", name="Ask again")).to_be_visible()
    finally:
        site.model = start_model(int(site.model_url.rsplit(":", 1)[1]))


def test_dark_mode_is_dark_and_remembered(chromium: Browser, live_site: Site) -> None:
    window = open_window(chromium, live_site, color_scheme="dark")
    window.sign_in()
    assert _lightness(window) < 60
    window.page.emulate_media(color_scheme="light")
    assert _lightness(window) > 200
    window.close()


def _lightness(window: Visit) -> float:
    colour: str = window.page.evaluate("getComputedStyle(document.body).backgroundColor")
    script = """colour => {
        const canvas = document.createElement('canvas').getContext('2d');
        canvas.fillStyle = colour; canvas.fillRect(0, 0, 1, 1);
        return Array.from(canvas.getImageData(0, 0, 1, 1).data.slice(0, 3));
    }"""
    red, green, blue = window.page.evaluate(script, colour)
    return float(0.2126 * red + 0.7152 * green + 0.0722 * blue)


def test_everything_fits_a_phone(chromium: Browser, live_site: Site) -> None:
    window = open_window(chromium, live_site, viewport={"width": 360, "height": 740})
    window.sign_in()
    page = window.page
    collection = collection_with_files(live_site, "Staff handbook")
    for path in ("/", "/library/", f"/library/{collection}/", "/account/"):
        page.goto(f"{live_site.base_url}{path}")
        too_wide = page.evaluate("document.documentElement.scrollWidth - innerWidth")
        assert too_wide <= 0, (path, too_wide)
    page.goto(f"{live_site.base_url}/")
    tops = page.locator(".composer-bar > :is(button, label):visible").evaluate_all(
        "all => all.map(each => each.getBoundingClientRect().top)"
    )
    assert len(tops) >= 4
    assert max(tops) - min(tops) < 20  # in one line
    ask(window, "When does the canteen open?")
    answer = page.locator("article.answer:not(.is-streaming)").last
    expect(answer).to_contain_text("noon")
    assert page.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0
    window.close()


def test_the_keyboard_is_enough(visit: Visit) -> None:
    visit.sign_in()
    page = visit.page
    page.keyboard.press("Tab")
    focused = "document.activeElement && getComputedStyle(document.activeElement).outlineStyle"
    page.goto(f"{visit.site.base_url}/library/")
    page.keyboard.press("Tab")
    assert "main" in (page.evaluate("document.activeElement.getAttribute('href')") or "")
    page.keyboard.press("Tab")
    assert page.evaluate(focused) != "none"
