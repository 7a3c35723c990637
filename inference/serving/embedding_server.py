"""A small OpenAI-compatible embedding server around sentence-transformers.

    python -m inference.serving.embedding_server --port 8001

``POST /v1/embeddings`` (``input`` a string or a list of strings, ``encoding_format`` float or
base64, header ``X-Priority: query|bulk``), ``GET /v1/models``, ``GET /health`` (503 until the
model is loaded), ``GET /metrics``. Weights come from this machine only. The socket answers within
a second; torch is imported afterwards in the model thread.
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
from collections.abc import AsyncIterator, Sequence
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
from inference.serving.encoder import DType, load_encoder
from inference.tokens import load_token_counter
from inference.types import Vectors

logger = logging.getLogger(__name__)

MAX_TEXTS: Final = 2048
MAX_BODY_BYTES: Final = 32 * 1024 * 1024


class BadRequestError(Exception):
    """Becomes an OpenAI-shaped error body."""

    def __init__(
        self,
        message: str,
        *,
        status: int = 400,
        kind: str = "invalid_request_error",
        param: str | None = None,
        headers: dict[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.status = status
        self.kind = kind
        self.param = param
        self.headers = headers

    def response(self) -> JSONResponse:
        error = {
            "message": self.message,
            "type": self.kind,
            "param": self.param,
            "code": self.status,
        }
        return JSONResponse({"error": error}, status_code=self.status, headers=self.headers)


@dataclass(frozen=True, slots=True)
class EmbeddingRequest:
    """A checked request body."""

    texts: tuple[str, ...]
    lane: Lane
    as_base64: bool


def parse_request(body: bytes, *, priority: str | None, model: EmbeddingModel) -> EmbeddingRequest:
    """Raises ``BadRequestError`` with words for whoever wrote the client."""
    try:
        data = json.loads(body)
    except ValueError as error:
        raise BadRequestError(f"The body is not JSON: {error}") from None
    if not isinstance(data, dict):
        raise BadRequestError("The body must be a JSON object.")
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
    name = data.get("model")
    if name is not None and not (isinstance(name, str) and model.answers_to(name)):
        raise BadRequestError(
            f"The model {str(name)[:200]!r} does not exist. Served here: {model.name}.",
            status=404,
            kind="NotFoundError",
            param="model",
        )
    if priority not in {None, *LANES}:
        raise BadRequestError("X-Priority must be query or bulk.")
    by_size: Lane = "query" if len(texts) == 1 else "bulk"
    lane: Lane = by_size if priority is None else ("query" if priority == "query" else "bulk")
    return EmbeddingRequest(tuple(texts), lane, encoding == "base64")


class EmbeddingService:
    """The handlers and what they share."""

    def __init__(self, model: EmbeddingModel, batcher: Batcher, *, api_key: str | None) -> None:
        self.model = model
        self.batcher = batcher
        self._api_key = api_key
        self._counter = load_token_counter(model)
        self.responses: dict[tuple[str, int], int] = {}
        self.truncated = 0

    def app(self) -> Starlette:
        @contextlib.asynccontextmanager
        async def lifespan(_app: Starlette) -> AsyncIterator[None]:
            self.batcher.start()
            yield
            await asyncio.to_thread(self.batcher.close)

        routes = [
            Route("/v1/embeddings", self.embeddings, methods=["POST"]),
            Route("/v1/models", self.models),
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
                model=self.model,
            )
            lane = parsed.lane
            response = await self._embed(request, parsed)
        except BadRequestError as error:
            response = error.response()
        key = (lane, response.status_code)
        self.responses[key] = self.responses.get(key, 0) + 1
        return response

    async def _embed(self, request: Request, parsed: EmbeddingRequest) -> Response:
        tokens = await asyncio.to_thread(self._tokens, parsed.texts)
        try:
            future = self.batcher.submit(parsed.texts, tokens, lane=parsed.lane)
        except QueueFullError as error:
            raise BadRequestError(
                "Too many texts are waiting. Try again later.",
                status=429,
                kind="rate_limit_error",
                headers={"Retry-After": str(error.retry_after)},
            ) from None
        except ClosedError:
            raise _stopping() from None
        vectors = await _or_disconnect(request, future)
        if vectors is None:
            return Response(status_code=499)
        payload = functools.partial(_payload, vectors, parsed.as_base64, self.model.name, tokens)
        body = payload() if parsed.as_base64 else await asyncio.to_thread(payload)
        return Response(body, media_type="application/json")

    def _tokens(self, texts: Sequence[str]) -> list[int]:
        """Lengths after truncation to the window; counts and logs what was cut."""
        # Two special tokens frame every text in the models served here.
        lengths = [count + 2 for count in self._counter.count_many(texts)]
        if over := sum(length > self.model.window for length in lengths):
            self.truncated += over
            logger.warning(
                "%d of %d texts were cut to the model's window of %d tokens (longest: %d)",
                over,
                len(texts),
                self.model.window,
                max(lengths),
            )
        return [min(length, self.model.window) for length in lengths]

    async def models(self, request: Request) -> Response:
        try:
            self._authorise(request)
        except BadRequestError as error:
            return error.response()
        card = {
            "id": self.model.name,
            "object": "model",
            "owned_by": "local",
            "max_model_len": self.model.window,
            "dimension": self.model.dimension,
            "revision": self.model.revision,
        }
        return JSONResponse({"object": "list", "data": [card]})

    async def health(self, _request: Request) -> Response:
        ready = self.batcher.ready
        if not ready.done():
            return JSONResponse({"status": "loading"}, status_code=503)
        if ready.exception() is not None:
            return JSONResponse({"status": "failed"}, status_code=503)
        dtype = getattr(ready.result(), "dtype", "")
        return JSONResponse({"status": "ok", "model": self.model.name, "dtype": dtype})

    async def metrics(self, _request: Request) -> Response:
        return PlainTextResponse("\n".join(self._metric_lines()) + "\n")

    def _metric_lines(self) -> list[str]:
        stats = self.batcher.stats
        ready = self.batcher.ready.done() and self.batcher.ready.exception() is None
        plain = {
            "embedding_ready gauge": int(ready),
            "embedding_batches_total counter": stats.batches,
            "embedding_tokens_total counter": stats.tokens,
            "embedding_padded_tokens_total counter": stats.padded_tokens,
            "embedding_model_busy_seconds_total counter": round(stats.busy_seconds, 6),
            "embedding_truncated_texts_total counter": self.truncated,
            "embedding_dropped_texts_total counter": stats.dropped,
        }
        lines: list[str] = []
        for named, value in plain.items():
            name = named.partition(" ")[0]
            lines += [f"# TYPE {named}", f"{name} {value}"]
        lines.append("# TYPE embedding_queued_texts gauge")
        lines += [
            f'embedding_queued_texts{{lane="{lane}"}} {self.batcher.queued(lane)}' for lane in LANES
        ]
        lines.append("# TYPE embedding_texts_total counter")
        lines += [f'embedding_texts_total{{lane="{lane}"}} {stats.texts[lane]}' for lane in LANES]
        lines.append("# TYPE embedding_wait_seconds_total counter")
        lines += [
            f'embedding_wait_seconds_total{{lane="{lane}"}} {stats.wait_seconds[lane]:.6f}'
            for lane in LANES
        ]
        lines.append("# TYPE embedding_requests_total counter")
        lines += [
            f'embedding_requests_total{{lane="{lane}",status="{status}"}} {count}'
            for (lane, status), count in sorted(self.responses.items())
        ]
        return lines


def _stopping() -> BadRequestError:
    return BadRequestError(
        "The server is stopping or could not load its model.",
        status=503,
        kind="service_unavailable",
    )


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
        raise _stopping() from None
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
    parser.add_argument("--api-key-file", type=Path, help="its content is required as Bearer key")
    parser.add_argument("--dtype", choices=get_args(DType), default="auto")
    parser.add_argument("--threads", type=int, help="threads of one forward pass; default all")
    parser.add_argument("--batch-tokens", type=int, default=2048, help="padded tokens of a batch")
    parser.add_argument(
        "--quiet-batch-tokens", type=int, default=8192, help="the same while nobody asks"
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

    def load() -> BatchEncoder:
        encoder = load_encoder(model, dtype=arguments.dtype, threads=arguments.threads)
        logger.info("%s is ready on %s in %s", model.name, encoder.device, encoder.dtype)
        return encoder

    batcher = Batcher(
        load,
        batch_tokens=arguments.batch_tokens,
        quiet_batch_tokens=arguments.quiet_batch_tokens,
        batch_texts=arguments.batch_texts,
    )
    service = EmbeddingService(model, batcher, api_key=api_key)
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

    batcher.ready.add_done_callback(stop_when_unusable)
    server.run()
    failed = batcher.ready.done() and batcher.ready.exception() is not None
    return 1 if failed or not server.started else 0


if __name__ == "__main__":
    sys.exit(main())
