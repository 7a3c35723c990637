"""What an answer's way through the application costs: time to its first word, and many at once.

    python -m benchmarks.streaming [--crowds 500x20 100x100] [--quick] [--at-once]

A site with 60 Markdown pages and one web process answers from a scripted model server that sends
its tokens at a fixed pace, each with the moment it was sent. Measured are the three ways to an
answer, each against reading the same tokens from the model server directly, with the same readers
in the same run:

- ``one-shot``: ``POST /api/v1/answers/`` with ``stream``,
- ``openai``: ``POST /v1/chat/completions`` with ``stream``,
- ``stored``: a message of a conversation, written detached and read through Redis.

First one stream after another: 50 ms to the first token, 100 tokens a second. The time to the first
word is told by stage, without what the model server itself takes. Then 500 streams of 20 tokens a
second and 100 of 100. Their questions come ``--pace`` a second, for each is searched for; the model
server keeps all of them waiting and begins with the first tokens when the last has been asked:
within a second, evenly, or with ``--at-once`` all in one moment, as an engine's step makes them.
Told are errors, whole answers, tokens a second over those of the bare server while all of them run,
how much later a token arrives than it was sent, memory of the web process for each stream and its
time for each token; and how long a list of collections takes meanwhile, asked for twice a second,
the threads of the web process, the connections to the database, and how long one of them was idle
inside a transaction.
Everything, model server and readers included, shares the machine's cores.
"""

from __future__ import annotations

import argparse
import json
import re
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import psutil
import psycopg

from benchmarks._site import (
    ROOT,
    Activity,
    Site,
    activity,
    documents,
    free_port,
    running_site,
    upload,
)
from benchmarks.ingestion import wait

QUESTION = "How do I request annual leave?"
# How long all streams run together.
HOLD_SECONDS = 20
# How long the last question may take until its request is at the model server.
LATEST_SECONDS = 5
# Without a page that answers, the model would not be asked.
ANSWERING = {
    "external_id": "leave",
    "title": "How to request annual leave",
    "text": "# Annual leave\n\nTo request annual leave, tell your supervisor and enter the days in"
    " the time sheet. Annual leave is requested two weeks before.",
}
WAYS = ("one-shot", "openai", "stored")
_STAMP = re.compile(r"(\d{6,})(?: \[1\])?\.? ")
_TIMINGS = re.compile(r'"timings_ms":\s*(\{[^}]*\})')


@dataclass(frozen=True, slots=True)
class Script:
    """Seconds to the first token, tokens a second, and how many.

    ``at`` is the moment of the first token on the monotonic clock, None for ``first``.
    """

    first: float
    rate: float
    tokens: int
    at: float | None = None

    def __str__(self) -> str:
        begin = f"first {self.first}" if self.at is None else f"at {self.at:.3f}"
        return f"{QUESTION} ({begin} rate {self.rate:g} tokens {self.tokens})"


@dataclass(frozen=True, slots=True)
class Read:
    """One stream as its reader saw it: when each token came and how late, in milliseconds."""

    status: int
    sent: float
    arrivals: tuple[tuple[float, float], ...]
    timings: dict[str, float]

    @property
    def first_word(self) -> float:
        return self.arrivals[0][0] - self.sent


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument(
        "--crowds", nargs="+", default=["500x20", "100x100"], help="streams x tokens a second"
    )
    parser.add_argument("--quick", action="store_true", help="a tenth of the work")
    parser.add_argument("--pace", type=float, default=3, help="questions a second")
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=WAYS)
    parser.add_argument("--at-once", action="store_true", help="tokens of all come together")
    options = parser.parse_args()
    share = 0.1 if options.quick else 1.0
    port = free_port()
    model = subprocess.Popen(
        [sys.executable, "-m", "benchmarks._scripted_model", str(port)], cwd=ROOT
    )
    url = f"http://127.0.0.1:{port}/v1"
    limits = {"LLM_MAX_RUNNING": "2000", "LLM_MAX_WAITING": "2000"}
    # While all are asked, the first ones wait.
    limits |= {"LLM_FIRST_TOKEN_TIMEOUT_SECONDS": "600", "ANSWER_DEADLINE_SECONDS": "900"}
    try:
        with running_site(
            WEB_CONCURRENCY="1", LLM_BASE_URL=url, LLM_MODEL="scripted", **limits
        ) as site:
            collection = upload(site, [*documents(59), ANSWERING])
            wait(site, collection, 60)
            bench = Bench(site, url, spread=0.0 if options.at_once else 1.0)
            bench.first_words(options.ways, rounds=max(5, int(30 * share)))
            for crowd in options.crowds:
                streams, rate = map(int, crowd.split("x"))
                streams = max(10, int(streams * share))
                # Questions come no faster than they can be searched for.
                bench.many(options.ways, streams, rate, ramp=streams / options.pace)
    finally:
        model.terminate()
        model.wait()


