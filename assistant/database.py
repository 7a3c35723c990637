"""Connections and threads are borrowed for a query, never held while something else is awaited."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache, wraps
from typing import Any, ParamSpec, TypeVar

from asgiref.sync import ThreadSensitiveContext, sync_to_async
from django.conf import settings
from django.db import connection, transaction

P = ParamSpec("P")
T = TypeVar("T")


def release_connection() -> None:
    """Give this thread's connection back to the pool, unless a transaction needs it."""
    if not connection.in_atomic_block:
        connection.close()


@contextmanager
def snapshot() -> Iterator[None]:
    """Several reads of one moment: what others commit meanwhile is seen by none or by all.

    Inside an open transaction that transaction's own isolation holds.
    """
    if connection.in_atomic_block:
        yield
        return
    with transaction.atomic():
        with connection.cursor() as cursor:
            cursor.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
        yield


def in_database(function: Callable[P, T]) -> Callable[P, Awaitable[T]]:
    """Run a function that queries in a thread, and give its connection back when it returns.

    Outside a request nobody else would: an answer that streams for minutes, or two hundred of
    them, must not keep a connection each.
    """

    def query(*args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return function(*args, **kwargs)
        finally:
            release_connection()

    @wraps(function)
    async def wrapper(*args: P.args, **kwargs: P.kwargs) -> T:
        return await sync_to_async(query)(*args, **kwargs)

    return wrapper


class _Threads(ThreadPoolExecutor):
    """All threads of the web process that query, each free for anybody after every call."""

    def submit(self, call: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        return super().submit(_returning, call, *args, **kwargs)


def _returning(call: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    try:
        return call(*args, **kwargs)
    finally:
        release_connection()


@cache
def _threads() -> _Threads:
    # More than there are connections would only wait for one of them.
    return _Threads(settings.DATABASE_POOL_SIZE or 20, thread_name_prefix="query")


def shared_threads() -> ThreadSensitiveContext:
    """Around a request or an answer: what it does in a thread, it does in one of a bounded number.

    Django gives each request a thread until it ends, which for a stream are minutes, and starts it
    on the event loop, which waits for that.
    """
    return ThreadSensitiveContext(executor=_threads())
