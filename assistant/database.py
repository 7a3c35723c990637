"""Connections and threads are borrowed for a query, never held while something else is awaited."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache, wraps
from threading import BoundedSemaphore
from typing import Any, ParamSpec, Self, TypeVar, cast

from asgiref.sync import ThreadSensitiveContext, sync_to_async
from django.conf import settings
from django.db import connection, transaction
from django.db.backends.utils import CursorWrapper
from psycopg import ClientCursor, Connection, Cursor, IsolationLevel
from psycopg.pq import TransactionStatus

P = ParamSpec("P")
T = TypeVar("T")


def release_connection() -> None:
    """Give this thread's connection back to the pool, unless a transaction needs it."""
    if not connection.in_atomic_block:
        connection.close()


@contextmanager
def snapshot() -> Iterator[bool]:
    """Several reads of one moment: what others commit meanwhile is seen by none or by all.

    Inside an open transaction that transaction's own isolation holds. Yields whether it is one of
    its own, which ends with the block.
    """
    if connection.in_atomic_block:
        yield False
        return
    connection.ensure_connection()
    raw = cast("Connection[Any]", connection.connection)
    # Said with BEGIN: a statement of its own would be a way to the server and back.
    with connection.wrap_database_errors:
        raw.isolation_level, raw.read_only = IsolationLevel.REPEATABLE_READ, True
    try:
        with transaction.atomic():
            yield True
    finally:
        if raw.info.transaction_status == TransactionStatus.IDLE:
            raw.isolation_level = raw.read_only = None


def beside(call: Callable[[], T]) -> Future[T] | None:
    """``call`` in another thread, on a connection that sees the moment of this ``snapshot()``.

    None where it may not be started now. It fails if the snapshot has ended before it began.
    """
    free = _beside()
    if not free.turns.acquire(blocking=False):
        return None
    try:
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_export_snapshot()")
            (moment,) = cursor.fetchone()
        running = free.threads.submit(_at_the_moment, moment, call)
    except BaseException:
        free.turns.release()
        raise
    running.add_done_callback(lambda _: free.turns.release())
    return running


def _at_the_moment(moment: str, call: Callable[[], T]) -> T:
    try:
        with snapshot():
            with connection.cursor() as cursor:
                cursor.execute(f"SET TRANSACTION SNAPSHOT '{moment}'")
            return call()
    finally:
        release_connection()


@dataclass(frozen=True, slots=True)
class _Beside:
    threads: ThreadPoolExecutor
    turns: BoundedSemaphore


@cache
def _beside() -> _Beside:
    # Who asks has a connection and waits for another one: were they as many as there are, nobody
    # would ever give one back. Without a pool, to connect takes longer than is gained.
    most = settings.DATABASE_POOL_SIZE // 4
    return _Beside(
        ThreadPoolExecutor(max(most, 1), thread_name_prefix="beside"), BoundedSemaphore(most)
    )


class _ServerCursor(Cursor[Any]):
    """Parameters travel beside the statement, rows come as PostgreSQL holds them."""

    prepare: bool | None = None

    def mogrify(self, query: str, params: Mapping[str, Any] | None = None) -> str:
        """The statement as Django's own cursors would send it."""
        return ClientCursor(self.connection).mogrify(query, params)

    def execute(self, query: Any, params: Any = None, **options: Any) -> Self:
        return super().execute(query, params, prepare=self.prepare, binary=True, **options)


def server_cursor(*, is_planned_once: bool = True) -> CursorWrapper:
    """A cursor for hot statements, one at a time, whose parameters have a type where they stand.

    PostgreSQL plans a statement once for each connection of the pool, unless its best plan depends
    on the parameters: planning under row-level security takes longer than running. And half a
    megabyte of bytes would be a megabyte as text, written and read digit by digit.
    """
    connection.ensure_connection()
    cursor = _ServerCursor(cast("Connection[Any]", connection.connection))
    cursor.prepare = None if is_planned_once else False
    bare = cast("CursorWrapper", cursor)
    if connection.queries_logged:
        return connection.make_debug_cursor(bare)
    return connection.make_cursor(bare)


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

    in_thread = sync_to_async(query)

    @wraps(function)
    async def wrapper(*args: P.args, **kwargs: P.kwargs) -> T:
        return await in_thread(*args, **kwargs)

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
