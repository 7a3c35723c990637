"""A small OpenAI-compatible embedding server around sentence-transformers.

    python -m inference.serving.embedding_server --port 8001

``POST /v1/embeddings`` (``input`` a string or a list of strings, ``encoding_format`` float or
base64, header ``X-Priority: query|bulk``), ``GET /v1/models``, ``GET /health`` (503 until the
model is loaded), ``GET /metrics``. ``POST /v1/models`` with ``model`` (a known name or a directory)
loads another model beside the first, ``DELETE /v1/models/{name}`` drops it again; both are for who
holds the API key or calls from this machine. With ``--reranker DIRECTORY`` a cross-encoder answers
``POST /v1/rerank`` (``query``, ``documents``). Weights come from this machine only. The socket
answers within a second; torch is imported afterwards in the model thread.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import contextlib
import functools
import hmac
import json
import logging
import os
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, get_args

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from inference.embedding_models import EmbeddingModel, UnknownModelError, resolve_model
from inference.serving.batching import (
    LANES,
    BatchEncoder,
    Batcher,
    ClosedError,
    Lane,
    QueueFullError,
)
from inference.serving.encoder import DType, has_gpu, load_encoder
from inference.serving.refusals import BadRequestError, overloaded, stopping
from inference.serving.reranking import (
    ServedReranker,
    answer,
    load_cross_encoder,
    read_request,
)
from inference.serving.shelf import MAX_MODELS, ServedModel, Shelf, ShelfFullError
from inference.types import Vectors

logger = logging.getLogger(__name__)

MAX_TEXTS: Final = 2048
MAX_BODY_BYTES: Final = 32 * 1024 * 1024
_MOST_WORKERS: Final = 16


@dataclass(frozen=True, slots=True)
class EmbeddingRequest:
    """A checked request body."""

    served: ServedModel
    texts: tuple[str, ...]
    lane: Lane
    as_base64: bool


def parse_request(body: bytes, *, priority: str | None, shelf: Shelf) -> EmbeddingRequest:
    """Raises ``BadRequestError`` with words for whoever wrote the client."""
    data = _json_object(body)
    served = _served(shelf, data.get("model"))
    model = served.model
    given = data.get("input")
    texts = [given] if isinstance(given, str) else given
    if not isinstance(texts, list) or not texts or not all(isinstance(t, str) for t in texts):
        raise BadRequestError("input must be a string or a list of strings.", param="input")
    if len(texts) > MAX_TEXTS:
        raise BadRequestError(
            f"input has {len(texts)} texts; at most {MAX_TEXTS} per request.", param="input"
        )
    encoding = data.get("encoding_format", "float")
    if encoding not in {"float", "base64"}:
        raise BadRequestError("encoding_format must be float or base64.", param="encoding_format")
    if data.get("dimensions") not in {None, model.dimension}:
        raise BadRequestError(
            f"{model.name} makes {model.dimension} dimensions only.", param="dimensions"
        )
    if priority not in {None, *LANES}:
        raise BadRequestError("X-Priority must be query or bulk.")
    by_size: Lane = "query" if len(texts) == 1 else "bulk"
    lane: Lane = by_size if priority is None else ("query" if priority == "query" else "bulk")
    return EmbeddingRequest(served, tuple(texts), lane, encoding == "base64")


def _json_object(body: bytes) -> dict[str, Any]:
    try:
        data = json.loads(body)
    except ValueError as error:
        raise BadRequestError(f"The body is not JSON: {error}") from None
    if not isinstance(data, dict):
        raise BadRequestError("The body must be a JSON object.")
    return data


def _served(shelf: Shelf, name: object) -> ServedModel:
    served = shelf.find(name) if name is None or isinstance(name, str) else None
    if served is None:
        names = ", ".join(other.model.name for other in shelf)
        raise BadRequestError(
            f"The model {str(name)[:200]!r} does not exist. Served here: {names}.",
            status=404,
            kind="NotFoundError",
            param="model",
        )
    return served


class EmbeddingService:
    """The handlers and what they share."""

    def __init__(
        self, shelf: Shelf, *, api_key: str | None, reranker: ServedReranker | None = None
    ) -> None:
        self.shelf = shelf
        self.reranker = reranker
        self._api_key = api_key
        self.responses: dict[tuple[str, int], int] = {}
        self.truncated = 0

    def app(self) -> Starlette:
        @contextlib.asynccontextmanager
        async def lifespan(_app: Starlette) -> AsyncIterator[None]:
            self.shelf.first.batcher.start()
            if self.reranker:
                self.reranker.batcher.start()
            yield
            if self.reranker:
                await asyncio.to_thread(self.reranker.batcher.close)
            await asyncio.to_thread(self.shelf.close)

        routes = [
            Route("/v1/embeddings", self.embeddings, methods=["POST"]),
            Route("/v1/rerank", self.rerank, methods=["POST"]),
            Route("/v1/models", self.models),
            Route("/v1/models", self.add_model, methods=["POST"]),
            Route("/v1/models/{name}", self.remove_model, methods=["DELETE"]),
            Route("/health", self.health),
            Route("/metrics", self.metrics),
        ]
        return Starlette(routes=routes, lifespan=lifespan)

    def _authorise(self, request: Request) -> None:
        expected = f"Bearer {self._api_key}".encode()
        given = request.headers.get("Authorization", "").encode()
        if self._api_key and not hmac.compare_digest(given, expected):
            raise BadRequestError("Unauthorized", status=401, kind="authentication_error")

    async def embeddings(self, request: Request) -> Response:
        lane = "none"
        try:
            self._authorise(request)
            parsed = parse_request(
                await _read_body(request),
                priority=request.headers.get("X-Priority"),
                shelf=self.shelf,
            )
            lane = parsed.lane
            response = await self._embed(request, parsed)
        except BadRequestError as error:
            response = error.response()
        key = (lane, response.status_code)
        self.responses[key] = self.responses.get(key, 0) + 1
        return response

    async def rerank(self, request: Request) -> Response:
        try:
            self._authorise(request)
            if self.reranker is None:
                raise BadRequestError("No reranker is served: start with --reranker.", status=404)
            query, documents = read_request(await _read_body(request))
            scores = await _or_disconnect(request, self.reranker.submit(query, documents))
        except ValueError as error:
            return BadRequestError(str(error)).response()
        except QueueFullError as error:
            return overloaded(error).response()
        except ClosedError:
            return stopping().response()
        except BadRequestError as error:
            return error.response()
        if scores is None:
            return Response(status_code=499)
        return JSONResponse(answer(self.reranker.name, scores))

    async def _embed(self, request: Request, parsed: EmbeddingRequest) -> Response:
        served = parsed.served
        tokens = await asyncio.to_thread(self._tokens, served, parsed.texts)
        try:
            future = served.batcher.submit(parsed.texts, tokens, lane=parsed.lane)
        except QueueFullError as error:
            raise overloaded(error) from None
        except ClosedError:
            raise stopping() from None
        vectors = await _or_disconnect(request, future)
        if vectors is None:
            return Response(status_code=499)
        payload = functools.partial(_payload, vectors, parsed.as_base64, served.model.name, tokens)
        body = payload() if parsed.as_base64 else await asyncio.to_thread(payload)
        return Response(body, media_type="application/json")

    def _tokens(self, served: ServedModel, texts: Sequence[str]) -> list[int]:
        """Lengths after truncation to the window; counts and logs what was cut."""
        lengths, window = served.lengths(texts), served.model.window
        if over := sum(length > window for length in lengths):
            self.truncated += over
            logger.warning(
                "%d of %d texts were cut to the window of %d tokens of %s (longest: %d)",
                over,
                len(texts),
                window,
                served.model.name,
                max(lengths),
            )
        return [min(length, window) for length in lengths]

    async def models(self, request: Request) -> Response:
        try:
            self._authorise(request)
        except BadRequestError as error:
            return error.response()
        return JSONResponse({"object": "list", "data": [_card(served) for served in self.shelf]})

    async def add_model(self, request: Request) -> Response:
        """202 while it loads, 200 once it is served."""
        try:
            self._authorise_change(request)
            source = _json_object(await _read_body(request)).get("model")
            if not isinstance(source, str) or not source:
                raise BadRequestError("model must name a model or its directory.", param="model")
            served = await asyncio.to_thread(self.shelf.add, source)
        except BadRequestError as error:
            return error.response()
        except UnknownModelError as error:
            return BadRequestError(str(error), status=404, kind="NotFoundError").response()
        except ShelfFullError:
            words = f"At most {MAX_MODELS} models are held at once. Drop one first."
            return BadRequestError(words, status=409).response()
        return JSONResponse(_card(served), status_code=200 if served.state == "ok" else 202)

    async def remove_model(self, request: Request) -> Response:
        try:
            self._authorise_change(request)
        except BadRequestError as error:
            return error.response()
        gone = await asyncio.to_thread(self.shelf.remove, request.path_params["name"])
        return Response(status_code=204 if gone else 404)

    def _authorise_change(self, request: Request) -> None:
        """Loading costs gigabytes: without a key only this machine may ask for it."""
        self._authorise(request)
        host = request.client.host if request.client else ""
        if not self._api_key and host not in {"127.0.0.1", "::1"}:
            raise BadRequestError(
                "Start the server with --api-key-file to change its models from another machine.",
                status=403,
                kind="authentication_error",
            )

    async def health(self, _request: Request) -> Response:
        first = self.shelf.first
        if first.state != "ok":
            return JSONResponse({"status": first.state}, status_code=503)
        dtype = getattr(first.batcher.ready.result(), "dtype", "")
        return JSONResponse({"status": "ok", "model": first.model.name, "dtype": dtype})

    async def metrics(self, _request: Request) -> Response:
        return PlainTextResponse("\n".join(self._metric_lines()) + "\n")

    def _metric_lines(self) -> list[str]:
        lines: list[str] = []
        for named, value in {
            "ready gauge": lambda m: int(m.state == "ok"),
            "batches_total counter": lambda m: m.batcher.stats.batches,
            "tokens_total counter": lambda m: m.batcher.stats.tokens,
            "padded_tokens_total counter": lambda m: m.batcher.stats.padded_tokens,
            "model_busy_seconds_total counter": lambda m: round(m.batcher.stats.busy_seconds, 6),
            "dropped_texts_total counter": lambda m: m.batcher.stats.dropped,
        }.items():
            lines += self._samples(named, value)
        for named, lane_value in {
            "queued_texts gauge": lambda m, lane: m.batcher.queued(lane),
            "texts_total counter": lambda m, lane: m.batcher.stats.texts[lane],
            "wait_seconds_total counter": lambda m, lane: m.batcher.stats.wait_seconds[lane],
        }.items():
            for number, lane in enumerate(LANES):
                samples = self._samples(named, functools.partial(lane_value, lane=lane), lane=lane)
                lines += samples[1:] if number else samples
        lines.append("# TYPE embedding_truncated_texts_total counter")
        lines.append(f"embedding_truncated_texts_total {self.truncated}")
        lines.append("# TYPE embedding_requests_total counter")
        lines += [
            f'embedding_requests_total{{lane="{lane}",status="{status}"}} {count}'
            for (lane, status), count in sorted(self.responses.items())
        ]
        return lines

    def _samples(
        self, named: str, value: Callable[[ServedModel], float], **labels: str
    ) -> list[str]:
        """The type line of a metric and one sample for each model."""
        name = named.partition(" ")[0]
        lines = [f"# TYPE embedding_{named}"]
        for served in self.shelf:
            pairs = {"model": served.model.name.replace("\\", "/").replace('"', "'"), **labels}
            text = ",".join(f'{key}="{label}"' for key, label in pairs.items())
            lines.append(f"embedding_{name}{{{text}}} {value(served)}")
        return lines


def _card(served: ServedModel) -> dict[str, Any]:
    return {
        "id": served.model.name,
        "object": "model",
        "owned_by": "local",
        "max_model_len": served.model.window,
        "dimension": served.model.dimension,
        "revision": served.model.revision,
        "status": served.state,
    }


async def _read_body(request: Request) -> bytes:
    body = bytearray()
    async for piece in request.stream():
        body += piece
        if len(body) > MAX_BODY_BYTES:
            raise BadRequestError(
                f"The body is larger than {MAX_BODY_BYTES} bytes. Send fewer texts.", status=413
            )
    return bytes(body)


async def _or_disconnect(request: Request, future: Future[Vectors]) -> Vectors | None:
    """The vectors, or None when the client left first: its queued texts are dropped then."""

    async def left() -> None:
        while not await request.is_disconnected():
            await asyncio.sleep(0.05)

    result = asyncio.wrap_future(future)
    leaving = asyncio.ensure_future(left())
    either: set[asyncio.Future[Any]] = {result, leaving}
    try:
        await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
        if result.done():
            return result.result()
        return None
    except ClosedError:
        raise stopping() from None
    except Exception:
        logger.exception("A batch failed")
        raise BadRequestError(
            "The model failed on this batch.", status=500, kind="internal_error"
        ) from None
    finally:
        leaving.cancel()
        result.cancel()


def _payload(vectors: Vectors, as_base64: bool, model: str, tokens: Sequence[int]) -> bytes:
    data = [
        {
            "object": "embedding",
            "index": index,
            "embedding": (
                base64.b64encode(row.astype("<f4").tobytes()).decode("ascii")
                if as_base64
                else row.tolist()
            ),
        }
        for index, row in enumerate(vectors)
    ]
    spent = sum(tokens)
    usage = {"prompt_tokens": spent, "total_tokens": spent}
    return json.dumps({"object": "list", "data": data, "model": model, "usage": usage}).encode()


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="embedding_server", description=__doc__)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8001)
    parser.add_argument("--model", default="", help="a known name or a directory; default MiniLM")
    parser.add_argument("--reranker", type=Path, help="a directory with a cross-encoder")
    parser.add_argument("--api-key-file", type=Path, help="its content is required as Bearer key")
    parser.add_argument("--dtype", choices=get_args(DType), default="auto")
    parser.add_argument(
        "--workers",
        type=int,
        help="batches at once; default: one a core up to 16, one alone on a GPU",
    )
    parser.add_argument("--batch-tokens", type=int, default=2048, help="padded tokens of a batch")
    parser.add_argument(
        "--quiet-batch-tokens", type=int, default=4096, help="the same while nobody asks"
    )
    parser.add_argument("--batch-texts", type=int, default=32)
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    """Serve until SIGTERM or SIGINT. Returns 1 when the model could not be loaded."""
    arguments = _arguments(argv)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    logging.getLogger("httpx").setLevel(logging.WARNING)
    # Set for the libraries imported later: they would look for newer files, or report use.
    os.environ.update(HF_HUB_OFFLINE="1", DO_NOT_TRACK="1", TOKENIZERS_PARALLELISM="false")
    os.environ.update(HF_HUB_DISABLE_PROGRESS_BARS="1", TRANSFORMERS_VERBOSITY="error")
    try:
        model = resolve_model(arguments.model)
    except UnknownModelError as error:
        logger.error("%s", error)
        return 1
    key_file: Path | None = arguments.api_key_file
    api_key = key_file.read_text(encoding="utf-8").strip() if key_file else None

    cores = len(os.sched_getaffinity(0))
    workers: int = arguments.workers or (1 if has_gpu() else min(cores, _MOST_WORKERS))

    def batcher_for(chosen: EmbeddingModel) -> Batcher:
        def load() -> BatchEncoder:
            encoder = load_encoder(chosen, dtype=arguments.dtype, threads=max(1, cores // workers))
            logger.info("%s is ready on %s in %s", chosen.name, encoder.device, encoder.dtype)
            return encoder

        return Batcher(
            load,
            batch_tokens=arguments.batch_tokens,
            quiet_batch_tokens=arguments.quiet_batch_tokens,
            batch_texts=arguments.batch_texts,
            threads=workers,
        )

    shelf = Shelf(model, batcher_for)
    first = shelf.first.batcher
    folder: Path | None = arguments.reranker
    reranker = folder and ServedReranker(folder, lambda: load_cross_encoder(folder, threads=cores))
    service = EmbeddingService(shelf, api_key=api_key, reranker=reranker or None)
    server = uvicorn.Server(
        uvicorn.Config(
            service.app(),
            host=arguments.host,
            port=arguments.port,
            log_level="warning",
            access_log=False,
            timeout_graceful_shutdown=10,
            lifespan="on",
        )
    )

    def stop_when_unusable(ready: Future[Any]) -> None:
        if error := ready.exception():
            logger.error("Could not load %s: %s", model.source, error)
            server.should_exit = True

    def say_when_unusable(ready: Future[Any]) -> None:
        if error := ready.exception():
            logger.error("Could not load the reranker %s: %s", folder, error)

    first.ready.add_done_callback(stop_when_unusable)
    if reranker:
        reranker.batcher.ready.add_done_callback(say_when_unusable)
    server.run()
    failed = shelf.first.state == "failed"
    return 1 if failed or not server.started else 0


if __name__ == "__main__":
    sys.exit(main())
