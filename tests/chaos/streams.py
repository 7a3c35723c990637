"""Streams under faults: C-09, C-14, C-15, C-16, C-17 against a real site and a scripted model.

    python -m tests.chaos.streams [--faults C-09 …] [--share 1.0]

``--share`` shrinks everything; 1.0 is the full form. Exits with 1 when anything does not hold.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import httpx

from assistant.embedded.console import say
from assistant.embedded.ports import free_port
from tests.chaos.corpus import Item
from tests.chaos.site import Site, running_site, wait_until
from tests.up_process import ROOT

WAYS = ("one-shot", "openai", "stored")


@dataclass
class Trial:
    """One fault: what it works on, and what it found."""

    site: Site
    model_url: str
    share: float
    idle: float
    random: random.Random
    figures: dict[str, Any] = field(default_factory=dict)
    complaints: list[str] = field(default_factory=list)

    def times(self, full: int) -> int:
        return max(3, round(full * self.share))

    def check(self, is_so: bool, complaint: str) -> None:
        if not is_so:
            self.complaints.append(complaint)

    @property
    def root(self) -> str:
        return f"http://127.0.0.1:{self.site.up.port}"

    def client(self, root: str = "") -> httpx.AsyncClient:
        return httpx.AsyncClient(
            base_url=root or self.root,
            headers={"Authorization": f"Bearer {self.site.token}"},
            timeout=180,
            limits=httpx.Limits(max_connections=None, max_keepalive_connections=0),
        )

    def upstream_running(self) -> int:
        running: int = httpx.get(f"{self.model_url}/state").json()["active"]
        return running


def question(*, first: float, rate: float, tokens: int) -> str:
    return f"What does the handbook say? (first {first} rate {rate} tokens {tokens})"


async def ask(client: httpx.AsyncClient, text: str, *, key: str = "") -> str:
    """The id of the answer of a new conversation; with ``key`` the question is sent twice."""
    made = (
        await client.post("/api/v1/conversations/", json={"title": "A trial"})
    ).raise_for_status()
    url = f"/api/v1/conversations/{made.json()['id']}/messages/"
    headers = {"Idempotency-Key": key} if key else {}
    sent = [client.post(url, json={"content": text}, headers=headers) for _ in range(1 + bool(key))]
    answers = {a.raise_for_status().json()["answer"]["id"] for a in await asyncio.gather(*sent)}
    assert len(answers) == 1, "a key asked twice"
    answer_id: str = answers.pop()
    return answer_id


@asynccontextmanager
async def opened(
    client: httpx.AsyncClient, way: str, text: str, *, after: int = 0, answer: str = ""
) -> AsyncIterator[httpx.Response]:
    """The response of one stream, by any of the ways."""
    if way == "openai":
        body: Any = {"model": "knowledge", "stream": True}
        body["messages"] = [{"role": "user", "content": text}]
        request = client.stream("POST", "/v1/chat/completions", json=body)
    elif way == "one-shot":
        request = client.stream("POST", "/api/v1/answers/", json={"question": text, "stream": True})
    else:
        answer = answer or await ask(client, text)
        headers = {"Last-Event-ID": str(after)} if after else {}
        request = client.stream("GET", f"/api/v1/answers/{answer}/events", headers=headers)
    async with request as response:
        yield response


@dataclass
class Reader:
    """One person's view of a stored answer, over any number of connections."""

    answer: str
    events: dict[int, tuple[str, str]] = field(default_factory=dict)
    doubled: int = 0
    connections: int = 0
    statuses: list[int] = field(default_factory=list)
    told_to_come_back: bool = False

    @property
    def last(self) -> str:
        return self.events[max(self.events)][0] if self.events else ""

    @property
    def text(self) -> str:
        found = (data for _, (name, data) in sorted(self.events.items()) if name == "delta")
        return "".join(json.loads(data)["text"] for data in found)

    async def read(self, client: httpx.AsyncClient, *, most: int = 1 << 30) -> None:
        """One connection, left after ``most`` bytes."""
        self.connections += 1
        after = max(self.events, default=0)
        async with opened(client, "stored", "", after=after, answer=self.answer) as response:
            self.statuses.append(response.status_code)
            rest = ""
            async for piece in response.aiter_text():
                most -= len(piece)
                *frames, rest = (rest + piece).split("\n\n")
                for frame in frames:
                    self._take(frame)
                if most <= 0:
                    return

    def _take(self, frame: str) -> None:
        lines = dict(line.split(": ", 1) for line in frame.splitlines() if line[:1] not in ":")
        self.told_to_come_back |= "retry" in lines
        if "id" in lines:
            number = int(lines["id"])
            self.doubled += number in self.events
            self.events[number] = (lines["event"], lines["data"])

    async def read_to_the_end(self, *clients: httpx.AsyncClient) -> None:
        """Comes back with the last number, to the next of ``clients``, like a browser."""
        turn = 0
        while self.last not in ("done", "error"):
            try:
                await self.read(clients[min(turn, len(clients) - 1)])
            except httpx.HTTPError:
                await asyncio.sleep(0.2)
            turn += 1


