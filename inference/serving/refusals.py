"""What the server answers where it does not do as asked, in OpenAI's shape."""

from __future__ import annotations

from starlette.responses import JSONResponse

from inference.serving.batching import QueueFullError


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


def overloaded(error: QueueFullError) -> BadRequestError:
    return BadRequestError(
        "Too many texts are waiting. Try again later.",
        status=429,
        kind="rate_limit_error",
        headers={"Retry-After": str(error.retry_after)},
    )


def stopping() -> BadRequestError:
    return BadRequestError(
        "The server is stopping or could not load its model.",
        status=503,
        kind="service_unavailable",
    )
