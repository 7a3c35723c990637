from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path

import httpx
import numpy as np
import pytest

from inference.embedder import HTTPEmbedder
from inference.embedding_models import resolve_model
from inference.serving.batching import Batcher
from inference.serving.embedding_server import MAX_TEXTS, EmbeddingService
from inference.serving.encoder import cpu_has_bf16
from inference.serving.shelf import MAX_MODELS, Shelf
from inference.types import Vectors

ROOT = Path(__file__).parents[2]


class Lengths:
    def release_memory(self) -> None:
        """Nothing is held."""

    def encode(self, texts: Sequence[str]) -> Vectors:
        if "boom" in texts:
            raise RuntimeError("secret internals")
        rows = np.ones((len(texts), 384), dtype=np.float32)
        rows[:, 0] = [len(text) for text in texts]
        return rows


@contextlib.asynccontextmanager
async def client(*, api_key: str | None = None) -> AsyncIterator[httpx.AsyncClient]:
    shelf = Shelf(resolve_model(), lambda _: Batcher(Lengths))
    service = EmbeddingService(shelf, api_key=api_key)
    shelf.first.batcher.start()
    transport = httpx.ASGITransport(service.app())
    async with httpx.AsyncClient(transport=transport, base_url="http://embed.test") as http:
        yield http
    shelf.close()


async def test_strings_lists_floats_and_base64() -> None:
    async with client() as http:
        one = (await http.post("/v1/embeddings", json={"input": "abc"})).json()
        assert one["data"][0]["embedding"][:2] == [3.0, 1.0]
        assert one["usage"]["prompt_tokens"] == 3
        packed = {"input": ["a", "bb"], "encoding_format": "base64", "model": "all-MiniLM-L6-v2"}
        two = (await http.post("/v1/embeddings", json=packed)).json()
        vectors = [np.frombuffer(base64.b64decode(d["embedding"]), "<f4") for d in two["data"]]
        assert [vector[0] for vector in vectors] == [1.0, 2.0]
        assert (await http.get("/v1/models")).json()["data"][0]["max_model_len"] == 256


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"{", 400),
        (b"[]", 400),
        (b"{}", 400),
        (json.dumps({"input": []}).encode(), 400),
        (json.dumps({"input": ["a", 1]}).encode(), 400),
        (json.dumps({"input": ["a"] * (MAX_TEXTS + 1)}).encode(), 400),
        (json.dumps({"input": "a", "encoding_format": "int8"}).encode(), 400),
        (json.dumps({"input": "a", "dimensions": 8}).encode(), 400),
        (json.dumps({"input": "a", "model": "gpt-4"}).encode(), 404),
        (json.dumps({"input": "boom"}).encode(), 500),
        (b" " * (33 * 1024 * 1024), 413),
    ],
)
async def test_refusals_have_the_openai_shape(body: bytes, status: int) -> None:
    async with client() as http:
        answer = await http.post("/v1/embeddings", content=body)
        assert answer.status_code == status
        assert answer.json()["error"]["message"]
        assert "secret" not in answer.text
        assert (await http.post("/v1/embeddings", json={"input": "a"})).status_code == 200


async def test_the_key_guards_the_api() -> None:
    async with client(api_key="k") as http:
        assert (await http.post("/v1/embeddings", json={"input": "a"})).status_code == 401
        assert (await http.get("/v1/models")).status_code == 401
        with_key = {"Authorization": "Bearer k"}
        answer = await http.post("/v1/embeddings", json={"input": "a"}, headers=with_key)
        assert answer.status_code == 200
        assert (await http.get("/health")).status_code == 200


def _model_directory(parent: Path, name: str, *, dimension: int = 384) -> str:
    folder = parent / name
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"hidden_size": dimension, "name": name}))
    return str(folder)


async def test_a_second_model_is_served_beside_the_first(tmp_path: Path) -> None:
    async with client() as http:
        added = await http.post("/v1/models", json={"model": _model_directory(tmp_path, "next")})
        assert added.status_code in {200, 202}
        listed = (await http.get("/v1/models")).json()["data"]
        assert [card["id"] for card in listed] == ["all-MiniLM-L6-v2", "next"]
        answer = await http.post("/v1/embeddings", json={"input": "abc", "model": "next"})
        assert answer.json()["model"] == "next"
        assert 'embedding_batches_total{model="next"} 1' in (await http.get("/metrics")).text
        assert (await http.delete("/v1/models/next")).status_code == 204
        gone = await http.post("/v1/embeddings", json={"input": "abc", "model": "next"})
        assert gone.status_code == 404
        assert (await http.delete("/v1/models/all-MiniLM-L6-v2")).status_code == 404


async def test_models_are_bounded_and_must_exist(tmp_path: Path) -> None:
    async with client() as http:
        for number in range(MAX_MODELS - 1):
            source = _model_directory(tmp_path, f"model-{number}")
            assert (await http.post("/v1/models", json={"model": source})).is_success
            assert (await http.post("/v1/models", json={"model": source})).is_success  # the same
        full = await http.post("/v1/models", json={"model": _model_directory(tmp_path, "more")})
        assert full.status_code == 409
        unknown = await http.post("/v1/models", json={"model": str(tmp_path / "absent")})
        assert unknown.status_code == 404


