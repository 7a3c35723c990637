"""Damaged files of every format: bits flipped, ends cut off, parts of other files spliced in.

Each is admitted or refused as an upload is, and goes to the sandbox in any case, because damage
that admission sees is not the kind that hurts a parser. Whatever happens, there is an answer within
the limits, the warm processes live on, and no file is left behind.

python -m tests.chaos.mutated_files [--count 500] [--seed 1] [--data FOLDER]
"""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from assistant.embedded.console import say
from ingestion import admission
from ingestion.errors import FailureCode, IngestionError
from ingestion.parsing_limits import Limits
from ingestion.sandbox import Sandbox

LIMITS = Limits(
    wall_seconds=60,
    cpu_seconds=60,
    memory=1 << 30,
    max_bytes=20 << 20,
    max_characters=5_000_000,
    max_ocr_pages=3,
    ocr_page_seconds=15,
    ocr_seconds=30,
)
GRACE_SECONDS = 30
"""For starting the child and for a machine that is busy with other things."""

# What a damaged file may be said to have. Anything else says that something broke on our side.
_ALLOWED = frozenset(FailureCode) - {
    FailureCode.INTERNAL,
    FailureCode.SANDBOX_LOST,
    FailureCode.EMBEDDER_UNAVAILABLE,
    FailureCode.CANCELLED,
}


@dataclass
class Report:
    """``outcomes`` counts "ready" and failure codes; ``complaints`` is empty when all is well."""

    outcomes: Counter[str] = field(default_factory=Counter)
    slowest: tuple[float, str] = (0.0, "")
    crashes: list[str] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)


def mutated(data: bytes, others: Sequence[bytes], chance: random.Random) -> bytes:
    """``data`` with one to three kinds of damage."""
    changed = bytearray(data)
    for _ in range(chance.randint(1, 3)):
        if not changed:
            break
        at = chance.randrange(len(changed))
        match chance.choice(("flip", "flip", "truncate", "splice", "repeat", "zero", "delete")):
            case "flip":
                for _ in range(chance.choice((1, 8, 64, 512))):
                    changed[chance.randrange(len(changed))] ^= 1 << chance.randrange(8)
            case "truncate":
                del changed[max(1, at) :]
            case "splice":
                other = chance.choice(others)
                start = chance.randrange(max(1, len(other)))
                changed[at:at] = other[start : start + chance.randint(1, 20_000)]
            case "repeat":
                changed[at:at] = changed[at : at + chance.randint(1, 5_000)] * chance.randint(1, 9)
            case "zero":
                end = min(len(changed), at + chance.randint(1, 5_000))
                changed[at:end] = bytes(end - at)
            case _:
                del changed[at : at + chance.randint(1, 5_000)]
    return bytes(changed)


def run(files: Sequence[Path], *, count: int, seed: int) -> Report:
    """Parse ``count`` damaged copies of ``files``, all formats in turn."""
    chance = random.Random(seed)
    report = Report()
    originals = [(path, path.read_bytes()) for path in files]
    others = [data for _, data in originals]
    sandbox = Sandbox()
    usual = tempfile.tempdir
    with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryDirectory() as temporary:
        tempfile.tempdir = temporary  # where the sandbox makes the folders of its children
        try:
            for number, (path, data) in enumerate(_in_turn(originals, chance, count)):
                damaged = Path(folder) / f"{number}{path.suffix.lower()}"
                damaged.write_bytes(mutated(data, others, chance))
                _parse(sandbox, damaged, path.name, report)
                damaged.unlink()
        finally:
            tempfile.tempdir = usual
            sandbox.close()
        if left := sorted(entry.name for entry in Path(temporary).iterdir()):
            report.complaints.append(f"left behind: {', '.join(left[:5])}")
    return report


def _in_turn(
    originals: list[tuple[Path, bytes]], chance: random.Random, count: int
) -> Iterator[tuple[Path, bytes]]:
    """Formats alike often, however many files of each there are."""
    by_format: dict[str, list[tuple[Path, bytes]]] = {}
    for path, data in originals:
        by_format.setdefault(path.suffix.lower(), []).append((path, data))
    formats = sorted(by_format)
    for number in range(count):
        yield chance.choice(by_format[formats[number % len(formats)]])


def _parse(sandbox: Sandbox, damaged: Path, name: str, report: Report) -> None:
    media_type = admission.SUPPORTED[damaged.suffix]
    warm = _warm_processes()
    begun = time.monotonic()
    try:
        _admit(damaged)
        document = sandbox.parse(
            damaged,
            media_type=media_type,
            filename=damaged.name,
            limits=LIMITS,
            on_attachment=lambda *_: None,
        )
        report.outcomes["ready" if document.text else "ready without text"] += 1
    except IngestionError as error:
        report.outcomes[error.code.value] += 1
        if error.code is FailureCode.PARSE_CRASHED:
            report.crashes.append(f"{name}: {error.cause[:200]}")
        if error.code not in _ALLOWED:
            report.complaints.append(f"{name}: {error.code.value} ({error.cause[:200]})")
    except Exception as error:  # noqa: BLE001 - the very thing this looks for
        report.complaints.append(f"{name}: {error!r} reached the worker")
    seconds = time.monotonic() - begun
    report.slowest = max(report.slowest, (seconds, name))
    if seconds > LIMITS.wall_seconds + LIMITS.ocr_seconds + GRACE_SECONDS:
        report.complaints.append(f"{name}: answered after {seconds:.0f} s")
    for process in warm - _warm_processes():
        report.complaints.append(f"{name}: the warm process {process} died")


def _warm_processes() -> set[int]:
    found = set()
    for process in psutil.Process().children():
        with contextlib.suppress(psutil.NoSuchProcess):
            if "ingestion.sandbox_zygote" in process.cmdline():
                found.add(process.pid)
    return found


def _admit(damaged: Path) -> None:
    """Only to see that admission itself bears it: a refusal is no reason not to parse."""
    try:
        with damaged.open("rb") as stream:
            size = damaged.stat().st_size
            admission.inspect(stream, filename=damaged.name, size=size, limits=LIMITS)
    except IngestionError as error:
        if error.code not in _ALLOWED:
            raise


def shared_files(folder: Path) -> list[Path]:
    """Files of the shared collection that are of a kind that is read, and not empty."""
    return [
        path
        for path in sorted((folder / "files" / "files").iterdir())
        if path.suffix.lower() in admission.SUPPORTED and path.stat().st_size
    ]


def main() -> None:
    root = Path(__file__).resolve().parents[3]
    default = os.environ.get("SHARED_DATA") or str(root / "shared" / "data")
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--count", type=int, default=500)
    arguments.add_argument("--seed", type=int, default=1)
    arguments.add_argument("--data", type=Path, default=Path(default))
    options = arguments.parse_args()
    report = run(shared_files(options.data), count=options.count, seed=options.seed)
    for outcome, number in report.outcomes.most_common():
        say(f"{outcome:24} {number:5}")
    say(f"slowest: {report.slowest[0]:.1f} s ({report.slowest[1]})")
    for line in report.crashes:
        say(f"crashed the parser: {line}")
    for complaint in report.complaints:
        say(f"WRONG {complaint}")
    sys.exit(1 if report.complaints else 0)


if __name__ == "__main__":
    main()
