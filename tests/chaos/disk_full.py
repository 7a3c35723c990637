"""C-18: the disks of originals and of temporary files run full, and have room again.

Needs root: both folders become small file systems of their own, mounted before the run.
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
_SIZE = 96  # MiB


def fault(run: Run) -> None:
    """Twice each: fill the disk, try to upload, look, make room, go on."""
    for folder in ("media", "tmp") * run.times:
        run.feed(max(1, len(run.corpus) // 8))
        directory = run.site.data_dir / folder
        ballast = directory / "ballast"
        _fill(ballast)
        before = run.site.one("SELECT count(*) FROM documents_document")
        _refused(run, folder, before)
        ballast.unlink()
        began = time.monotonic()
        run.feed(2)
        run.figures[f"{folder}: taken again after"] = time.monotonic() - began


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
    """Give originals and temporary files small disks of their own."""
    for name in ("media", "tmp"):
        folder = data_dir / name
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        size = f"size={_SIZE}m,mode=700"
        subprocess.run(["mount", "-t", "tmpfs", "-o", size, "tmpfs", folder], check=True)


def unmount(data_dir: Path) -> None:
    for name in ("media", "tmp"):
        subprocess.run(["umount", "--lazy", data_dir / name], check=False)


if __name__ == "__main__":
    if os.geteuid() != 0:
        sys.exit("C-18 mounts small file systems and must be run by root.")
    main("C-18 disk full", fault, times=2, before=mount, after=unmount)
