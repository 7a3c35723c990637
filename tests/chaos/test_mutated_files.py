"""The short form of mutated_files, and that its damage is the same for the same seed."""

from __future__ import annotations

import random
from pathlib import Path

from tests.chaos.mutated_files import mutated, run, shared_files

_SLOW = frozenset({".png", ".jpg", ".jpeg", ".tif", ".bmp", ".gif", ".webp", ".heic"})
_SMALL = 200_000


def test_damage_is_repeatable_and_is_damage() -> None:
    data = bytes(range(256)) * 40
    first = [mutated(data, [data], random.Random(seed)) for seed in range(20)]
    again = [mutated(data, [data], random.Random(seed)) for seed in range(20)]
    assert first == again
    assert all(changed != data for changed in first)


def test_damaged_files_are_answered(shared_data: Path) -> None:
    files = [
        path
        for path in shared_files(shared_data)
        if path.suffix.lower() not in _SLOW and path.stat().st_size < _SMALL
    ]
    report = run(files, count=25, seed=20)
    assert not report.complaints
    assert sum(report.outcomes.values()) == 25
