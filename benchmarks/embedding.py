"""What the embedding server costs over bare sentence-transformers, and how long queries wait.

    python -m benchmarks.embedding [--texts 192] [--rounds 3]

Starts the server of this repository on a free port and, in this process, the same weights in the
same arithmetic (bf16 where the CPU has it) as a bare ``SentenceTransformer.encode`` with batch
32. Both embed the same texts of about 240 tokens in turns, so that a noisy machine disturbs both
alike. Prints

- throughput: texts per second through HTTP over texts per second of bare encode (aim: 0.95), by
  the clock, and by processor time of the server over that of bare encode, which other programs on
  the machine disturb less,
- agreement: the smallest cosine between the server's vectors and float32 vectors,
- query latency: median and 95th percentile, idle and while bulk is running.

Ratios mean something on any machine; the absolute figures only here.
"""

from __future__ import annotations

import argparse
import os
import socket
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

from inference.embedder import HTTPEmbedder
from inference.embedding_models import EmbeddingModel, resolve_model
from inference.serving.encoder import cpu_has_bf16
from inference.tokens import load_token_counter

_PROSE = (
    "the quarterly report of a regional office describes how travel expenses were approved and "
    "which suppliers delivered late so that purchasing could renegotiate contracts before winter "
    "while engineers measured pumps valves heat exchangers and wrote down every deviation found"
)
_WORDS = _PROSE.split()


def passages(model: EmbeddingModel, count: int, *, tokens: int = 240) -> list[str]:
    """Distinct texts of ``tokens`` tokens."""
    counter = load_token_counter(model)
    texts = []
    for number in range(count):
        words = [f"Item {number}:"]
        words += [
            _WORDS[(number * 7 + at * (1 + number % 5)) % len(_WORDS)] for at in range(tokens)
        ]
        text = " ".join(words)
        texts.append(text[: counter.offsets(text)[tokens - 1][1]])
    return texts


@contextmanager
def server(*arguments: str) -> Iterator[tuple[str, int]]:
    """The base URL and process id of a server that has loaded its model."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "inference.serving.embedding_server", "--port", str(port)]
    process = subprocess.Popen([*command, *arguments])
    try:
        started = time.monotonic()
        while True:
            try:
                if httpx.get(f"http://127.0.0.1:{port}/health").status_code == 200:
                    break
            except httpx.TransportError:
                pass
            if process.poll() is not None or time.monotonic() - started > 120:
                raise RuntimeError("the embedding server did not start")
            time.sleep(0.1)
        print(f"server ready after {time.monotonic() - started:.1f} s")
        yield f"http://127.0.0.1:{port}/v1", process.pid
    finally:
        process.terminate()
        process.wait(timeout=20)


def load_bare(model: EmbeddingModel, *, bf16: bool) -> Any:
    os.environ.update(HF_HUB_OFFLINE="1", DO_NOT_TRACK="1")
    import torch
    from sentence_transformers import SentenceTransformer

    dtype = torch.bfloat16 if bf16 else torch.float32
    return SentenceTransformer(model.source, device="cpu", model_kwargs={"dtype": dtype})


def per_second(work: Any, texts: Sequence[str]) -> float:
    started = time.perf_counter()
    work(texts)
    return len(texts) / (time.perf_counter() - started)


def processor_seconds(pid: int) -> float:
    """User and system time of a process so far (Linux)."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def query_milliseconds(embedder: HTTPEmbedder, count: int) -> list[float]:
    times = []
    for number in range(count):
        started = time.perf_counter()
        embedder.embed([f"who approves travel expenses in office {number}?"], kind="query")
        times.append((time.perf_counter() - started) * 1000)
        time.sleep(0.05)
    return times


def spread(times: Sequence[float]) -> str:
    ordered = sorted(times)
    p95 = ordered[min(len(ordered) - 1, int(len(ordered) * 0.95))]
    return f"p50 {statistics.median(ordered):.0f} ms, p95 {p95:.0f} ms"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--texts", type=int, default=192)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--server-arguments", nargs=argparse.REMAINDER, default=[])
    arguments = parser.parse_args()
    model = resolve_model()
    texts = passages(model, arguments.texts)
    bf16 = cpu_has_bf16()
    bare = load_bare(model, bf16=bf16)
    exact = load_bare(model, bf16=False).encode(texts[:32], normalize_embeddings=True)

    def encode(batch: Sequence[str]) -> None:
        bare.encode(list(batch), batch_size=32, show_progress_bar=False)

    with server(*arguments.server_arguments) as (url, pid):
        embedder = HTTPEmbedder(url, model.spec)
        cosine = (embedder.embed(texts[:32], kind="passage") * exact).sum(axis=1).min()
        encode(texts[:32])
        ratios, work_ratios = [], []
        for _ in range(arguments.rounds):
            before = processor_seconds(os.getpid())
            alone = per_second(encode, texts)
            alone_work = processor_seconds(os.getpid()) - before
            before = processor_seconds(pid)
            served = per_second(lambda batch: embedder.embed(batch, kind="passage"), texts)
            ratios.append(served / alone)
            work_ratios.append(alone_work / (processor_seconds(pid) - before))
            print(f"  bare {alone:.1f} texts/s, served {served:.1f} texts/s")
        idle = query_milliseconds(embedder, 20)
        bulk = threading.Thread(target=embedder.embed, args=(texts,), kwargs={"kind": "passage"})
        bulk.start()
        loaded = []
        while bulk.is_alive():
            loaded += query_milliseconds(embedder, 1)
    print(f"arithmetic: {'bfloat16' if bf16 else 'float32'}, smallest cosine {cosine:.5f}")
    print(f"throughput ratio served / bare encode: {statistics.median(ratios):.2f}")
    print(f"ratio by processor time: {statistics.median(work_ratios):.2f}")
    print(f"query latency idle: {spread(idle)}")
    print(f"query latency under bulk ({len(loaded)} queries): {spread(loaded)}")
    print(f"ratio loaded / idle: {statistics.median(loaded) / statistics.median(idle):.1f}")


if __name__ == "__main__":
    main()