async def resume(trial: Trial) -> None:
    """C-17: connections dropped at random; every question is sent twice with one key."""
    script = question(first=0.05, rate=100, tokens=100)
    ends = asyncio.Semaphore(10)
    readers: list[Reader] = []

    async def one(number: int) -> None:
        async with ends, trial.client() as client:
            reader = Reader(await ask(client, script, key=f"key-{number}"))
            whole = Reader(reader.answer)
            readers.append(reader)
            beside = asyncio.create_task(whole.read_to_the_end(client))
            while reader.last not in ("done", "error"):
                await reader.read(client, most=trial.random.randint(1, 1500))
            await beside
            stored = (await client.get(f"/api/v1/answers/{reader.answer}/")).json()
            trial.check(reader.events == whole.events, "C-17 the resumed stream differs")
            trial.check(reader.text == stored["text"], "C-17 the text differs from the stored one")
            trial.check(reader.last == "done" and not reader.doubled, "C-17 an event came twice")

    await asyncio.gather(*(one(number) for number in range(trial.times(200))))
    trial.figures["answers"] = len(readers)
    trial.figures["connections dropped"] = sum(reader.connections - 1 for reader in readers)
    doubled = trial.site.one(
        "SELECT count(*) FROM (SELECT 1 FROM chat_message GROUP BY conversation_id"
        " HAVING count(*) > 2) AS more"
    )
    trial.check(doubled == 0, f"C-17 {doubled} questions were stored twice")


async def leave_early(trial: Trial) -> None:
    """C-14: clients go away at random moments; nothing goes on without them."""
    await asyncio.sleep(1)
    before = trial.site.web_use()
    script = question(first=0.05, rate=50, tokens=2000)
    at_once = asyncio.Semaphore(20)

    async def one(number: int) -> None:
        async with at_once, trial.client() as client:
            left = trial.random.randint(0, 3000)
            async with opened(client, WAYS[number % 2], script) as response:
                async for piece in response.aiter_bytes():
                    left -= len(piece)
                    if left <= 0:
                        return

    count = trial.times(1000)
    await asyncio.gather(*(one(number) for number in range(count)))
    seconds = await asyncio.to_thread(
        wait_until, lambda: trial.upstream_running() == 0, seconds=30, pause=0.05
    )
    trial.figures["clients that left"] = count
    trial.figures["upstream ended after"] = seconds
    # By itself it goes on for 40 s; the short form runs beside whatever a machine does.
    limit = 2 if trial.share >= 1 else 20
    trial.check(seconds <= limit, f"C-14 the model server went on for {seconds:.1f} s")

    def is_tidy() -> bool:
        now = trial.site.web_use()
        return _held_places(trial) == 0 and now.threads <= threads and now.files <= files

    threads = before.threads + 25 * before.processes
    files = before.files + 50 * before.processes
    with suppress(TimeoutError):
        await asyncio.to_thread(wait_until, is_tidy, seconds=30)
    trial.check(_held_places(trial) == 0, f"C-14 {_held_places(trial)} places in the line are held")
    after = trial.site.web_use()
    trial.figures["threads before, after"] = f"{before.threads}, {after.threads}"
    trial.figures["files before, after"] = f"{before.files}, {after.files}"
    trial.check(is_tidy(), "C-14 threads or files are left over")
    busy = trial.site.one(
        "SELECT count(*) FROM pg_stat_activity WHERE state = 'idle in transaction'"
        " AND state_change < now() - interval '1 second'"
    )
    trial.check(busy == 0, f"C-14 {busy} connections are idle in a transaction")


