"""A hundred searches at once: what the site adds to bare SQL and batched query embedding.

    python -m benchmarks.concurrency [--searchers 100] [--rounds 3] [--seconds 10]

Starts a site with 240 Markdown pages and lets ``--searchers`` ask different questions at the same
time, again and again for ``--seconds``, in turns

- over REST, each on a connection of its own,
- by ``asearch()`` in this process, settled and on a loop as a web process of the site is, which is
  what a chat of the site does: how much of the loss is not REST,
- bare: the same questions embedded by the same server in batches of 32, and the statements of both
  arms, as the site sends them, over as many connections as the pool of one web process has.

Prints searches per second of all and the ratio of the first (aim: 0.8), the stages that the site
reports, and how many database connections were open, and idle inside a transaction, while searches
ran. A connection that was held while a question waited for its embedding would be one of those: the
aim is none, and it ends with 1 when there is one or the ratio is missed.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import statistics
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import aiohttp
import httpx
import psycopg
import uvloop

from benchmarks._site import Site, activity, documents, running_site, upload
from benchmarks.ingestion import wait

PAGES = 240
POOL = 20
BATCH = 32
_WORDS = (  # noqa: SIM905  a list would be a page
    "leave travel expenses laptop security onboarding payroll benefits meetings email calendar"
    " hiring training remote office badge password insurance holidays conduct"
).split()


@dataclass(slots=True)
class Watched:
    """What pg_stat_activity said, several times a second."""

    most: int = 0
    longest_idle: float = 0.0
    looks: int = 0


@dataclass(slots=True)
class Ran:
    searches: int = 0
    seconds: float = 0.0
    took: list[float] = field(default_factory=list)
    stages: dict[str, list[float]] = field(default_factory=dict)

    @property
    def rate(self) -> float:
        return self.searches / self.seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--searchers", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=10.0)
    options = parser.parse_args()
    with running_site(DATABASE_POOL_SIZE=str(POOL)) as site:
        wait(site, upload(site, documents(PAGES)), PAGES)
        statements = captured(site)
        ours, within, bare, watched = [], [], [], Watched()
        for number in range(options.rounds + 1):
            with watching(site, watched if number else Watched()):
                found = asyncio.run(over_rest(site, options.searchers, options.seconds))
            alone = uvloop.run(in_process(options.searchers, options.seconds))
            engine = bare_searches(site, statements, options.seconds)
            if number:  # the first round warms up
                ours.append(found)
                within.append(alone)
                bare.append(engine)
                print(
                    f"round {number}: site {found.rate:.1f}/s, in process {alone.rate:.1f}/s,"
                    f" bare {engine.rate:.1f}/s, ratio {found.rate / engine.rate:.2f}",
                    flush=True,
                )
    ratio = ratio_of(ours, bare)
    took = sorted(itertools.chain.from_iterable(each.took for each in ours))
    print(
        f"{options.searchers} searchers: ratio {ratio:.2f}, in process {ratio_of(within, bare):.2f}"
    )
    print(f"answer p50 {took[len(took) // 2]:.0f} ms, p95 {took[int(len(took) * 0.95)]:.0f} ms")
    for stage in ours[-1].stages:
        middle = statistics.median(ours[-1].stages[stage])
        print(f"  {stage:>10} p50 {middle:7.1f} ms")
    print(
        f"connections: at most {watched.most}, {POOL} a process; longest idle inside a transaction"
        f" {watched.longest_idle * 1000:.0f} ms, {watched.looks} looks"
    )
    held = watched.longest_idle > 0.5 * statistics.median(ours[-1].stages["embed"]) / 1000
    if held:
        print("missed: a connection was held for as long as a question takes to embed")
    if ratio < 0.8:
        print("missed: throughput below 0.8 of the bare engines")
    sys.exit(1 if held or ratio < 0.8 else 0)


def ratio_of(some: list[Ran], bare: list[Ran]) -> float:
    return statistics.median(
        each.rate / engine.rate for each, engine in zip(some, bare, strict=True)
    )


def question(number: int) -> str:
    """No two of the first thousands are the same."""
    count = len(_WORDS)
    first, second = _WORDS[number % count], _WORDS[(number // count + number) % count]
    return f"How do I arrange {first} and {second}, case {number}?"


async def over_rest(site: Site, searchers: int, seconds: float) -> Ran:
    ran = Ran()
    numbers = itertools.count()
    headers = {"Authorization": site.api.headers["Authorization"]}
    # The questioners share the processors with the site: httpx would take 6 ms for each search.
    async with aiohttp.ClientSession(
        base_url=str(site.api.base_url),
        headers=headers,
        connector=aiohttp.TCPConnector(limit=searchers),
        timeout=aiohttp.ClientTimeout(total=120),
        raise_for_status=True,
    ) as client:
        started = time.perf_counter()

        async def searcher() -> None:
            while time.perf_counter() - started < seconds:
                asked = time.perf_counter()
                body = {"query": question(next(numbers))}
                async with client.post("search/", json=body) as answer:
                    timings = (await answer.json())["timings_ms"]
                ran.took.append((time.perf_counter() - asked) * 1000)
                for stage, value in timings.items():
                    ran.stages.setdefault(stage, []).append(value)
                ran.searches += 1

        await asyncio.gather(*(searcher() for _ in range(searchers)))
        ran.seconds = time.perf_counter() - started
    return ran


async def in_process(searchers: int, seconds: float) -> Ran:
    """The same questions without HTTP; ``captured`` has made this process one of the site's."""
    from assistant.database import in_database, shared_threads
    from assistant.retrieval import asearch
    from assistant.users.models import User

    ran = Ran()
    numbers = itertools.count()
    async with shared_threads():
        user = await in_database(User.objects.get)(is_superuser=True)
    started = time.perf_counter()

    async def searcher() -> None:
        async with shared_threads():
            while time.perf_counter() - started < seconds:
                await asearch(question(next(numbers)), user=user)
                ran.searches += 1

    await asyncio.gather(*(searcher() for _ in range(searchers)))
    ran.seconds = time.perf_counter() - started
    return ran