class Bench:
    def __init__(self, site: Site, model_url: str, *, spread: float) -> None:
        """``spread``: seconds over which the streams of a crowd get their first tokens."""
        self._site, self._spread = site, spread
        self._model_url = model_url
        root = str(site.api.base_url).rstrip("/")
        self._root, self._api = root.removesuffix("/api/v1"), root
        self._headers = {"Authorization": site.api.headers["Authorization"]}

    def first_words(self, ways: Sequence[str], *, rounds: int) -> None:
        """One stream at a time, the ways in turns."""
        script = Script(0.05, 100, 20)
        reads: dict[str, list[Read]] = {way: [] for way in ("bare", *WAYS)}
        for number in range(rounds + 2):
            for way, found in reads.items():
                (read,) = self._read(way, script, streams=1, ramp=0)
                if number >= 2:
                    found.append(read)
        bare = statistics.median(read.first_word for read in reads["bare"])
        # OpenAI's shape has no place for timings: its way to the model is a one-shot answer's.
        timed = reads | {"openai": reads["one-shot"]}
        _say(f"time to the first word, medians of {rounds}; bare model server {bare:.1f} ms")
        for way in ways:
            total = statistics.median(read.first_word for read in reads[way])
            search = statistics.median(read.timings["retrieval"] for read in timed[way])
            within = statistics.median(read.timings["first_token"] for read in timed[way])
            _say(
                f"  {way:9} {total:6.1f} ms: request, rights and delivery {total - within:.1f},"
                f" retrieval {search:.1f}, prompt and model {within - search:.1f};"
                f" added without retrieval {total - search - bare:.1f}"
            )

    def many(self, ways: Sequence[str], streams: int, rate: float, *, ramp: float) -> None:
        """Many streams at once, each way after the bare server, while all of them run."""
        script = Script(0.05, rate, int(rate * HOLD_SECONDS))
        _say(f"{streams} streams of {rate:g} tokens a second, {script.tokens} tokens each")
        bare = _Crowd(self._read("bare", script, streams=streams, ramp=1))
        _say(f"  bare      {bare.rate:8.0f} tokens/s, delay p95 {_p95(bare.delays):.1f} ms")
        for way in ways:
            with watched_web(self._site) as samples:
                reads = self._read(way, script, streams=streams, ramp=ramp)
            crowd = _Crowd(reads)
            errors = sum(read.status != 200 for read in reads)
            whole = sum(len(read.arrivals) == script.tokens for read in reads)
            growth = (max(sample.mebibytes for sample in samples) - samples[0].mebibytes) / streams
            _say(
                f"  {way:9} {crowd.rate:8.0f} tokens/s, ratio {crowd.rate / bare.rate:.3f};"
                f" {errors} errors, {whole} whole; delay p50 {statistics.median(crowd.delays):.0f},"
                f" p95 {_p95(crowd.delays):.0f} ms, added p95"
                f" {_p95(crowd.delays) - _p95(bare.delays):.0f} ms; {growth:.2f} MiB a stream;"
                f" web {crowd.cpu(samples):.0f} us of CPU a token"
            )
            meanwhile = crowd.meanwhile(samples)
            _say(
                f"            meanwhile: a list in {_p95([s.answer for s in meanwhile]):.0f} ms at"
                f" p95, at most {max(s.threads for s in meanwhile)} threads and"
                f" {max(s.database.open for s in meanwhile)} connections, idle inside a transaction"
                f" for at most {max(s.database.longest_idle for s in meanwhile) * 1000:.0f} ms"
            )

    def _read(self, way: str, script: Script, *, streams: int, ramp: float) -> list[Read]:
        urls, scripts = self._addresses(way, streams), [script] * streams
        if streams > 1:
            begin = time.monotonic() + ramp + LATEST_SECONDS
            scripts = [
                replace(script, at=begin + self._spread * n / streams) for n in range(streams)
            ]
        follow = f"{self._api}/answers/{{}}/events" if way == "stored" else ""
        job = {
            "urls": urls,
            "bodies": [_body(way, each) for each in scripts],
            "headers": self._headers,
            "follow": follow,
            "ramp": ramp,
        }
        done = subprocess.run(
            [sys.executable, "-m", "benchmarks._stream_load"],
            input=json.dumps(job),
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=True,
        )
        return [_seen(each) for each in json.loads(done.stdout)]

    def _addresses(self, way: str, streams: int) -> list[str]:
        match way:
            case "bare":
                return [f"{self._model_url}/chat/completions"] * streams
            case "one-shot":
                return [f"{self._api}/answers/"] * streams
            case "openai":
                return [f"{self._root}/v1/chat/completions"] * streams
        made = [
            self._site.api.post("/conversations/", json={"title": "A stream"})
            for _ in range(streams)
        ]
        return [f"{self._api}/conversations/{m.json()['id']}/messages/" for m in made]