def _held_places(trial: Trial) -> int:
    """Leases that have not ended: who leaves before the first byte leaves one, for 15 s at most."""
    broker: Any = trial.site.broker()
    seconds, _ = broker.time()
    return int(broker.zcount("{llm}:running", seconds * 1000, "+inf"))


async def read_slowly(trial: Trial) -> None:
    """C-15: readers of ten bytes a second; the others do not notice, and memory does not grow."""
    count = trial.times(100)
    seconds = max(3.0, 30 * trial.share)
    # The same streams in both rounds, so that only the readers differ.
    quick_waits, _ = await _others_beside(trial, count, seconds, pause=0)
    slow_waits, growth = await _others_beside(trial, count, seconds, pause=0.1)
    quick, slow = _p95(quick_waits), _p95(slow_waits)
    trial.figures["slow readers"] = count
    trial.figures["MiB a stream"] = f"{growth / count:.2f}"
    trial.figures["p95 of others, quick readers"] = quick
    trial.figures["p95 of others, slow readers"] = slow
    # Few streams do not tell what one costs from what a process takes for itself.
    own = 32 * trial.site.web_use().processes
    trial.check(growth <= max(count, own), f"C-15 memory grew by {growth:.0f} MiB")
    if len(slow_waits) >= 100:  # fewer do not tell a p95
        trial.check(slow <= 1.5 * quick + 0.05, f"C-15 the others waited {slow:.2f} s at p95")


