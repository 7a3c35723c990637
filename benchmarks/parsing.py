"""The parse stage alone against bare unstructured on the same files.

    python -m benchmarks.parsing [--pdf-pages 60] [--documents 60]

PDF (pages/s) beside ``partition_pdf(strategy="fast")``, Word (files/s) beside ``partition_docx``,
Markdown (pages/s) beside ``partition_md``. Ours is the whole stage as the worker has it: sandbox,
one child per document, the answer read and checked; and, in the second row, the parser alone in one
process, which is what the sandbox costs. Each runs in a process of its own with its libraries
loaded before the clock starts. Times are CPU seconds of the process and its children, because they
are what a shared machine can be compared by; peak memory is that of the largest single process.
Files: the shared data folder where it is, else none of PDF and Word and this repository's Markdown.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any, Final

ROOT: Final = Path(__file__).resolve().parent.parent
SHARED: Final = Path(os.environ.get("SHARED_DATA", ROOT.parent / "shared" / "data"))
KINDS: Final = {
    "pdf": "application/pdf",
    "docx": "application/vnd.openxmlformats-officedocument.wordprocessingml.document",
    "md": "text/markdown",
}
MODES: Final = {
    "sandbox": "ours, sandboxed",
    "direct": "ours, parser alone",
    "bare": "unstructured",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--pdf-pages", type=int, default=60)
    parser.add_argument("--documents", type=int, default=60)
    parser.add_argument("--run", nargs=2, metavar=("KIND", "MODE"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.run:
        measure(*options.run)
        return
    for kind in KINDS:
        paths = [str(path) for path in files(kind, options)]
        if not paths:
            print(f"{kind}: no files")
            continue
        rates: dict[str, float] = {}
        for mode, name in MODES.items():
            result = in_own_process(kind, mode, paths)
            if "missing" in result:
                print(f"{kind:<5}{name:<20}not measured: {result['missing']}")
                continue
            rates[mode] = result["units"] / result["cpu"]
            memory = ", ".join(f"{part} {mib:.0f}" for part, mib in result["memory"].items())
            print(
                f"{kind:<5}{name:<20}{rates[mode]:9.1f} {result['unit']}/CPU-s"
                f"{result['units'] / result['wall']:9.1f} {result['unit']}/s"
                f"   peak MiB: {memory}   could not read {result['failed']}"
            )
        if "bare" in rates:
            print(f"{kind:<5}{'ratio':<20}{rates['sandbox'] / rates['bare']:9.1f}\n")


def files(kind: str, options: argparse.Namespace) -> list[Path]:
    """Files that unstructured can read as well, smallest first, up to the number asked for."""
    folder = SHARED / ("corpora" if kind == "md" else "files")
    found = (folder if folder.is_dir() else ROOT).rglob(f"*.{kind}")
    usable = sorted(
        (path for path in found if ".venv" not in path.parts and path.stat().st_size > 500),
        key=lambda path: (path.stat().st_size, path.name),
    )
    if kind == "md":
        middle = len(usable) // 2  # pages of ordinary length
        half = options.documents // 2
        return usable[max(0, middle - half) : middle + half]
    if kind == "docx":
        return [path for path in usable if zipfile.is_zipfile(path)][: options.documents]
    kept: list[Path] = []
    pages = 0
    for path in usable:
        count = text_pages(path)
        if 0 < count <= options.pdf_pages - pages:
            kept.append(path)
            pages += count
    return kept


def text_pages(path: Path) -> int:
    """Pages of a PDF whose every page has text; 0 of one that is scanned or cannot be opened."""
    pdfium = import_module("pypdfium2")
    try:
        with pdfium.PdfDocument(path) as document:
            texts = [page.get_textpage().count_chars() for page in document]
    except pdfium.PdfiumError:
        return 0
    return len(texts) if min(texts, default=0) > 100 else 0


def in_own_process(kind: str, mode: str, paths: list[str]) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.parsing", "--run", kind, mode],
        cwd=ROOT,
        input=json.dumps(paths),
        env={
            **os.environ,
            "DO_NOT_TRACK": "1",
            "SCARF_NO_ANALYTICS": "1",
            "UNSTRUCTURED_DISABLE_NOTICE": "1",
            "HF_HUB_OFFLINE": "1",
        },
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or ["it failed"])[-1]
        return {"missing": f"{reason} (its extra: pip install 'unstructured[{kind}]')"}
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def measure(kind: str, mode: str) -> None:
    """Prints units, seconds and peak memory of reading the paths on standard input."""
    paths = [Path(path) for path in json.load(sys.stdin)]
    read, finish = {"sandbox": sandboxed, "direct": direct, "bare": bare}[mode](kind)
    read(paths[0])  # libraries load, and what they cache
    failed = 0
    began, cpu = time.perf_counter(), cpu_seconds()
    for path in paths:
        try:
            read(path)
        except Exception:  # noqa: BLE001  the files are test data of others, some broken on purpose
            failed += 1
    wall, memory = time.perf_counter() - began, finish()
    units = sum(map(text_pages, paths)) if kind == "pdf" else len(paths)
    print(
        json.dumps(
            {
                "units": units,
                "unit": "files" if kind == "docx" else "pages",
                "wall": wall,
                "cpu": cpu_seconds() - cpu,
                "memory": memory,
                "failed": failed,
            }
        )
    )


def cpu_seconds() -> float:
    """Of this process, of the children it has waited for, and of those that live."""
    import psutil

    total = sum(os.times()[:4])
    for process in psutil.Process().children(recursive=True):
        try:
            times = process.cpu_times()
        except psutil.Error:
            continue
        total += times.user + times.system + times.children_user + times.children_system
    return total


def own_peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def sandboxed(kind: str) -> tuple[Callable[[Path], object], Callable[[], dict[str, float]]]:
    import psutil

    from ingestion.parsing_limits import Limits
    from ingestion.sandbox import Sandbox

    box, peaks = Sandbox(), {"worker": 0.0, "zygote": 0.0}

    def read(path: Path) -> object:
        document = box.parse(path, media_type=KINDS[kind], filename=path.name, limits=Limits())
        peaks["worker"] = own_peak()
        return document

    def finish() -> dict[str, float]:
        # Children end before they can be asked; the zygote remembers the largest.
        for process in psutil.Process().children():
            peaks["zygote"] = max(peaks["zygote"], process.memory_info().rss / (1 << 20))
        return peaks

    return read, finish


def direct(kind: str) -> tuple[Callable[[Path], object], Callable[[], dict[str, float]]]:
    from ingestion.parsing import parse_document
    from ingestion.parsing_limits import Limits

    def read(path: Path) -> object:
        return parse_document(path.read_bytes(), media_type=KINDS[kind], limits=Limits())

    return read, lambda: {"process": own_peak()}


def bare(kind: str) -> tuple[Callable[[Path], object], Callable[[], dict[str, float]]]:
    # Its spaCy model would be downloaded; the blank one that the project uses is the faster one,
    # so the comparison errs in favour of unstructured.
    import_module("ingestion.parsers.unstructured_engine")
    partition = getattr(import_module(f"unstructured.partition.{kind}"), f"partition_{kind}")
    options: dict[str, Any] = {"languages": [""]}
    if kind == "pdf":
        options["strategy"] = "fast"

    def read(path: Path) -> object:
        return partition(filename=str(path), **options)

    return read, lambda: {"process": own_peak()}


if __name__ == "__main__":
    main()
