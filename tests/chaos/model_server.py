"""C-11, C-12, C-13: the model server dies under live streams, hangs, is asked for ten times more.

python -m tests.chaos.model_server [--live 20] [--seconds 300] [--capacity 16] [--only C-13]

A scripted server (``tests.inference.upstream``) stands for vLLM, so that its death and its capacity
are exact; everything before it is a whole site, read over HTTP as its pages read it.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Coroutine
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from http.client import HTTPConnection
from multiprocessing import get_context
from typing import Any

import httpx

from assistant.embedded.console import say
from tests.chaos.corpus import Item
from tests.chaos.site import Site, running_site, wait_until
from tests.inference.upstream import Upstream, upstream
from tests.up_process import ROOT

FIRST_TOKEN_SECONDS, INTER_TOKEN_SECONDS = 10, 5
WAITING = 32
PEOPLE = 40
RAMP_SECONDS = 10.0
TEXT = b"# Leave\n\nAnnual leave is thirty days a year. The canteen opens at noon."
QUESTION = "How many days of annual leave do I have?"


@dataclass
class Report:
    figures: dict[str, Any] = field(default_factory=dict)
    complaints: list[str] = field(default_factory=list)

    def check(self, is_so: bool, complaint: str) -> None:
        if not is_so:
            self.complaints.append(complaint)

    def phase(self, name: str, work: Coroutine[Any, Any, None]) -> None:
        """One fault; what breaks it off is a complaint, and the others still run."""
        began = time.monotonic()
        try:
            asyncio.run(work)
        except Exception as error:  # noqa: BLE001 - whatever it was, it is in the report
            self.complaints.append(f"{name} broke off: {error!r}")
        say(f"{name} after {time.monotonic() - began:.0f} s")


@dataclass
class Reader:
    """One question and what its event stream has told so far; times are monotonic seconds."""

    answer: str = ""
    text: str = ""
    last: str = ""
    data: dict[str, Any] = field(default_factory=dict)
    ended_at: float = 0.0


async def ask(api: httpx.AsyncClient) -> Reader:
    made = (await api.post("/conversations/", json={"title": "A trial"})).raise_for_status().json()
    asked = await api.post(f"/conversations/{made['id']}/messages/", json={"content": QUESTION})
    return Reader(asked.raise_for_status().json()["answer"]["id"])


async def events(response: httpx.Response) -> AsyncIterator[tuple[str, dict[str, Any]]]:
    name = ""
    async for line in response.aiter_lines():
        if line.startswith("event: "):
            name = line[7:]
        elif line.startswith("data: "):
            yield name, json.loads(line[6:])


async def read(api: httpx.AsyncClient, reader: Reader) -> None:
    """Follow one answer to its last event."""
    async with api.stream("GET", f"/answers/{reader.answer}/events") as response:
        async for name, data in events(response):
            if name == "delta":
                reader.text += data["text"]
            elif name in {"done", "error"}:
                reader.last, reader.data, reader.ended_at = name, data, time.monotonic()
                return


async def live(api: httpx.AsyncClient, count: int) -> tuple[list[Reader], list[asyncio.Task[None]]]:
    """Readers that have all seen their first words."""
    readers = [await ask(api) for _ in range(count)]
    tasks = [asyncio.create_task(read(api, reader)) for reader in readers]
    deadline = time.monotonic() + 60
    while not all(reader.text for reader in readers):
        if time.monotonic() > deadline:
            raise TimeoutError("not all answers began")
        await asyncio.sleep(0.05)
    return readers, tasks


def open_things(site: Site, server: Upstream) -> tuple[int, int]:
    """Threads of the one web process, and its connections to the model server."""
    web = site.child("uvicorn")
    assert web is not None
    ports = [c.raddr.port for c in web.net_connections() if c.raddr and c.status == "ESTABLISHED"]
    return web.num_threads(), ports.count(server.port)


async def killed(site: Site, server: Upstream, count: int, report: Report) -> None:
    async with client(site) as api:
        # Connections and threads that stay are there before: the pool of threads that query fills
        # when so many are first wanted at once.
        await live_and_stopped(api)
        await asyncio.gather(*(api.get("/collections/") for _ in range(100)))
        before = await asyncio.to_thread(open_things, site, server)
        readers, tasks = await live(api, count)
        began = time.monotonic()
        server.process.kill()
        await asyncio.wait_for(asyncio.gather(*tasks), 60)
        slowest = max(reader.ended_at for reader in readers) - began
        report.figures["C-11 told that the server is lost, slowest"] = slowest
        report.check(slowest <= 5, f"C-11 a reader was told after {slowest:.1f} s")
        codes = Counter(reader.data.get("code") for reader in readers)
        report.figures["C-11 codes"] = dict(codes)
        report.check(set(codes) == {"llm_lost"}, f"C-11 codes {codes}")
        for reader in readers:
            row = (await api.get(f"/answers/{reader.answer}/")).json()
            report.check(row["status"] == "interrupted", f"C-11 stored as {row['status']}")
            report.check(
                row["text"].strip() == reader.text.strip(), "C-11 the partial text differs"
            )
        down = await ask(api)
        await asyncio.wait_for(read(api, down), 30)
        report.check(down.data.get("retryable") is True, f"C-11 while it is away: {down.data}")
        server.start()
        began = time.monotonic()
        while (again := await finished(api, stop_after=1)).last == "error":
            report.check(time.monotonic() - began < 30, "C-11 no answer after the server was back")
            await asyncio.sleep(0.3)
        report.figures["C-11 answers again after its start"] = time.monotonic() - began
        report.check(bool(again.text), "C-11 the new answer is empty")
    await asyncio.sleep(10)
    after = await asyncio.to_thread(open_things, site, server)
    report.figures["C-11 threads, connections upstream before"] = before
    report.figures["C-11 threads, connections upstream after"] = after
    report.check(after[1] <= 2, f"C-11 {after[1]} connections to the model server are left")
    report.check(after[0] <= before[0] + 4, f"C-11 threads grew from {before} to {after}")
    report.check(places(site) == 0, f"C-11 {places(site)} places in the line are still held")


async def live_and_stopped(api: httpx.AsyncClient) -> None:
    readers, tasks = await live(api, 20)
    for reader in readers:
        await api.post(f"/answers/{reader.answer}/stop")
    await asyncio.wait_for(asyncio.gather(*tasks), 30)


async def finished(api: httpx.AsyncClient, *, stop_after: int) -> Reader:
    """A new answer, stopped when it has written so many characters."""
    reader = await ask(api)
    task = asyncio.create_task(read(api, reader))
    while not task.done():
        if len(reader.text) >= stop_after:
            await api.post(f"/answers/{reader.answer}/stop")
            await asyncio.wait_for(task, 30)
        await asyncio.sleep(0.05)
    return reader


def places(site: Site) -> int:
    return int(site.broker().zcard("{llm}:running"))


async def hung(site: Site, server: Upstream, report: Report) -> None:
    async with client(site) as api:
        readers, tasks = await live(api, 5)
        waiting = [await ask(api) for _ in range(3)]
        server.process.send_signal(signal.SIGSTOP)
        began = time.monotonic()
        tasks += [asyncio.create_task(read(api, reader)) for reader in waiting]
        await asyncio.wait_for(asyncio.gather(*tasks), 120)
        middle = max(reader.ended_at for reader in readers) - began
        report.figures["C-12 in the middle: told after"] = middle
        report.check(middle < INTER_TOKEN_SECONDS + 3, f"C-12 told after {middle:.1f} s")
        codes = Counter(reader.data.get("code") for reader in readers)
        report.check(set(codes) == {"llm_timeout"}, f"C-12 codes {codes}")
        report.figures["C-12 words"] = readers[0].data.get("detail")
        began = time.monotonic()
        late = [await ask(api) for _ in range(3)]
        await asyncio.wait_for(asyncio.gather(*(read(api, reader) for reader in late)), 60)
        quick = max(reader.ended_at for reader in late) - began
        report.figures["C-12 open circuit: told after"] = quick
        report.check(quick < FIRST_TOKEN_SECONDS, f"C-12 the circuit did not open: {quick:.1f} s")
        ready = (
            await httpx.AsyncClient().get(f"http://127.0.0.1:{site.up.port}/health/ready")
        ).json()
        report.check(ready["checks"]["llm"] == "unavailable", f"C-12 /health/ready: {ready}")
        server.process.send_signal(signal.SIGCONT)
        began = time.monotonic()
        while (await finished(api, stop_after=1)).last == "error":
            report.check(time.monotonic() - began < 40, "C-12 no answer after it went on")
            await asyncio.sleep(0.3)
        report.figures["C-12 answers again after SIGCONT"] = time.monotonic() - began


@dataclass
class Crowd:
    statuses: Counter[int] = field(default_factory=Counter)
    refusals: list[float] = field(default_factory=list)
    first_words: list[float] = field(default_factory=list)
    strange: list[str] = field(default_factory=list)
    positions: int = 0
    whole: int = 0


async def visitor(api: httpx.AsyncClient, token: str, crowd: Crowd, until: float) -> None:
    """Asks and reads whole answers; who is refused comes again after the time that was named."""
    await asyncio.sleep(random.uniform(0, RAMP_SECONDS))
    headers = {"Authorization": f"Bearer {token}"}
    body = {"question": QUESTION, "stream": True}
    while time.monotonic() < until:
        began, pause, has_words = time.monotonic(), 0.0, False
        async with api.stream("POST", "/answers/", json=body, headers=headers) as got:
            crowd.statuses[got.status_code] += 1
            if got.status_code in {429, 503}:
                crowd.refusals.append(time.monotonic() - began)
                pause = float(got.headers.get("retry-after", "0"))
                if not pause or "problem+json" not in got.headers["content-type"]:
                    crowd.strange.append(f"{got.status_code} without Retry-After or problem")
            async for name, data in events(got):
                if name == "status" and data.get("queue_position"):
                    crowd.positions += 1
                elif name == "delta" and not has_words:
                    has_words = True
                    crowd.first_words.append(time.monotonic() - began)
                elif name == "done":
                    crowd.whole += 1
                elif name == "error":
                    crowd.strange.append(str(data))
        await asyncio.sleep(max(0.0, min(pause, until - time.monotonic())))


def asked_alone(port: int, token: str, until: float) -> list[float]:
    """Seconds until the status of each refusal, for one who asks four times a second.

    Runs in a process of its own: the visitors share an event loop, which would be measured too.
    ``until`` is monotonic.
    """
    body = json.dumps({"question": QUESTION, "stream": True})
    headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
    refusals = []
    while time.monotonic() < until:
        server = HTTPConnection("127.0.0.1", port, timeout=120)
        began = time.monotonic()
        server.request("POST", "/api/v1/answers/", body, headers)
        if server.getresponse().status in {429, 503}:
            refusals.append(time.monotonic() - began)
        server.close()  # an answer is left
        time.sleep(0.25)
    return refusals


async def saturated(site: Site, capacity: int, seconds: float, report: Report) -> None:
    before = site.web_use().mebibytes
    crowd = Crowd()
    tokens = site_tokens(site, PEOPLE + 1)
    until = time.monotonic() + RAMP_SECONDS + seconds
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as process:
        asking = process.submit(asked_alone, site.up.port, tokens[PEOPLE], until)
        async with client(site) as api:
            await asyncio.gather(
                *(visitor(api, tokens[n % PEOPLE], crowd, until) for n in range(10 * capacity))
            )
        refusals = await asyncio.wrap_future(asking)
    async with client(site) as api:
        began = time.monotonic()
        reader = await finished(api, stop_after=1)
        report.figures["C-13 an answer after the storm"] = time.monotonic() - began
        report.check(reader.last == "done", f"C-13 after the storm: {reader.data}")
    grown = site.web_use().mebibytes - before
    report.figures |= {
        "C-13 visitors, capacity, line": f"{10 * capacity}, {capacity}, {WAITING}",
        "C-13 statuses": dict(crowd.statuses),
        "C-13 whole answers": crowd.whole,
        "C-13 places in line told": crowd.positions,
        "C-13 refusals of one who asks alone": len(refusals),
        "C-13 refused in, p50": quantile(refusals, 0.5),
        "C-13 refused in, p95": quantile(refusals, 0.95),
        "C-13 refused in, slowest": quantile(refusals, 1.0),
        "C-13 seen by the visitors' one process, p95": quantile(crowd.refusals, 0.95),
        "C-13 first word, p50": quantile(crowd.first_words, 0.5),
        "C-13 first word, p95": quantile(crowd.first_words, 0.95),
        "C-13 web processes grew by": f"{grown:.0f} MiB",
    }
    report.check(set(crowd.statuses) <= {200, 429, 503}, f"C-13 statuses {crowd.statuses}")
    report.check(not crowd.strange, f"C-13 {Counter(crowd.strange).most_common(3)}")
    report.check(bool(refusals), "C-13 nobody was refused")
    p95 = quantile(refusals, 0.95)
    report.check(p95 < 0.2, f"C-13 refused in {1000 * p95:.0f} ms at p95")
    wait_until(lambda: places(site) == 0, seconds=10)


def quantile(values: list[float], share: float) -> float:
    ordered = sorted(values) or [0.0]
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def site_tokens(site: Site, count: int) -> list[str]:
    """Tokens of so many people, made in the site's own database."""
    code = (
        "from assistant.users.models import ApiToken, User\n"
        f"for n in range({count}):\n"
        "    user = User.objects.create_user(f'visitor{n}@example.com')\n"
        "    print(ApiToken.generate(user, scopes=['read'])[1])"
    )
    unset = dict.fromkeys(("DATABASE_URL", "REDIS_URL", "SECRET_KEY", "EMBEDDING_BASE_URL"), "")
    made = subprocess.run(
        [sys.executable, "manage.py", "shell", "--no-imports", "-c", code],
        cwd=ROOT,
        env={**os.environ, **unset, "DATA_DIR": str(site.data_dir)},
        capture_output=True,
        text=True,
        check=True,
    )
    return [line for line in made.stdout.splitlines() if line.startswith("ka_")]