async def _others_beside(
    trial: Trial, count: int, seconds: float, *, pause: float
) -> tuple[list[float], float]:
    """What others wait, in seconds, beside ``count`` streams, and by how many MiB memory grew.

    Half of the streams are stored answers. Their readers rest ``pause`` seconds after each byte;
    with 0 they take all that comes.
    """
    script = question(first=0.05, rate=50, tokens=int(50 * seconds))
    async with trial.client() as client:
        answers = [await ask(client, script) for _ in range(count // 2)]
        before = peak = trial.site.web_use().mebibytes
        paths = [f"GET /api/v1/answers/{answer}/events" for answer in answers]
        paths += ["POST /api/v1/answers/"] * (count - len(paths))
        ends = time.monotonic() + seconds
        readers = [asyncio.create_task(_crawl(trial, p, script, ends, pause)) for p in paths]
        await asyncio.sleep(1)
        waits: list[float] = []
        while time.monotonic() < ends:
            began = time.monotonic()
            (await client.get("/api/v1/collections/")).raise_for_status()
            waits.append(time.monotonic() - began)
            peak = max(peak, trial.site.web_use().mebibytes)
            await asyncio.sleep(0.1)
        read = await asyncio.gather(*readers)
        trial.check(all(read), "C-15 a stream was refused")
    await asyncio.to_thread(wait_until, lambda: trial.upstream_running() == 0, seconds=60)
    return waits, peak - before


def _p95(values: list[float]) -> float:
    return sorted(values)[int(0.95 * len(values))]


async def _crawl(trial: Trial, path: str, script: str, ends: float, pause: float) -> bool:
    """Reads until ``ends`` (monotonic) through the smallest window there is; True on a 200."""
    loop = asyncio.get_running_loop()
    body = json.dumps({"question": script, "stream": True}) if path.startswith("POST") else ""
    with socket.socket() as plain:
        plain.setblocking(False)
        if pause:
            plain.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
            # Small segments as over a network: the loopback's would let the kernel hold megabytes.
            plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, 536)
        await loop.sock_connect(plain, ("127.0.0.1", trial.site.up.port))
        head = (
            f"{path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {trial.site.token}\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        await loop.sock_sendall(plain, (head + body).encode())
        first = b""
        with suppress(TimeoutError):
            async with asyncio.timeout(ends - time.monotonic()):
                while data := await loop.sock_recv(plain, 1 if pause else 65536):
                    first = (first + data)[:12]
                    await asyncio.sleep(pause)
    return first == b"HTTP/1.1 200"


async def stay_silent(trial: Trial) -> None:
    """C-16: a proxy that cuts idle connections, and a model that thinks for longer."""
    silence = max(trial.idle + 3, 120 * trial.share)
    script = question(first=silence, rate=100, tokens=50)
    async with _proxy(trial.site.up.port, idle=trial.idle) as (port, cuts):
        async with trial.client(f"http://127.0.0.1:{port}") as client:

            async def one(way: str) -> None:
                async with opened(client, way, script) as response:
                    text = "".join([piece async for piece in response.aiter_text()])
                is_whole = "[DONE]" in text if way == "openai" else "event: done" in text
                trial.check(is_whole, f"C-16 {way} was not whole: {text[-200:]!r}")

            await asyncio.gather(*(one(way) for way in WAYS))
        trial.check(not cuts, f"C-16 the proxy cut {len(cuts)} connections")
    trial.figures["silence of the model"] = silence


@asynccontextmanager
async def _proxy(target: int, *, idle: float) -> AsyncIterator[tuple[int, list[str]]]:
    """A TCP proxy that cuts a connection whose server says nothing for ``idle`` seconds."""
    cuts: list[str] = []

    async def forward(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        from_server, to_server = await asyncio.open_connection("127.0.0.1", target)
        upward = asyncio.create_task(forward(reader, to_server))
        try:
            while data := await asyncio.wait_for(from_server.read(65536), idle):
                writer.write(data)
                await writer.drain()
        except TimeoutError:
            cuts.append("idle")
        except (OSError, asyncio.CancelledError):
            pass  # the client went, or the test is over
        finally:
            upward.cancel()
            to_server.close()
            writer.close()

    server = await asyncio.start_server(handle, "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1], cuts


async def deploy(trial: Trial) -> None:
    """C-09: SIGTERM to a web process that writes and serves 50 streams, beside another one."""
    count = trial.times(50)
    with _second_web(trial) as (second, root):
        async with trial.client(root) as old, trial.client() as new:
            await _until_it_answers(old)
            script = question(first=0.05, rate=20, tokens=60)
            too_long = question(first=0.05, rate=20, tokens=4000)
            scripts = [script] * (count - 2) + [too_long] * 2
            answers = await asyncio.gather(*(ask(old, each) for each in scripts))
            readers = [Reader(answer) for answer in answers]
            watched = [
                # Half of the readers are at the process that stays.
                asyncio.create_task(reader.read_to_the_end(*((old, new) if i % 2 else (new,))))
                for i, reader in enumerate(readers)
            ]
            async with asyncio.timeout(120):
                while not all(reader.text for reader in readers):
                    await asyncio.sleep(0.1)
            second.send_signal(signal.SIGTERM)
            began = time.monotonic()
            code = await asyncio.to_thread(second.wait, 60)
            trial.figures["drained in"] = time.monotonic() - began
            trial.check(time.monotonic() - began <= 30, "C-09 draining took too long")
            trial.check(code in (0, -signal.SIGTERM), f"C-09 the process ended with {code}")
            async with asyncio.timeout(60):
                await asyncio.gather(*watched)
            for reader in readers:
                stored = (await new.get(f"/api/v1/answers/{reader.answer}/")).json()
                trial.check(reader.text == stored["text"], "C-09 a reader misses something")
                trial.check(not reader.doubled, "C-09 an event came twice")
                trial.check(
                    stored["status"] in ("done", "interrupted"), f"C-09 left {stored['status']}"
                )
                wrong = [status for status in reader.statuses if status >= 500]
                trial.check(not wrong, f"C-09 a reader got {wrong}")
            done = sum(reader.last == "done" for reader in readers)
            trial.figures["streams, finished"] = f"{count}, {done}"
            trial.figures["told to come back"] = sum(r.told_to_come_back for r in readers)
            trial.check(done >= count - 2, f"C-09 only {done} answers were finished")


@contextmanager
def _second_web(trial: Trial) -> Iterator[tuple[subprocess.Popen[bytes], str]]:
    web = trial.site.child("uvicorn")
    assert web is not None
    port = free_port()
    command = web.cmdline()
    command[command.index("--port") + 1] = str(port)
    second = subprocess.Popen(command, cwd=ROOT, env=web.environ(), stderr=subprocess.DEVNULL)
    try:
        yield second, f"http://127.0.0.1:{port}"
    finally:
        second.kill()
        second.wait()


async def _until_it_answers(client: httpx.AsyncClient) -> None:
    async with asyncio.timeout(60):
        while True:
            try:
                if (await client.get("/health/live")).status_code == 200:
                    return
            except httpx.HTTPError:
                await asyncio.sleep(0.2)


FAULTS: dict[str, Callable[[Trial], Coroutine[Any, Any, None]]] = {
    "C-09": deploy,
    "C-14": leave_early,
    "C-15": read_slowly,
    "C-16": stay_silent,
    "C-17": resume,
}


@contextmanager
def model_server() -> Iterator[str]:
    port = free_port()
    command = [sys.executable, "-m", "benchmarks._scripted_model", str(port)]
    model = subprocess.Popen(command, cwd=ROOT)
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        model.kill()
        model.wait()


def run(faults: list[str], *, share: float, idle: float, seed: int = 1) -> dict[str, Trial]:
    """Each fault on one site; ``idle`` is the proxy's limit in seconds."""
    trials: dict[str, Trial] = {}
    with model_server() as url:
        settings: dict[str, Any] = {
            "LLM_BASE_URL": f"{url}/v1",
            "LLM_MODEL": "scripted",
            "LLM_FIRST_TOKEN_TIMEOUT_SECONDS": "150",
            "LLM_MAX_RUNNING": "1000",
            "HEARTBEAT_SECONDS": str(max(1, min(10, int(idle / 3)))),
        }
        with running_site(**settings) as site:
            collection = site.new_collection("Streams")
            text = "# Handbook\n\nThe handbook says what everybody may expect of each other.\n"
            site.upload(collection, [Item("handbook", "handbook.md", text.encode())])
            wait_until(lambda: site.open_jobs() == 0, seconds=120)
            for name in faults:
                trial = trials[name] = Trial(site, url, share, idle, random.Random(seed))
                asyncio.run(FAULTS[name](trial))
    return trials


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--faults", nargs="+", choices=sorted(FAULTS), default=sorted(FAULTS))
    parser.add_argument("--share", type=float, default=1.0)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(124))
    idle = max(5.0, 60 * options.share)
    trials = run(options.faults, share=options.share, idle=idle, seed=options.seed)
    for name, trial in trials.items():
        say(f"\n{name}")
        for key, value in trial.figures.items():
            say(f"  {key:<28}{f'{value:.2f} s' if isinstance(value, float) else value!s:>14}")
        for complaint in sorted(set(trial.complaints))[:20]:
            say(f"  FAILED  {complaint}")
    sys.exit(any(trial.complaints for trial in trials.values()))


if __name__ == "__main__":
    main()
