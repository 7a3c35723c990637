"""The official ``openai`` client, unchanged, against the running system."""

from __future__ import annotations

import time

import openai
import pytest

from tests.e2e.conftest import Site

QUESTION = "How many days of annual leave are there?"


@pytest.fixture(scope="module")
def client(model_site: Site) -> openai.OpenAI:
    with model_site.api() as api:
        collection = api.post("/collections/", json={"name": "For programs"}).json()["id"]
        document = {"external_id": "leave", "title": "Leave"}
        document["text"] = "Annual leave is thirty days. It can be carried over."
        sent = {"collection": collection, "documents": [document]}
        (taken,) = api.post("/documents/batch/", json=sent).json()["results"]
        for _ in range(240):
            if api.get(f"/documents/{taken['id']}/").json()["status"] == "ready":
                break
            time.sleep(0.5)
    return openai.OpenAI(base_url=f"{model_site.base_url}/v1", api_key=model_site.token)


def test_a_plain_conversation_with_citations(client: openai.OpenAI) -> None:
    assert "knowledge:For programs" in [model.id for model in client.models.list()]
    first = client.chat.completions.create(
        model="knowledge:For programs", messages=[{"role": "user", "content": QUESTION}]
    )
    said = first.choices[0].message
    assert said.content is not None
    assert "Annual leave is thirty days." in said.content
    (citation,) = said.model_extra["citations"]  # type: ignore[index]
    assert citation["verified"]
    assert citation["quote"] == "Annual leave is thirty days."
    assert first.usage is not None
    assert first.usage.total_tokens > 0
    second = client.chat.completions.create(
        model="knowledge:For programs",
        messages=[
            {"role": "system", "content": "Answer in one sentence."},
            {"role": "user", "content": QUESTION},
            {"role": "assistant", "content": said.content},
            {"role": "user", "content": "And can it be carried over?"},
        ],
    )
    assert second.choices[0].finish_reason == "stop"


def test_a_streamed_conversation_with_citations(client: openai.OpenAI) -> None:
    stream = client.chat.completions.create(
        model="knowledge:For programs",
        messages=[{"role": "user", "content": QUESTION}],
        stream=True,
        stream_options={"include_usage": True},
        temperature=0.0,
        max_completion_tokens=128,
        extra_body={"ignore_eos": True},
    )
    chunks = list(stream)
    text = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
    assert "Annual leave is thirty days." in text
    assert "SECRET REASONING" not in repr(chunks)
    assert chunks[-1].usage is not None
    final = chunks[-2]
    assert final.choices[0].finish_reason == "stop"
    assert final.model_extra["citations"][0]["verified"]  # type: ignore[index]


def test_refusals_are_the_clients_own_errors(client: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError) as missing:
        client.chat.completions.create(
            model="knowledge:Nothing", messages=[{"role": "user", "content": QUESTION}]
        )
    assert missing.value.code == "model_not_found"
    stranger = openai.OpenAI(base_url=client.base_url, api_key="sk-wrong", max_retries=0)
    with pytest.raises(openai.AuthenticationError):
        stranger.models.list()
    with pytest.raises(openai.BadRequestError):
        client.chat.completions.create(model="knowledge", messages=[])