def client(site: Site) -> httpx.AsyncClient:
    return httpx.AsyncClient(
        base_url=site.base_url,
        headers={"Authorization": f"Bearer {site.token}"},
        timeout=120,
        # Of a connection that is kept, neither side knows for sure that the other still has it.
        limits=httpx.Limits(max_connections=None, max_keepalive_connections=0),
    )


def run(*, count: int, capacity: int, seconds: float, only: str) -> Report:
    report = Report()
    if only != "C-13":
        with (
            upstream(capacity=64, tokens=3000, rate=20) as slow,
            running_site(
                WEB_CONCURRENCY="1",
                LLM_BASE_URL=slow.base_url,
                LLM_FIRST_TOKEN_TIMEOUT_SECONDS=str(FIRST_TOKEN_SECONDS),
                LLM_INTER_TOKEN_TIMEOUT_SECONDS=str(INTER_TOKEN_SECONDS),
            ) as site,
        ):
            _with_a_document(site)
            report.phase("C-11", killed(site, slow, count, report))
            report.phase("C-12", hung(site, slow, report))
    if only != "C-11":
        line = upstream(capacity=capacity, tokens=40, rate=20, reasoning=5)
        with (
            line as busy,
            running_site(
                LLM_BASE_URL=busy.base_url,
                LLM_MAX_RUNNING=str(capacity),
                LLM_MAX_WAITING=str(WAITING),
            ) as site,
        ):
            _with_a_document(site)
            report.phase("C-13", saturated(site, capacity, seconds, report))
    return report


