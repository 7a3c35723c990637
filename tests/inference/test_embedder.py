from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import Callable
from typing import Any

import httpx
import numpy as np
import pytest

from inference.embedder import HTTPEmbedder
from inference.types import EmbeddingSpec, EngineError

SPEC = EmbeddingSpec(
    "m", "1", dimension=3, window=64, query_prefix="query: ", passage_prefix="passage: "
)
URL = "http://embed.test/v1"
Handler = Callable[[httpx.Request], httpx.Response]


def rows(request: httpx.Request, *, as_base64: bool, dimension: int = 3) -> httpx.Response:
    """Answers with the length of each text, out of order, as some servers do."""
    texts = json.loads(request.content)["input"]
    data: list[dict[str, Any]] = []
    for index, text in enumerate(texts):
        vector = np.full(dimension, 1.0, dtype="<f4")
        vector[0] = len(text)
        packed = base64.b64encode(vector.tobytes()).decode() if as_base64 else vector.tolist()
        data.append({"index": index, "embedding": packed})
    return httpx.Response(200, json={"data": data[::-1]})


def embedder(handler: Handler, **options: Any) -> HTTPEmbedder:
    transport = httpx.MockTransport(handler)
    return HTTPEmbedder(URL, SPEC, transport=transport, async_transport=transport, **options)


@pytest.mark.parametrize("as_base64", [True, False])
async def test_vectors_are_unit_float32_in_order(as_base64: bool) -> None:
    engine = embedder(lambda request: rows(request, as_base64=as_base64), batch_texts=2)
    texts = ["a", "bb", "ccc", "dddd", "eeeee"]
    vectors = engine.embed(texts, kind="passage")
    assert vectors.dtype == np.float32
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1)
    ratios = vectors[:, 0] / vectors[:, 1]
    assert np.allclose(ratios, [len("passage: ") + len(text) for text in texts])
    assert np.array_equal(vectors, await engine.aembed(texts, kind="passage"))


def test_prefix_priority_and_key_travel_with_the_request() -> None:
    seen: list[tuple[str, list[str], str]] = []

    def handler(request: httpx.Request) -> httpx.Response:
        body = json.loads(request.content)
        seen.append(
            (request.headers["X-Priority"], body["input"], request.headers["Authorization"])
        )
        return rows(request, as_base64=True)

    engine = embedder(handler, api_key="k")
    engine.embed(["x"], kind="query")
    engine.embed(["x"], kind="passage")
    assert seen == [
        ("query", ["query: x"], "Bearer k"),
        ("bulk", ["passage: x"], "Bearer k"),
    ]


def test_nothing_to_embed_asks_nobody() -> None:
    def handler(_: httpx.Request) -> httpx.Response:
        raise AssertionError

    assert embedder(handler).embed([], kind="passage").shape == (0, 3)


def test_batches_are_bounded_by_texts_and_characters() -> None:
    sizes: list[int] = []

    def handler(request: httpx.Request) -> httpx.Response:
        sizes.append(len(json.loads(request.content)["input"]))
        return rows(request, as_base64=True)

    embedder(handler, batch_texts=3, batch_characters=50).embed(
        ["a", "b", "c", "d" * 40, "e" * 40], kind="passage"
    )
    assert sorted(sizes) == [1, 1, 3]


def test_a_server_without_base64_is_asked_for_floats_from_then_on() -> None:
    formats: list[str | None] = []

    def handler(request: httpx.Request) -> httpx.Response:
        wanted = json.loads(request.content).get("encoding_format")
        formats.append(wanted)
        if wanted:
            return httpx.Response(422, json={"error": "unknown field encoding_format"})
        return rows(request, as_base64=False)

    engine = embedder(handler)
    engine.embed(["a"], kind="query")
    engine.embed(["a"], kind="query")
    assert formats == ["base64", None, None]


@pytest.mark.parametrize(
    ("answer", "code", "retryable"),
    [
        (httpx.Response(429, headers={"Retry-After": "3"}), "embedder_overloaded", True),
        (httpx.Response(503, json={"status": "loading"}), "embedder_unavailable", True),
        (httpx.Response(500), "embedder_unavailable", True),
        (httpx.Response(401, json={"error": "Unauthorized"}), "embedder_unauthorized", False),
        (httpx.Response(404, json={"error": {"message": "no m"}}), "embedder_mismatch", False),
        (httpx.Response(400, json={"error": {"message": "long"}}), "embedder_bad_request", False),
        (httpx.Response(200, json={"nonsense": 1}), "embedder_mismatch", False),
        (httpx.Response(200, text="<html>"), "embedder_mismatch", False),
        (
            httpx.Response(200, json={"data": [{"index": 0, "embedding": [1.0, 2.0]}]}),
            "embedder_mismatch",
            False,
        ),
        (
            httpx.Response(200, json={"data": [{"index": 0, "embedding": [0.0, 0.0, 0.0]}]}),
            "embedder_mismatch",
            False,
        ),
    ],
)
def test_refusals_have_codes_and_words(answer: httpx.Response, code: str, retryable: bool) -> None:
    engine = embedder(lambda _: answer)
    with pytest.raises(EngineError) as caught:
        engine.embed(["a"], kind="query")
    assert (caught.value.code, caught.value.retryable) == (code, retryable)
    assert caught.value.detail
    assert not engine.check().ok


async def test_only_broken_connections_are_tried_again() -> None:
    calls = 0

    def flaky(request: httpx.Request) -> httpx.Response:
        nonlocal calls
        calls += 1
        if calls < 3:
            raise httpx.ConnectError("refused")
        return rows(request, as_base64=True)

    assert embedder(flaky).embed(["a"], kind="query").shape == (1, 3)
    calls = 0
    assert (await embedder(flaky).aembed(["a"], kind="query")).shape == (1, 3)

    def slow(_: httpx.Request) -> httpx.Response:
        nonlocal calls
        calls += 1
        raise httpx.ReadTimeout("slow")

    calls = 0
    with pytest.raises(EngineError) as caught:
        embedder(slow).embed(["a"], kind="query")
    assert (caught.value.code, calls) == ("embedder_overloaded", 1)


def test_nobody_listening_is_unavailable() -> None:
    with pytest.raises(EngineError) as caught:
        HTTPEmbedder("http://127.0.0.1:9/v1", SPEC, retries=1).embed(["a"], kind="query")
    assert caught.value.code == "embedder_unavailable"


def test_it_works_from_loop_to_loop() -> None:
    engine = embedder(lambda request: rows(request, as_base64=True))
    for _ in range(2):
        assert asyncio.run(engine.aembed(["a"], kind="query")).shape == (1, 3)
