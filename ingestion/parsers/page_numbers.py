"""Page numbers in words, for warnings."""

from __future__ import annotations

from typing import Final

_MAX_RUNS: Final = 20


def page_list(numbers: list[int]) -> str:
    """``pages 2, 4-7``."""
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][1] + 1:
            runs[-1][1] = number
        else:
            runs.append([number, number])
    named = ", ".join(f"{a}" if a == b else f"{a}-{b}" for a, b in runs[:_MAX_RUNS])
    more = " and others" if len(runs) > _MAX_RUNS else ""
    return f"{'page' if len(numbers) == 1 else 'pages'} {named}{more}"
