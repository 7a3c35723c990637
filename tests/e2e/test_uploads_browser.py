"""A folder with good and bad files, followed to its end; then versions of one of its documents."""

from __future__ import annotations

import io
import re
import time
from pathlib import Path

import pytest
from PIL import Image, ImageDraw, ImageFont
from playwright.sync_api import FilePayload, Page, Route, expect

from tests.e2e.conftest import READY, Visit
from tests.ingestion.test_parsing import make_pdf

pytestmark = pytest.mark.e2e
SLOW = 120_000

INK_IN_AND_BELOW_THE_BOX = """() => {
  const [canvas, box] = [document.querySelector("canvas"), document.querySelector(".page-box")];
  const [all, one] = [canvas.getBoundingClientRect(), box.getBoundingClientRect()];
  const scale = canvas.width / all.width;
  const drawn = (down) => canvas.getContext("2d").getImageData(
    (one.left - all.left) * scale, (one.top - all.top + down) * scale,
    one.width * scale, one.height * scale).data.some((value, at) => at % 4 < 3 && value < 100);
  return [drawn(0), drawn(2 * one.height)];
}"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    root = tmp_path / "handbook"
    (root / "hr").mkdir(parents=True)
    (root / "office").mkdir()
    for number in range(6):
        text = f"# Rule {number}\n\nForm {number} is due within {number + 2} days."
        (root / "hr" / f"rule-{number}.md").write_text(text)
    (root / "hr" / "leave.md").write_text("# Leave\n\nThirty days of leave a year.")
    for number in range(2):
        (root / "office" / f"blank-{number}.txt").write_text(" \n" * (number + 1))
    (root / "office" / "broken.pdf").write_bytes(b"%PDF-1.7\nnothing of a PDF follows")
    (root / "office" / "tool.exe").write_bytes(b"MZ\x90\x00")
    return root


def new_collection(visit: Visit, name: str) -> str:
    """Its address."""
    page = visit.page
    page.goto(f"{visit.site.base_url}/library/")
    page.get_by_role("button", name=re.compile("New collection")).first.click()
    page.get_by_label("Name", exact=True).fill(name)
    page.get_by_role("button", name=re.compile("^Create")).click()
    page.wait_for_selector("upload-zone")
    return page.url


def test_a_list_asked_for_before_the_last_file_is_asked_for_again(visit: Visit) -> None:
    """An answer from before the change arrives after it, and is final in what it shows."""
    visit.sign_in()
    page = visit.page
    collection = new_collection(visit, "Passed by")
    before = page.request.get(f"{collection}documents/").text()
    assert "No documents yet" in before
    held: list[Route] = []

    def hold_the_first(route: Route) -> None:
        if held:
            route.continue_()
        else:
            held.append(route)

    page.route(f"{collection}documents/", hold_the_first)
    files: list[FilePayload] = [
        {"name": f"{name}.md", "mimeType": "text/markdown", "buffer": f"# {name}".encode()}
        for name in ("First", "Second")
    ]
    page.locator("upload-zone input[type=file]").first.set_input_files(files)
    expect(page.locator("[data-list]")).to_contain_text("2 of 2 files uploaded", timeout=SLOW)
    (route,) = held
    route.fulfill(body=before, content_type="text/html")
    expect(page.locator(READY)).to_have_count(2, timeout=SLOW)


def test_a_filter_outlives_a_poll_that_was_under_way(visit: Visit) -> None:
    visit.sign_in()
    page = visit.page
    collection = new_collection(visit, "Filtered")
    files: list[FilePayload] = [
        {"name": f"{name}.md", "mimeType": "text/markdown", "buffer": f"# {name}".encode()}
        for name in ("Apples", "Pears")
    ]
    page.locator("upload-zone input[type=file]").first.set_input_files(files)
    rows = page.locator("#documents tbody tr")
    expect(page.locator(READY)).to_have_count(2, timeout=SLOW)
    page.wait_for_load_state("networkidle")
    held: list[Route] = []
    page.route(
        re.compile(f"{re.escape(collection)}documents/.*"),
        lambda route: held.append(route) if len(held) < 2 else route.continue_(),
    )
    page.evaluate('htmx.trigger("#documents [data-poll]", "refresh")')
    page.locator("#name-filter").fill("Pear")
    deadline = time.monotonic() + 60
    while len(held) < 2 and time.monotonic() < deadline:
        page.wait_for_timeout(20)
    poll, filtered = sorted(held, key=lambda route: "q=" in route.request.url)
    with page.expect_request_finished(lambda request: request == poll.request):
        poll.continue_()
    filtered.continue_()
    expect(rows).to_have_count(1)
    expect(rows).to_contain_text("Pears")


def scan_of(words: str) -> bytes:
    picture = Image.new("L", (900, 500), 255)
    ImageDraw.Draw(picture).text((80, 80), words, fill=0, font=ImageFont.load_default(80))
    file = io.BytesIO()
    picture.save(file, "PNG")
    return file.getvalue()


def open_list(page: Page) -> None:
    if page.locator("#versions").get_attribute("open") is None:
        page.locator("#versions summary").click()


def test_an_upload_is_followed_to_its_end(visit: Visit, folder: Path) -> None:
    visit.sign_in()
    page = visit.page
    collection = new_collection(visit, "Followed")
    page.locator("[data-pick-folder] input").set_input_files(folder)
    uploads = page.locator("[data-list]")
    expect(uploads).to_contain_text("10 of 11 files uploaded, 1 refused", timeout=SLOW)
    expect(uploads).to_contain_text("Files of this kind")

    page.get_by_role("link", name="Follow this upload").click()
    batch = page.locator("#batch")
    expect(batch).to_contain_text("10 of 10 files done", timeout=SLOW)
    expect(batch).to_contain_text("7 files searchable")
    groups = batch.locator(".failure")
    expect(groups).to_have_count(2)
    expect(groups.first).to_contain_text(re.compile("No text found\\s+2 files"))
    expect(groups.first).to_contain_text("handbook/office/blank-1.txt")
    expect(groups.nth(1)).to_contain_text("Damaged file")
    page.get_by_role("button", name="Retry these 2 files: No text found").click()
    expect(batch.get_by_role("status")).to_have_text("Retrying 2 files.")
    expect(batch).to_contain_text("10 of 10 files done", timeout=SLOW)
    expect(groups.first).to_contain_text("2 files")
    batch_url = page.url

    page.goto(collection)
    page.get_by_text("Recent uploads").click()
    recent = page.locator(".recent a").first
    assert batch_url.endswith(recent.get_attribute("href") or "nothing")
    expect(page.locator("#status-filter")).to_contain_text("Failed (3)")
    page.locator("#status-filter").select_option("failed")
    expect(page.locator("#documents .failure")).to_have_count(2)
    page.locator("#name-filter").fill("hr/leave")
    page.locator("#status-filter").select_option("")
    row = page.locator("#documents tbody tr")
    expect(row).to_have_count(1)
    expect(row).to_contain_text("handbook/hr/")


def test_versions_are_replaced_restored_and_disabled(visit: Visit, tmp_path: Path) -> None:
    visit.sign_in()
    page = visit.page
    new_collection(visit, "Versions")
    first, second = tmp_path / "hours.md", tmp_path / "hours-2027.md"
    first.write_text("# Hours\n\nThe library opens at eight.")
    second.write_text("# Hours\n\nThe library opens at nine.")
    page.locator("[data-pick-files] input").set_input_files(first)
    expect(page.locator(READY)).to_have_count(1, timeout=SLOW)
    page.locator("#documents td.title a").first.click()
    expect(page.locator("#document-text")).to_contain_text("opens at eight")

    page.get_by_role("button", name="Replace").click()
    page.get_by_label("New file").set_input_files(second)
    page.get_by_role("button", name="Upload", exact=True).click()
    expect(page.locator("main")).to_contain_text("Taken as version 2.")
    open_list(page)
    newest = page.locator("#versions li").first
    expect(newest).to_contain_text("Answers", timeout=SLOW)  # by itself, without a reload
    page.reload()
    expect(page.locator("#document-text")).to_contain_text("opens at nine")

    open_list(page)
    page.get_by_role("button", name="Restore version 1").click()
    open_list(page)
    expect(page.locator("#versions li")).to_have_count(3)
    expect(newest).to_contain_text("restored from 1")
    expect(newest).to_contain_text("Answers", timeout=SLOW)
    page.reload()
    expect(page.locator("#document-text")).to_contain_text("opens at eight")

    page.get_by_role("button", name="Disable").click()
    expect(page.locator("main")).to_contain_text("Disabled. It answers nothing since")
    page.get_by_role("link", name="What is indexed").click()
    expect(page.locator(".chunk")).to_have_count(1)
    expect(page.locator(".chunk")).to_contain_text("The library opens at eight.")
    page.go_back()
    page.get_by_role("button", name="Let it answer again").click()
    expect(page.locator("main")).not_to_contain_text("Disabled.")


def test_the_cited_words_are_marked_on_the_original_page(visit: Visit) -> None:
    visit.sign_in()
    page = visit.page
    new_collection(visit, "Pages")
    quote = "Claims are sent within thirty days"
    lines = [(72.0, 700.0, 20.0, "Travel costs"), (72.0, 660.0, 11.0, f"{quote} of the journey.")]
    other = [(72.0, 700.0, 11.0, "Nothing of interest stands on the first page.")]
    file: FilePayload = {
        "name": "travel.pdf",
        "mimeType": "application/pdf",
        "buffer": make_pdf([other, lines]),
    }
    page.locator("upload-zone input[type=file]").first.set_input_files(file)
    expect(page.locator(READY)).to_have_count(1, timeout=SLOW)
    with visit.site.api() as api:
        (found, *_) = api.post("/search/", json={"query": quote}).json()["results"]
    start = found["locator"]["char_start"] + found["text"].index(quote)
    address = f"{visit.site.base_url}/documents/{found['document']['id']}/"
    page.goto(f"{address}?start={start}&end={start + len(quote)}")
    expect(page.locator("mark#passage")).to_have_text(quote)

    page.get_by_role("button", name="Original pages").click()
    expect(page.locator("[data-number]")).to_have_text("Page 2 of 2", timeout=SLOW)
    expect(page.locator("mark#passage")).to_be_hidden()
    box = page.locator(".page-box")
    expect(box).to_have_count(1)
    assert page.evaluate(INK_IN_AND_BELOW_THE_BOX) == [True, False]
    page.get_by_role("button", name="Previous page").click()
    expect(page.locator("[data-number]")).to_have_text("Page 1 of 2", timeout=SLOW)
    expect(box).to_have_count(0)
    page.get_by_role("link", name="Cited passage").click()
    expect(page.locator("[data-number]")).to_have_text("Page 2 of 2", timeout=SLOW)
    expect(box).to_be_in_viewport()

    worker = page.locator("page-view").get_attribute("data-worker") or "/none"
    policy = page.request.get(f"{visit.site.base_url}{worker}").headers["content-security-policy"]
    assert "default-src 'none'" in policy and "connect-src 'self'" in policy

    # Chosen once, pages come first; a document without a passage begins with its text.
    page.goto(f"{address}?start={start}&end={start + len(quote)}")
    expect(box).to_have_count(1, timeout=SLOW)
    page.goto(address)
    expect(page.locator("article.paper")).to_be_visible()
    assert visit.foreign == [] and visit.complaints == []


def test_a_picture_is_shown_with_its_words_marked(visit: Visit) -> None:
    visit.sign_in()
    page = visit.page
    new_collection(visit, "Scans")
    file: FilePayload = {"name": "scan.png", "mimeType": "image/png", "buffer": scan_of("Invoice")}
    page.locator("upload-zone input[type=file]").first.set_input_files(file)
    expect(page.locator(READY)).to_have_count(1, timeout=SLOW)
    page.locator("#documents tbody tr a").first.click()
    page.goto(f"{page.url}?start=0&end=7")
    page.get_by_role("button", name="Original picture").click()
    expect(page.locator("[data-number]")).to_have_text("Page 1 of 1", timeout=SLOW)
    expect(page.locator(".page-box")).to_have_count(1)
    assert page.evaluate(INK_IN_AND_BELOW_THE_BOX) == [True, False]
