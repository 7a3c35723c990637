"""C-18: the disks of originals, of temporary files and of PostgreSQL run full, and have room again.

Needs root: the folders become small file systems of their own, mounted before the run.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import httpx

from tests.chaos.corpus import Item
from tests.chaos.harness import Run, main

_MIB = 1 << 20
_SIZES = {"media": 96, "tmp": 96, "postgres": 768}  # MiB


def fault(run: Run) -> None:
    """Twice each: fill the disk, try to upload, look, make room, go on."""
    for folder in tuple(_SIZES) * run.times:
        run.feed(max(1, len(run.corpus) // 8))
        directory = run.site.data_dir / folder
        ballast = directory / "ballast"
        if folder == "postgres":
            taken = _database_full(run, ballast)
        else:
            _fill(ballast)
            before = run.site.one("SELECT count(*) FROM documents_document")
            _refused(run, folder, before)
            taken = []
        ballast.unlink()
        began = time.monotonic()
        run.feed(2)
        run.figures[f"{folder}: taken again after"] = time.monotonic() - began
        kept = run.site.one(
            "SELECT count(*) FROM documents_document WHERE external_id = ANY(%s)", taken
        )
        run.check(kept == len(taken), f"C-18 {folder} full: {len(taken) - kept} acknowledged, lost")


def _database_full(run: Run, ballast: Path) -> list[str]:
    """Uploads until the database refuses one; returns those that were acknowledged."""
    collection = run.site.new_collection("While the database is full")
    _fill(ballast)
    taken: list[str] = []
    refused = 0
    deadline = time.monotonic() + 120
    with run.site.client() as api:
        while refused < 3 and time.monotonic() < deadline:
            name = f"full-{time.monotonic_ns()}"
            answer = _post(api, collection, Item(name, f"{name}.txt", name.encode() * 5_000))
            run.site.look_at(answer)
            run.check(answer.status_code in (202, 503), f"C-18 postgres full: {answer.status_code}")
            if answer.status_code == 202:
                taken.append(name)
            else:
                refused += 1
                time.sleep(1)
    run.check(refused > 0, "C-18 postgres full: it refused nothing, so nothing was tested")
    run.figures["postgres full: taken all the same"] = len(taken)
    return taken


def _refused(run: Run, folder: str, before: int) -> None:
    """What does not fit is refused with words and leaves no trace."""
    large = Item("full", "large.txt", b"Nothing fits. " * (3 * _MIB // 14))
    with run.site.client() as api:
        for _ in range(3):
            answer = _post(api, run.collection, large)
            run.site.look_at(answer)
            words = answer.json().get("detail", "") if answer.status_code >= 400 else ""
            run.check(
                answer.status_code in (503, 507) and "stored" in words,
                f"C-18 {folder} full: {answer.status_code} {words}",
            )
            run.figures[f"{folder} full: answer"] = answer.status_code
    after = run.site.one("SELECT count(*) FROM documents_document")
    run.check(after == before, f"C-18 {folder} full: {after - before} documents half listed")
    left = [p.name for p in (run.site.data_dir / "tmp").iterdir() if p.name.endswith(".upload")]
    run.check(not left, f"C-18 {folder} full: {left} left behind")


def _post(api: httpx.Client, collection: str, item: Item) -> httpx.Response:
    return api.post(
        "/documents/",
        data={"collection": collection, "external_id": item.external_id},
        files={"file": (item.filename, item.content)},
    )


def _fill(ballast: Path) -> None:
    with ballast.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(_MIB))
        except OSError:
            pass
        try:
            while True:
                file.write(bytes(512))
        except OSError:
            pass


def mount(data_dir: Path) -> None:
    """Give each of the folders a small disk of its own."""
    for name, size in _SIZES.items():
        folder = data_dir / name
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        options = f"size={size}m,mode=700"
        subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", folder], check=True)


def unmount(data_dir: Path) -> None:
    for name in _SIZES:
        subprocess.run(["umount", "--lazy", data_dir / name], check=False)


if __name__ == "__main__":
    if os.geteuid() != 0:
        sys.exit("C-18 mounts small file systems and must be run by root.")
    main("C-18 disk full", fault, times=2, before=mount, after=unmount)
