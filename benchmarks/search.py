"""A single search over 240 documents, by stage.

    python -m benchmarks.search [--documents 240] [--searches 100]

Starts a site with as many Markdown pages and asks a different question each time, over REST, one
after the other. In the same run, in turns with the searches, the embedding server alone embeds the
same questions: what a search costs beside that is ours. For scale, on such a corpus Open WebUI
takes 37 ms by vectors and 812 ms hybrid, Khoj 73 ms, nearly all of it embedding the query.

Prints the median of each stage in milliseconds, of the whole, and its ratio to bare embedding.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Iterator
from itertools import cycle, islice
from typing import Any

import httpx

from benchmarks._site import Site, documents, running_site, upload
from benchmarks.ingestion import wait

MODES = ("hybrid", "vector", "keyword")
_WARM_UP = 5
_ASKED = (
    "What does {} say about requests?",
    "Who is responsible for {}?",
    "When was {} last changed, and why?",
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--documents", type=int, default=240)
    parser.add_argument("--searches", type=int, default=100)
    options = parser.parse_args()
    rows = documents(options.documents)
    with running_site() as site:
        collection = upload(site, rows)
        wait(site, collection, options.documents)
        questions = list(islice(_questions(rows), _WARM_UP + options.searches))
        stages, bare = measure(site, questions)
    report(stages, bare, count=options.documents)


def _questions(rows: list[dict[str, str]]) -> Iterator[str]:
    """No two alike in a run, so that nothing is answered from a cache."""
    for number, (words, row) in enumerate(zip(cycle(_ASKED), cycle(rows))):
        yield words.format(row["title"].replace("-", " ")) + f" ({number})"


def measure(site: Site, questions: list[str]) -> tuple[dict[str, dict[str, float]], float]:
    """Medians in milliseconds: by mode and stage, and of embedding a question alone."""
    embed = _embedding(site)
    times: dict[str, dict[str, list[float]]] = {mode: {} for mode in MODES}
    alone: list[float] = []
    for number, question in enumerate(questions):
        took = _milliseconds(lambda: embed(question + " alone"))  # noqa: B023  called at once
        if number >= _WARM_UP:
            alone.append(took)
        for mode in MODES:
            body = {"query": f"{question} {mode}", "mode": mode}
            started = time.perf_counter()
            answer = site.api.post("/search/", json=body).raise_for_status()
            took = (time.perf_counter() - started) * 1000
            timings: dict[str, float] = answer.json()["timings_ms"]
            if number >= _WARM_UP:
                for stage, value in {**timings, "over HTTP": took}.items():
                    times[mode].setdefault(stage, []).append(value)
    medians = {
        mode: {stage: statistics.median(values) for stage, values in stages.items()}
        for mode, stages in times.items()
    }
    return medians, statistics.median(alone)


def _milliseconds(call: Any) -> float:
    started = time.perf_counter()
    call()
    return (time.perf_counter() - started) * 1000


def _embedding(site: Site) -> Any:
    """Embeds one text with the site's own server, on a connection that stays open."""
    key = site.services.get("embedding_api_key")
    client = httpx.Client(headers={"Authorization": f"Bearer {key}"} if key else {}, timeout=60)
    url = f"{site.services['embedding_url']}/embeddings"

    def embed(text: str) -> None:
        body = {"model": "all-MiniLM-L6-v2", "input": [text]}
        client.post(url, json=body, headers={"X-Priority": "query"}).raise_for_status()

    return embed


def report(stages: dict[str, dict[str, float]], bare: float, *, count: int) -> None:
    names = list(dict.fromkeys(name for each in stages.values() for name in each))
    print(f"one search over {count} documents, medians in ms")
    print(f"{'':<14}" + "".join(f"{mode:>10}" for mode in stages))
    for name in names:
        values = "".join(
            f"{each[name]:>10.1f}" if name in each else f"{'-':>10}" for each in stages.values()
        )
        print(f"{name:<14}{values}")
    print(f"{'bare embedding':<14}{bare:>10.1f}")
    for mode, each in stages.items():
        print(f"{mode}: {each['over HTTP'] / bare:.2f} x bare embedding")
    print("for scale: Open WebUI 37 (vector) and 812 (hybrid), Khoj 73")


if __name__ == "__main__":
    main()
