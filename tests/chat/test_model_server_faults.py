"""C-11 to C-13 in short: a model server that dies, hangs or is asked for too much.

``tests/chaos/model_server.py`` does the same to a whole site.
"""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Iterator
from typing import Any

import pytest
import redis
from asgiref.sync import sync_to_async
from django.conf import LazySettings

from assistant import engines
from assistant.chat import actions, stream
from assistant.chat.models import AnswerStatus, Conversation, Message
from assistant.users.models import User
from inference.fakes import FakeEmbedder
from tests.chat.writing import followed, generate
from tests.factories import make_collection, make_document, make_user
from tests.inference.upstream import Upstream, upstream

pytestmark = pytest.mark.django_db(transaction=True)
LIVE = 20


@pytest.fixture
def server(settings: LazySettings, fake_embedder: FakeEmbedder) -> Iterator[Upstream]:
    """A slow model server for answers of two minutes."""
    client = redis.Redis.from_url(settings.REDIS_URL)
    client.flushdb()
    with upstream(capacity=64, tokens=2400, rate=20) as running:
        settings.LLM_BASE_URL = running.base_url
        yield running
    assert not client.zcard("{llm}:running"), "a place in the line was not given back"
    client.flushdb()


async def asked(user: User) -> Message:
    conversation = await Conversation.objects.acreate(user=user)
    question = "How many days of annual leave?"
    return (await sync_to_async(actions.ask)(conversation.pk, content=question, user=user))[1]


@sync_to_async
def reader_with_a_document() -> User:
    user: User = make_user()
    text = "Annual leave is thirty days a year."
    make_document(make_collection(readers=[user]), title="Handbook", text=text)
    return user


async def live_answers(user: User, count: int) -> tuple[list[Message], list[asyncio.Task[Any]]]:
    """Answers that have begun to write, and the tasks that write them."""
    answers = [await asked(user) for _ in range(count)]
    tasks = [asyncio.create_task(generate(answer.pk)) for answer in answers]
    deadline = time.monotonic() + 60
    for answer in answers:
        while not await sync_to_async(stream.partial_text)(answer.pk):
            assert time.monotonic() < deadline, "no text came"
            await asyncio.sleep(0.05)
    return answers, tasks


async def answer_once_it_is_back(user: User) -> tuple[Message, asyncio.Task[Any]]:
    """A server that failed is left alone for seconds, in which a question is refused at once."""
    deadline = time.monotonic() + 60
    while True:
        answer = await asked(user)
        task = asyncio.create_task(generate(answer.pk))
        while not task.done():
            if await sync_to_async(stream.partial_text)(answer.pk):
                return answer, task
            await asyncio.sleep(0.05)
        row = (await ends_of([answer]))[0]
        assert row.status == AnswerStatus.FAILED, row.status
        assert time.monotonic() < deadline, row.error_code
        await asyncio.sleep(0.2)


async def ends_of(answers: list[Message]) -> list[Message]:
    return [await Message.objects.aget(pk=answer.pk) for answer in answers]


async def test_twenty_live_answers_of_a_killed_server_are_interrupted(server: Upstream) -> None:
    user = await reader_with_a_document()
    before = len(asyncio.all_tasks())
    answers, tasks = await live_answers(user, LIVE)
    server.process.kill()
    await asyncio.wait_for(asyncio.gather(*tasks), 60)
    for row in await ends_of(answers):
        assert (row.status, row.error_code) == (AnswerStatus.INTERRUPTED, "llm_lost")
        assert row.text.startswith("word0 ")
    frames = "".join([frame async for frame in followed(answers[0], user=user)])
    assert "event: error" in frames
    assert '"retryable":true' in frames
    server.start()
    again, writing = await answer_once_it_is_back(user)
    await sync_to_async(actions.stop_answer)(await Message.objects.aget(pk=again.pk), user=user)
    await asyncio.wait_for(writing, 60)
    assert (await ends_of([again]))[0].status == AnswerStatus.STOPPED
    await asyncio.to_thread(server.wait_idle, seconds=60)
    await engines.llm().aclose()  # type: ignore[attr-defined]
    deadline = time.monotonic() + 60
    while len(asyncio.all_tasks()) - before > 2:  # what looks after all answers together
        assert time.monotonic() < deadline, asyncio.all_tasks()
        await asyncio.sleep(0.05)


async def test_a_hanging_server_ends_answers_in_time_and_is_left_alone(
    server: Upstream, settings: LazySettings
) -> None:
    settings.LLM_INTER_TOKEN_TIMEOUT_SECONDS = 2
    user = await reader_with_a_document()
    answers, tasks = await live_answers(user, 4)
    server.process.send_signal(signal.SIGSTOP)
    await asyncio.wait_for(asyncio.gather(*tasks), 60)
    assert {row.error_code for row in await ends_of(answers)} == {"llm_timeout"}
    late = await asked(user)
    await asyncio.wait_for(generate(late.pk), 60)
    row = (await ends_of([late]))[0]
    assert row.status == AnswerStatus.FAILED
    assert row.error_detail
    server.process.send_signal(signal.SIGCONT)
    deadline = time.monotonic() + 60
    while not (await engines.llm().check()).ok:
        assert time.monotonic() < deadline
    await engines.llm().aclose()  # type: ignore[attr-defined]


async def test_ten_times_what_it_bears_waits_in_line_or_is_refused_at_once(
    server: Upstream, settings: LazySettings
) -> None:
    settings.LLM_MAX_RUNNING, settings.LLM_MAX_WAITING = 2, 8
    people = [await reader_with_a_document() for _ in range(20)]
    taken, refused, slowest = [], 0, 0.0
    for user in people:
        began = time.monotonic()
        try:
            taken.append(await asked(user))
        except Exception as error:  # noqa: BLE001 - what a form is told
            assert getattr(error, "code", "") == "llm_overloaded"
            slowest = max(slowest, time.monotonic() - began)
            refused += 1
    assert (len(taken), refused) == (10, 10)
    assert slowest < 10  # who waits in line, waits for longer
    tasks = [asyncio.create_task(generate(answer.pk)) for answer in taken]
    deadline = time.monotonic() + 60
    while "queue_position" not in await all_events(taken, settings):
        assert time.monotonic() < deadline, "no place in the line was told"
        await asyncio.sleep(0.05)
    assert await asyncio.to_thread(server.metric, "num_requests_running") <= 2
    for answer in taken:
        await sync_to_async(stream.request_stop)(answer.pk)
    await asyncio.wait_for(asyncio.gather(*tasks), 60)
    await engines.llm().aclose()  # type: ignore[attr-defined]


@sync_to_async
def all_events(answers: list[Message], settings: LazySettings) -> str:
    client = redis.Redis.from_url(settings.REDIS_URL)
    return str([client.xrange(f"answer:{answer.pk}:events") for answer in answers])
