"""The whole path in a network namespace that has nothing but its loopback.

Run by ``test_no_network`` inside the namespace: starts a site, uploads one file of each kind that
has a parser of its own, asks, and prints what happened as JSON, with the number of packets that
somebody tried to send out.
"""

from __future__ import annotations

import contextlib
import fcntl
import io
import json
import socket
import struct
import tempfile
import time
from pathlib import Path

import docx
import httpx

from tests.up_process import REAL, Up

SIOCSIFFLAGS, IFF_UP, IFF_RUNNING = 0x8914, 0x1, 0x40
PASSWORD = "a-password-for-tests"


def loopback_up() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        request = struct.pack("16sh14x", b"lo", IFF_UP | IFF_RUNNING)
        fcntl.ioctl(any_socket, SIOCSIFFLAGS, request)


def packets_without_route() -> int:
    """``OutNoRoutes`` of this namespace: what was sent to any address but the loopback's."""
    lines = Path("/proc/net/snmp").read_text().splitlines()
    names, values = (line.split() for line in lines if line.startswith("Ip:"))
    return int(values[names.index("OutNoRoutes")])


def files() -> dict[str, bytes]:
    word = io.BytesIO()
    document = docx.Document()
    document.add_heading("Parking", 1)
    document.add_paragraph("Visitors park in row nine.")
    document.save(word)
    return {
        "leave.md": b"# Leave\n\nAnnual leave is thirty days.\n",
        "canteen.html": b"<h1>Canteen</h1><p>The canteen opens at noon.</p>",
        "desk.eml": b"From: a@b.example\nSubject: Desk\n\nThe travel desk books trains.\n",
        "rooms.csv": b"room,floor\nAtlas,3\n",
        "parking.docx": word.getvalue(),
    }


def main() -> None:
    loopback_up()
    # The meter must count, or its zero would mean nothing.
    with (
        contextlib.suppress(OSError),
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe,
    ):
        probe.connect(("192.0.2.1", 9))
    before = packets_without_route()
    folder = Path(tempfile.mkdtemp(prefix="knowledge-offline-")).resolve()
    folder.chmod(0o711)
    up = Up(folder / "data", what=REAL, env={"ADMIN_PASSWORD": PASSWORD})
    try:
        up.wait_ready(seconds=240)
        answer, statuses = visit(up)
    finally:
        up.process.terminate()
        up.process.wait(timeout=90)
    print(  # noqa: T201  read by the test
        json.dumps(
            {
                "meter": before,
                "sent": packets_without_route() - before,
                "statuses": statuses,
                "answer": answer,
            }
        )
    )


def visit(up: Up) -> tuple[str, dict[str, str]]:
    base = f"http://127.0.0.1:{up.port}"
    browser = httpx.Client(base_url=base, follow_redirects=True, timeout=60)
    browser.get("/sign-in/")
    page = browser.get("/sign-in/").text
    token = page.split('name="csrfmiddlewaretoken" value="')[1].split('"')[0]
    form = {"username": "admin@example.com", "password": PASSWORD, "csrfmiddlewaretoken": token}
    browser.post("/sign-in/", data=form, headers={"Referer": base}).raise_for_status()
    home = browser.get("/").text
    token = home.split('name="csrfmiddlewaretoken" value="')[1].split('"')[0]
    api = {"X-CSRFToken": token, "Referer": base}
    made = browser.post("/api/v1/collections/", json={"name": "Offline"}, headers=api)
    collection = made.raise_for_status().json()["id"]
    for name, content in files().items():
        browser.post(
            "/api/v1/documents/",
            data={"collection": collection},
            files={"file": (name, content)},
            headers=api,
        ).raise_for_status()
    deadline = time.monotonic() + 180
    while True:
        rows = browser.get("/api/v1/documents/").json()["results"]
        statuses = {row["filename"]: row["status"] for row in rows}
        if set(statuses.values()) <= {"ready", "failed"} or time.monotonic() > deadline:
            break
        time.sleep(0.5)
    body = {"question": "When does the canteen open?"}
    answer: str = browser.post("/api/v1/answers/", json=body, headers=api).json()["answer"]
    return answer, statuses


if __name__ == "__main__":
    main()
