"""Connections are borrowed for a query, never held while something else is waited for."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import ParamSpec, TypeVar

from asgiref.sync import sync_to_async
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
