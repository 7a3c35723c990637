"""Running systems and a browser: ``manage.py up`` as people start it, Debian's Chromium."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import pytest
from playwright.sync_api import Browser, BrowserContext, Page, Request, expect, sync_playwright

from assistant.embedded.ports import free_port
from tests.up_process import REAL, ROOT, Up

ADMIN = "admin@example.com"
PASSWORD = "a-password-for-tests"
# What only has to come true in the end, on a machine that does other things beside.
PATIENCE_MS = 60_000
expect.set_options(timeout=PATIENCE_MS)
READY = "#documents tr .badge-good"  # a row that waits may say "Ready in 5 s"
CHROMIUM = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


@dataclass
class Site:
    """A running system; ``token`` is an API token of its administrator."""

    base_url: str
    data_dir: Path
    token: str
    admin_email: str = ADMIN
    admin_password: str = PASSWORD
    model: subprocess.Popen[bytes] | None = None
    model_url: str = ""

    def api(self, *, token: str | None = None) -> httpx.Client:
        return httpx.Client(
            base_url=f"{self.base_url}/api/v1",
            headers={"Authorization": f"Bearer {token or self.token}"},
            timeout=60,
        )

    def manage(self, *arguments: str) -> str:
        done = subprocess.run(
            [sys.executable, "manage.py", *arguments],
            cwd=ROOT,
            env={**_environment(), "DATA_DIR": str(self.data_dir)},
            capture_output=True,
            text=True,
            check=True,
        )
        return done.stdout


def _environment() -> dict[str, str]:
    ours = {"DATABASE_URL", "REDIS_URL", "SECRET_KEY", "EMBEDDING_BASE_URL", "DATABASE_POOL_SIZE"}
    return {key: value for key, value in os.environ.items() if key not in ours}


def _site(**env: str) -> Iterator[Site]:
    data_dir = Path(tempfile.mkdtemp(prefix="knowledge-e2e-")).resolve()
    data_dir.chmod(0o711)
    env = {"ADMIN_EMAIL": ADMIN, "ADMIN_PASSWORD": PASSWORD, "DATABASE_POOL_SIZE": "20", **env}
    up = Up(data_dir / "data", what=REAL, env=env)
    try:
        up.wait_ready(seconds=240)
        site = Site(f"http://127.0.0.1:{up.port}", up.data_dir, token="")
        site.token = site.manage("createtoken", ADMIN).splitlines()[-1]
        yield site
    finally:
        up.process.terminate()
        up.process.wait(timeout=90)
        for log in sorted((up.data_dir / "logs").glob("*.log")):
            sys.stdout.write(f"--- {log.name}\n{log.read_text(errors='replace')[-3000:]}\n")
        shutil.rmtree(data_dir, ignore_errors=True)


@pytest.fixture(scope="session")
def live_site() -> Iterator[Site]:
    """No language model connected: answers are quotations."""
    yield from _site()


@pytest.fixture(scope="session")
def model_site() -> Iterator[Site]:
    """A language model is connected: the one of ``model_server``."""
    port = free_port()
    running = start_model(port)
    try:
        for site in _site(LLM_BASE_URL=f"http://127.0.0.1:{port}/v1", LLM_MODEL="test-model"):
            site.model, site.model_url = running, f"http://127.0.0.1:{port}"
            yield site
            running = site.model or running  # a test may have replaced it
    finally:
        running.kill()
        running.wait()


def start_model(port: int) -> subprocess.Popen[bytes]:
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.e2e.model_server", str(port)], cwd=ROOT
    )
    for _ in range(600):
        try:
            httpx.get(f"http://127.0.0.1:{port}/state")
        except httpx.HTTPError:
            time.sleep(0.1)
        else:
            return process
    process.kill()
    raise AssertionError("the model server did not start")


@pytest.fixture(scope="module")  # its event loop must end before another module runs its own
def chromium() -> Iterator[Browser]:
    path = shutil.which("chromium")
    if path is None:
        pytest.fail("The browser tests need Chromium: apt-get install chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=CHROMIUM)
        yield browser
        browser.close()


@dataclass
class Visit:
    """One browser window; what it asked of other hosts and what it complained about."""

    page: Page
    site: Site
    foreign: list[str] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)

    def sign_in(self, email: str = ADMIN, password: str = PASSWORD) -> None:
        self.page.goto(f"{self.site.base_url}/")
        self.page.get_by_label("E-mail").fill(email)
        self.page.get_by_label("Password", exact=True).fill(password)
        self.page.get_by_role("button", name="Sign in").click()
        self.page.wait_for_selector("#question")

    def close(self) -> None:
        """Fails when anything was asked of another host, or a policy or script was broken."""
        self.page.context.close()
        assert not self.foreign, self.foreign
        assert not self.complaints, self.complaints


def open_window(browser: Browser, site: Site, **options: object) -> Visit:
    context: BrowserContext = browser.new_context(**options)  # type: ignore[arg-type]
    context.set_default_timeout(PATIENCE_MS)
    visit = Visit(context.new_page(), site)

    def asked(request: Request) -> None:
        if not request.url.startswith((site.base_url, "data:", "blob:")):
            visit.foreign.append(request.url)

    visit.page.on("request", asked)
    visit.page.on("pageerror", lambda error: visit.complaints.append(str(error)))
    visit.page.on(
        "console",
        lambda message: (
            visit.complaints.append(message.text)
            if message.type == "error" and "Content Security Policy" in message.text
            else None
        ),
    )
    return visit


@pytest.fixture
def visit(chromium: Browser, live_site: Site) -> Iterator[Visit]:
    window = open_window(chromium, live_site)
    yield window
    window.close()


@pytest.fixture
def model_visit(chromium: Browser, model_site: Site) -> Iterator[Visit]:
    window = open_window(chromium, model_site)
    yield window
    window.close()
