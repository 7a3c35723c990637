"""Runs of ``manage.py evaluate`` that can be listed and compared with later ones.

One JSON file a run in ``DATA_DIR/evaluations``: what was measured, with which model, weights and
code, the figures, and the nDCG of every query.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from django.conf import settings

from assistant.retrieval import analysis, spaces

# What decides a ranking: a change in any of these makes another fingerprint.
_CODE = (
    *("analysis", "tokens", "compounds", "frequencies", "statistics", "keyword", "vector"),
    *("languages", "fusion", "splitting", "reranking", "similarity", "diversity", "calibration"),
    *("passages", "searching"),
)


@dataclass(frozen=True, slots=True)
class Run:
    """``scores`` is nDCG@10 by query; ``figures`` are the fields of ``evaluation.Figures``."""

    at: str
    dataset: str
    configuration: str
    fingerprint: dict[str, Any]
    figures: dict[str, float]
    scores: dict[str, float]

    @property
    def name(self) -> str:
        """Stands for the run on the command line."""
        stamp = datetime.fromisoformat(self.at).strftime("%Y%m%d-%H%M%S")
        return f"{stamp}-{self.dataset}-{self.configuration}"


def fingerprint() -> dict[str, Any]:
    """What a ranking depends on besides the documents: model, reranker, analyser and code."""
    space = spaces.active()
    code = hashlib.sha256()
    for module in _CODE:
        code.update(Path(__file__).with_name(f"{module}.py").read_bytes())
    return {
        "model": f"{space.model}@{space.revision[:12]}" if space else "",
        "reranker": settings.RERANKER_MODEL,
        "analyser": analysis.VERSION,
        "code": code.hexdigest()[:8],
    }


def keep(run: Run) -> Path:
    """Write one run; the same name is written over."""
    folder = _folder()
    folder.mkdir(mode=0o700, exist_ok=True)
    path = folder / f"{run.name}.json"
    path.write_text(json.dumps(asdict(run), ensure_ascii=False), encoding="utf-8")
    return path


def runs() -> Iterator[Run]:
    """Oldest first. A file that cannot be read is left out."""
    for path in sorted(_folder().glob("*.json")):
        try:
            yield Run(**json.loads(path.read_text(encoding="utf-8")))
        except (ValueError, TypeError, OSError):
            continue


def _folder() -> Path:
    return Path(settings.DATA_DIR) / "evaluations"