def _body(way: str, script: Script) -> dict[str, Any]:
    match way:
        case "one-shot":
            return {"question": str(script), "stream": True}
        case "stored":
            return {"content": str(script)}
    model = "scripted" if way == "bare" else "knowledge"
    message = {"role": "user", "content": str(script)}
    return {"model": model, "stream": True, "messages": [message]}


def _seen(raw: dict[str, Any]) -> Read:
    """Finds the tokens in what came, also where a piece ends in the middle of one."""
    arrivals: list[tuple[float, float]] = []
    rest = ""
    for at, piece in raw["pieces"]:
        rest += piece
        found = list(_STAMP.finditer(rest))
        arrivals += [(at, at - int(match[1]) / 10) for match in found]
        rest = rest[found[-1].end() :] if found else rest
    timings = _TIMINGS.search(rest)
    return Read(
        raw["status"],
        raw["sent"],
        tuple(arrivals),
        json.loads(timings[1]) if timings else {},
    )


class _Crowd:
    """The tokens of all streams, from when the last one began until the first one ended."""

    def __init__(self, reads: Sequence[Read]) -> None:
        running = [read for read in reads if read.arrivals]
        self._from = max(read.arrivals[0][0] for read in running)
        self._to = min(read.arrivals[-1][0] for read in running)
        self.delays = [
            delay for read in running for at, delay in read.arrivals if self._from <= at <= self._to
        ]
        if self._to - self._from < 1000 or not self.delays:
            raise SystemExit("The streams never ran all at once: this machine is too busy.")

    @property
    def rate(self) -> float:
        return len(self.delays) / (self._to - self._from) * 1000

    def meanwhile(self, samples: Sequence[Sample]) -> list[Sample]:
        return [sample for sample in samples if self._from <= sample.at <= self._to]

    def cpu(self, samples: Sequence[Sample]) -> float:
        """Microseconds of the web process for each token."""
        within = self.meanwhile(samples)
        used = within[-1].cpu_seconds - within[0].cpu_seconds
        tokens = self.rate * (within[-1].at - within[0].at) / 1000
        return used / tokens * 1e6


def _say(line: str) -> None:
    print(line, flush=True)


def _p95(values: Sequence[float]) -> float:
    return statistics.quantiles(values, n=20)[-1] if len(values) > 1 else sum(values)


@dataclass(frozen=True, slots=True)
class Sample:
    """The web process at a moment of the monotonic clock, in milliseconds.

    ``answer`` is how long a list of collections took, in milliseconds.
    """

    at: float
    mebibytes: float
    cpu_seconds: float
    threads: int
    answer: float
    database: Activity


@contextmanager
def watched_web(site: Site) -> Iterator[list[Sample]]:
    """Samples of the web process, twice a second."""
    children = psutil.Process(site.process).children()
    web = next(process for process in children if "uvicorn" in " ".join(process.cmdline()))
    samples: list[Sample] = []
    ended = threading.Event()

    def look() -> None:
        times, at = web.cpu_times(), time.monotonic() * 1000
        memory = web.memory_info().rss / 2**20
        site.api.get("/collections/").raise_for_status()
        answer = time.monotonic() * 1000 - at
        with psycopg.connect(site.services["database_url"], autocommit=True) as database:
            found = activity(database)
        used = times.user + times.system
        samples.append(Sample(at, memory, used, web.num_threads(), answer, found))

    def watch() -> None:
        while not ended.wait(0.5):
            look()

    look()
    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield samples
    finally:
        ended.set()
        watcher.join()


if __name__ == "__main__":
    main()