def captured(site: Site) -> list[bytes]:
    """The statements of both arms, as the site sends them for a question, from the site's log.

    Taken by running the same search in this process on the site's database.
    """
    import os

    os.environ.update(
        DATABASE_URL=site.services["database_url"],
        DATABASE_POOL_SIZE=str(POOL),
        EMBEDDING_BASE_URL=site.services["embedding_url"],
        EMBEDDING_API_KEY=site.services.get("embedding_api_key", ""),
        SECRET_KEY="only-for-benchmarks-" + "0123456789abcdef" * 2,
        DJANGO_SETTINGS_MODULE="assistant.settings",
    )
    from assistant.asgi import settle
    from assistant.retrieval import search
    from assistant.users.models import User
    from benchmarks.million import Statements

    settle()
    user = User.objects.get(is_superuser=True)
    with Statements() as statements:
        search(question(7), user=user)
    return statements.sent


def bare_searches(site: Site, statements: list[bytes], seconds: float) -> Ran:
    """One thread embeds full batches, a pool of connections runs the statements."""
    ran = Ran()
    numbers = itertools.count()
    client = httpx.Client(timeout=60)
    if key := site.services.get("embedding_api_key"):
        client.headers["Authorization"] = f"Bearer {key}"
    url = f"{site.services['embedding_url']}/embeddings"
    local = threading.local()

    def in_database(_: int) -> None:
        if not hasattr(local, "connection"):
            local.connection = psycopg.connect(site.services["database_url"], autocommit=True)
        with local.connection.transaction():
            for statement in statements:
                cursor = local.connection.execute(statement)
                while cursor.description is None and cursor.nextset():
                    pass
                if cursor.description is not None:
                    cursor.fetchall()

    def embed() -> None:
        texts = [question(next(numbers)) for _ in range(BATCH)]
        body: dict[str, Any] = {"model": "all-MiniLM-L6-v2", "input": texts}
        client.post(url, json=body, headers={"X-Priority": "query"}).raise_for_status()

    started = time.perf_counter()
    with ThreadPoolExecutor(POOL) as pool, ThreadPoolExecutor(2) as model:
        while time.perf_counter() - started < seconds:
            # Embedding of the next batch overlaps with the statements of this one.
            embedding = [model.submit(embed) for _ in range(2)]
            list(pool.map(in_database, range(2 * BATCH)))
            for each in embedding:
                each.result()
            ran.searches += 2 * BATCH
        ran.seconds = time.perf_counter() - started
    return ran


@contextmanager
def watching(site: Site, watched: Watched) -> Iterator[None]:
    """The connections of the web processes, every 20 ms."""
    stop = threading.Event()

    def look() -> None:
        with psycopg.connect(site.services["database_url"], autocommit=True) as connection:
            while not stop.wait(0.02):
                found = activity(connection)
                watched.most = max(watched.most, found.busy)
                watched.longest_idle = max(watched.longest_idle, found.longest_idle)
                watched.looks += 1

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


if __name__ == "__main__":
    main()
