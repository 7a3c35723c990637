"""What a chat server's refusals mean, in the house's codes and in words that say what to do.

The wordings of vLLM 0.32 are tested against captures; those of other servers are from memory.
"""

from __future__ import annotations

import json
import re
from typing import Final

from inference.types import EngineError

_CONTEXT_TOO_LONG: Final = re.compile(
    r"context[ _](?:length|size|window)|maximum (?:model|sequence|input) length|max_model_len"
    r"|max_total_tokens|input length \(\d+\)|input tokens? exceed|too many tokens"
    r"|prompt is too long|longer than the maximum",
    re.IGNORECASE,
)
_OVERLOADED: Final = frozenset({429, 503, 529})


def server_message(body: bytes | str) -> str:
    """The server's own sentence: ``error.message``, a bare ``error`` string, or ``detail``."""
    try:
        data = json.loads(body)
    except ValueError:
        return ""
    return message_of(data)


def message_of(data: object) -> str:
    """As ``server_message`` for a decoded body."""
    if not isinstance(data, dict):
        return ""
    error = data.get("error", data.get("detail", data.get("message", "")))
    if isinstance(error, dict):
        error = error.get("message", "")
    return str(error or "")[:500]


def unavailable(base_url: str) -> EngineError:
    return EngineError(
        "llm_unavailable",
        f"The language model server at {base_url} does not answer. Check that it runs and that "
        "LLM_BASE_URL is right.",
        retryable=True,
    )


def overloaded() -> EngineError:
    return EngineError(
        "llm_overloaded",
        "The language model has too much to do at the moment. Ask again in a minute.",
        retryable=True,
    )


def timed_out(seconds: float, *, started: bool) -> EngineError:
    what = "stopped writing" if started else "did not begin to answer"
    return EngineError(
        "llm_timeout",
        f"The language model {what} for {seconds:g} seconds. Ask again, or look at its load.",
        retryable=True,
    )


def lost() -> EngineError:
    return EngineError(
        "llm_lost",
        "The connection to the language model broke in the middle of the answer. Ask again.",
        retryable=True,
    )


def empty() -> EngineError:
    return EngineError(
        "llm_empty",
        "The language model spent its whole budget on thinking and wrote no answer. Ask a "
        "narrower question, or choose a lower reasoning effort.",
        retryable=True,
    )


def model_not_found(model: str, message: str = "") -> EngineError:
    said = f" It says: {message}" if message else ""
    return EngineError(
        "llm_model_not_found",
        f"The language model server does not serve {model!r}.{said} Set LLM_MODEL to a model it "
        "serves, or leave it empty to take the first one.",
        retryable=False,
    )


def bad_request(status: int, message: str) -> EngineError:
    return EngineError(
        "llm_bad_request",
        f"The language model server refused the request ({status}): {message or 'no reason given'}",
        retryable=False,
    )


def refused(status: int, message: str, *, model: str, base_url: str) -> EngineError:
    """The error for an HTTP status and the server's sentence."""
    if status in {401, 403}:
        return EngineError(
            "llm_unauthorized",
            f"The language model server at {base_url} refused the key. Set LLM_API_KEY to the key "
            "it was started with.",
            retryable=False,
        )
    if status == 404:
        if "model" in message.lower():
            return model_not_found(model, message)
        return EngineError(
            "llm_bad_request",
            f"There is no chat completions service at {base_url}. LLM_BASE_URL usually ends in "
            "/v1.",
            retryable=False,
        )
    if status in _OVERLOADED:
        return overloaded()
    if status in {400, 413, 422} and _CONTEXT_TOO_LONG.search(message):
        return EngineError(
            "llm_context_too_long",
            "Question, history and sources are longer than the language model can read. Start a "
            "new conversation or ask about fewer documents.",
            retryable=False,
        )
    if status >= 500:
        return unavailable(base_url)
    return bad_request(status, message)


def in_stream(data: dict[str, object], *, model: str, base_url: str) -> EngineError:
    """The error for ``{"error": …}`` sent as an event after the 200."""
    error = data.get("error")
    code = error.get("code") if isinstance(error, dict) else None
    status = code if isinstance(code, int) else 500
    failure = refused(status, message_of(data), model=model, base_url=base_url)
    # A server that fails after its 200 has lost this answer, whatever it calls it.
    return lost() if failure.code in {"llm_unavailable", "llm_bad_request"} else failure
