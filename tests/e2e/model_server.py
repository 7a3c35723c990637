"""A small OpenAI-compatible model server for tests of the running system.

    python -m tests.e2e.model_server PORT

It streams like vLLM serving gpt-oss: first reasoning, then the answer, token by token. What it
says is the first sentence of the first passage it was given, cited, so that a test can tell that
the words came through here. A question with "slowly" makes it take its time; SIGKILL is the test's.
"""

from __future__ import annotations

import asyncio
import json
import re
import sys
from collections.abc import AsyncIterator
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, StreamingResponse
from starlette.routing import Route

MODEL = "test-model"
PREFACE = "The model says:"
# What it says to the short tasks, by how their prompts begin.
SHORT = {
    "You name a conversation": "Leave and sickness",
    "You propose what a reader": "How is sickness reported?\nWhat expires in March?",
}
active = 0


async def models(request: Request) -> JSONResponse:
    return JSONResponse({"data": [{"id": MODEL, "object": "model", "max_model_len": 8192}]})


async def state(request: Request) -> JSONResponse:
    return JSONResponse({"active": active})


async def chat(request: Request) -> StreamingResponse:
    body = await request.json()
    task, prompt = (body["messages"][at]["content"] for at in (0, -1))
    return StreamingResponse(_stream(task, prompt), media_type="text/event-stream")


async def _stream(task: str, prompt: str) -> AsyncIterator[str]:
    global active
    active += 1
    try:
        short = next((words for words in SHORT if task.startswith(words)), "")
        pause = 0.5 if "slowly" in prompt and not short else 0.01
        yield _chunk({"role": "assistant", "content": ""})
        yield _chunk({"reasoning": "SECRET REASONING"})
        passage = re.search(r"<passage[^>]*>\s*(.+?)\s*</passage>", prompt, re.S)
        text = passage[1] if passage else "nothing"
        sentence = re.split(r"(?<=[.!?])\s", text.splitlines()[-1])[0]
        answer = f"{PREFACE} {sentence} [1]"
        for word in SHORT.get(short, answer).split(" ") + ["more"] * (600 if pause > 0.1 else 0):
            yield _chunk({"content": f"{word} "})
            await asyncio.sleep(pause)
        yield _chunk({}, finish="stop")
        usage = {"prompt_tokens": len(prompt) // 4, "completion_tokens": 20}
        yield f"data: {json.dumps({'choices': [], 'usage': usage})}\n\ndata: [DONE]\n\n"
    finally:
        active -= 1


def _chunk(delta: dict[str, Any], finish: str | None = None) -> str:
    choice = {"index": 0, "delta": delta, "finish_reason": finish}
    return f"data: {json.dumps({'object': 'chat.completion.chunk', 'choices': [choice]})}\n\n"


app = Starlette(
    routes=[
        Route("/v1/models", models),
        Route("/v1/chat/completions", chat, methods=["POST"]),
        Route("/state", state),
    ]
)

if __name__ == "__main__":
    uvicorn.run(app, host="127.0.0.1", port=int(sys.argv[1]), log_level="warning")