def _with_a_document(site: Site) -> None:
    collection = site.new_collection("Leave")
    with site.client() as api:
        granted = api.get(f"/collections/{collection}/grants/").raise_for_status().json()["grants"]
        grants = [{k: v for k, v in grant.items() if v} for grant in granted]
        grants.append({"everyone": True, "role": "reader"})
        api.put(f"/collections/{collection}/grants/", json={"grants": grants}).raise_for_status()
    site.upload(collection, [Item("leave", "leave.md", TEXT)])
    wait_until(lambda: site.open_jobs() == 0, seconds=300)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--live", type=int, default=20)
    parser.add_argument("--seconds", type=float, default=300)
    parser.add_argument("--capacity", type=int, default=16)
    parser.add_argument("--only", choices=["C-11", "C-13"], default="", help="C-11 with C-12")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(124))
    report = run(
        count=options.live,
        capacity=options.capacity,
        seconds=options.seconds,
        only=options.only,
    )
    for name, value in report.figures.items():
        text = f"{value:.2f} s" if isinstance(value, float) else str(value)
        say(f"  {name:<46}{text}")
    for complaint in report.complaints[:20]:
        say(f"  FAILED  {complaint}")
    say(f"  {len(report.complaints) or 'nothing'} FAILED")
    sys.exit(1 if report.complaints else 0)


if __name__ == "__main__":
    main()
