"""Who works on which queue, from what workers really did: the one answer for pages and doctor.

A worker gives a sign when it has taken a message from its queues or kept a lease alive, at least
every 15 seconds while all is well (``ingestion.pulse``). An answered ping would prove less: a
worker can answer and yet consume nothing.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import timedelta

import redis
from django.conf import settings
from django.db.models import DurationField, ExpressionWrapper, F, Min
from django.db.models.functions import Now

from ingestion.models import WorkerSign

# Without a sign for this long nobody works on a queue, whatever the process list says.
SILENT_SECONDS = 90.0
# What a worker sends to itself.
PROBE_TASK = "ingestion.tasks.show_life"


def queues() -> list[str]:
    """The queues that somebody must work on for the site to work."""
    routed = {route["queue"] for route in settings.CELERY_TASK_ROUTES.values()}
    return sorted(routed | {settings.CELERY_TASK_DEFAULT_QUEUE})


def workers_alive() -> dict[str, float | None]:
    """Seconds since any worker last gave a sign, for each of ``queues()``; None: none is known.

    Over ``SILENT_SECONDS``, or None, means that nobody works on the queue. Ask
    ``broker_answers`` next: without a broker, healthy workers are silent too. Times are the
    database's. Raises DatabaseError.
    """
    age = ExpressionWrapper(Now() - F("seen_at"), output_field=DurationField())
    ages = WorkerSign.objects.order_by().values("queue").annotate(age=Min(age))
    seen = {row["queue"]: max(0.0, row["age"].total_seconds()) for row in ages}
    return {queue: seen.get(queue) for queue in queues()}


def queues_without_worker() -> list[str]:
    """The queues whose uploads wait for ever as things are; empty when all is well."""
    return [
        queue
        for queue, seconds in workers_alive().items()
        if seconds is None or seconds > SILENT_SECONDS
    ]


def broker_answers() -> bool:
    """Whether a new connection to the broker is served; waits at most a few seconds."""
    try:
        with redis.Redis.from_url(
            settings.REDIS_URL, socket_timeout=3, socket_connect_timeout=3
        ) as client:
            return bool(client.ping())
    except (redis.RedisError, OSError):
        return False


def sign(node: str, served: Iterable[str]) -> None:
    """Write down that ``node`` works on the queues it serves. Raises DatabaseError."""
    WorkerSign.objects.bulk_create(
        [WorkerSign(node=node, queue=queue, seen_at=Now()) for queue in served],
        update_conflicts=True,
        unique_fields=["queue", "node"],
        update_fields=["seen_at"],
    )


def sign_off(node: str) -> None:
    """The node stops in order: nobody waits for its silence."""
    WorkerSign.objects.filter(node=node).delete()


def forget_silent(*, older_than: timedelta = timedelta(days=1)) -> None:
    """Drop what nodes left behind that never came back, such as replaced containers."""
    WorkerSign.objects.filter(seen_at__lt=Now() - older_than).delete()