async def test_only_the_key_or_this_machine_may_change_the_models(tmp_path: Path) -> None:
    source = {"model": _model_directory(tmp_path, "next")}
    async with client(api_key="k") as http:
        assert (await http.post("/v1/models", json=source)).status_code == 401
    shelf = Shelf(resolve_model(), lambda _: Batcher(Lengths))
    app = EmbeddingService(shelf, api_key=None).app()
    elsewhere = httpx.ASGITransport(app, client=("192.0.2.7", 5000))
    async with httpx.AsyncClient(transport=elsewhere, base_url="http://embed.test") as http:
        assert (await http.post("/v1/models", json=source)).status_code == 403


async def test_what_is_cut_is_counted() -> None:
    async with client() as http:
        await http.post("/v1/embeddings", json={"input": ["word " * 300, "short"]})
        lines = (await http.get("/metrics")).text.splitlines()
        assert "embedding_truncated_texts_total 1" in lines
        assert 'embedding_requests_total{lane="bulk",status="200"} 1' in lines


async def test_health_tells_loading_from_ready() -> None:
    shelf = Shelf(resolve_model(), lambda _: Batcher(Lengths))
    service = EmbeddingService(shelf, api_key=None)
    transport = httpx.ASGITransport(service.app())
    async with httpx.AsyncClient(transport=transport, base_url="http://embed.test") as http:
        assert (await http.get("/health")).status_code == 503
        shelf.first.batcher.start()
        await asyncio.wrap_future(shelf.first.batcher.ready)
        assert (await http.get("/health")).json()["status"] == "ok"
        shelf.first.batcher.close()


def test_bf16_is_read_from_the_processor(tmp_path: Path) -> None:
    info = tmp_path / "cpuinfo"
    info.write_text("processor: 0\nflags : fpu avx512_bf16 sse\n")
    other = tmp_path / "other"
    other.write_text("flags : fpu avx2\n")
    machine = os.uname().machine
    assert cpu_has_bf16(info) is (machine == "x86_64")
    assert not cpu_has_bf16(other)
    assert not cpu_has_bf16(tmp_path / "absent")


@pytest.fixture(scope="module")
def served() -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    """The real server in its own process with the real weights."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    process = subprocess.Popen(
        [sys.executable, "-m", "inference.serving.embedding_server", "--port", str(port)], cwd=ROOT
    )
    url = f"http://127.0.0.1:{port}"
    deadline = time.monotonic() + 120
    seen: set[int] = set()
    while time.monotonic() < deadline and process.poll() is None and 200 not in seen:
        with contextlib.suppress(httpx.TransportError):
            seen.add(httpx.get(f"{url}/health").status_code)
        time.sleep(0.1)
    assert seen == {503, 200}
    yield url, process
    process.kill()
    process.wait()


@pytest.mark.embedding
def test_real_vectors_agree_with_float32_and_know_meaning(
    served: tuple[str, subprocess.Popen[bytes]],
) -> None:
    model = resolve_model()
    embedder = HTTPEmbedder(f"{served[0]}/v1", model.spec)
    texts = ["How do I request parental leave?", "Asking for time off as a new parent", "Pump seal"]
    vectors = embedder.embed(texts, kind="query")
    assert vectors[0] @ vectors[1] > 0.5 > vectors[0] @ vectors[2]
    program = (
        "import sys, json; from sentence_transformers import SentenceTransformer; "
        "m = SentenceTransformer(sys.argv[1], device='cpu'); "
        "print(json.dumps(m.encode(json.loads(sys.argv[2])).tolist()))"
    )
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", program, model.source, json.dumps(texts)],
        capture_output=True,
        check=True,
        env=environment,
    )
    exact = np.array(json.loads(done.stdout), dtype=np.float32)
    assert (vectors * exact).sum(axis=1).min() > 0.999
    mixed = embedder.embed([*texts, "filler words " * 40], kind="passage")[:3]
    assert (vectors * mixed).sum(axis=1).min() > 0.999


@pytest.mark.embedding
def test_a_reader_who_leaves_takes_the_work_along(
    served: tuple[str, subprocess.Popen[bytes]],
) -> None:
    url = served[0]
    texts = [f"{number} " + "filler words " * 100 for number in range(300)]
    with pytest.raises(httpx.ReadTimeout):
        httpx.post(f"{url}/v1/embeddings", json={"input": texts}, timeout=1)
    # Counted when the batch that is running has ended, which takes long on a busy machine.
    deadline = time.monotonic() + 60
    dropped = 0.0
    while not dropped and time.monotonic() < deadline:
        metrics = httpx.get(f"{url}/metrics", timeout=60).text
        dropped = float(metrics.split("\nembedding_dropped_texts_total{")[1].split()[1])
        time.sleep(0.1)
    assert dropped > 100


@pytest.mark.embedding
def test_sigterm_ends_it_cleanly(served: tuple[str, subprocess.Popen[bytes]]) -> None:
    served[1].send_signal(signal.SIGTERM)
    assert served[1].wait(60) in {0, -signal.SIGTERM}
